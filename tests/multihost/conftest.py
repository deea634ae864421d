"""A herd and two agents on bare hosts, deployed by the scripts of the example."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from attrs import frozen

from tests.multihost.box import Box, NoBox
from tests.testbed.hosts import Hosts, NoTestbed
from tests.wheel import build_wheel


def answers(box: Box, url: str, seconds: float = 0.0) -> bool:
    """Whether a GET there is answered with 200."""
    done = box.run("sh", "-c", f"python3 scripts/net.py wait {seconds} {url} 2>&1 || echo no")
    return not done.endswith("no\n")


@frozen
class Site:
    """Bare hosts. The herd's has the wheels beside the scripts, the others the package itself.

    The third is for tests to do with what they like; nothing is expected to run there.

    Args:
        said: what the first deployments printed, script by script.
    """

    herd: Box
    agent: Box
    other: Box
    said: dict[str, str]

    @property
    def boxes(self) -> tuple[Box, ...]:
        """All of them."""
        return (self.herd, self.agent, self.other)

    def deploy_herd(self, address: str = "", **options: object) -> str:
        """Run deploy_herd.sh on its host; what it printed."""
        return self.herd.run("scripts/deploy_herd.sh", address or self.herd.ip, **options)  # type: ignore[arg-type]

    def deploy_agent(self, box: Box, address: str = "", herd: str = "", **options: object) -> str:
        """Run deploy_agent.sh on a host; what it printed."""
        return box.run("scripts/deploy_agent.sh", herd or self.herd.ip, address or box.ip, **options)  # type: ignore[arg-type]

    def ready(self) -> None:
        """Deploy what an earlier test has left stopped."""
        if not answers(self.herd, "http://127.0.0.1:15000/v2/"):
            self.deploy_herd()
        if not answers(self.agent, "http://127.0.0.1:16000/v2/"):
            self.deploy_agent(self.agent)

    def push(self, name: str) -> list[str]:
        """Push a new image to the herd; the digests of manifest, configuration and layer."""
        return self.herd.run("python3", "test/image.py", "push", f"{self.herd.ip}:15000", name).split()

    def pull(self, box: Box, name: str, manifest: str) -> None:
        """Pull it on a host by its agent, and compare all of it."""
        box.run("python3", "test/image.py", "pull", "127.0.0.1:16000", name, manifest)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel, and those of all that it needs, for the python3 of this machine."""
    folder = tmp_path_factory.mktemp("wheels")
    wheel = build_wheel(tmp_path_factory.mktemp("wheel"))
    shutil.copy(wheel, folder)
    say = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = subprocess.run(["/usr/bin/python3", "-c", say], capture_output=True, text=True, check=True).stdout.strip()
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--only-binary=:all:"]
    done = subprocess.run(
        [*pip, "--python-version", version, "-d", str(folder), str(wheel)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"the wheels that ours needs cannot be fetched: {done.stderr.strip()[-300:]}")
    return folder


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Iterator[Site]:
    """Deployed once; a test that changes the deployment deploys again what it changed."""
    folder = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        try:
            hosts = stack.enter_context(Hosts.up(3))
            herd, agent, other = (stack.enter_context(Box.make(host, folder / host.name)) for host in hosts)
        except (NoTestbed, NoBox) as reason:
            pytest.skip(str(reason))
        site = Site(herd, agent, other, {})
        herd.bring(wheels)
        site.said["deploy_herd.sh"] = site.deploy_herd()
        for box in (agent, other):
            box.bring()
            shutil.copytree(herd.root / "opt/kraken", box.root / "opt/kraken", symlinks=True)
        site.said["deploy_agent.sh"] = site.deploy_agent(agent)
        yield site
