"""The guide is run: each of its commands, and each of its symptoms is made to happen and mended as it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients.tools import daemon, program, short_folder, wait_for
from tests.multihost.box import FOLDER, FULL_PATH, Box
from tests.multihost.conftest import Site, answers
from tests.multihost.guide import Block, blocks, missing

# The first test of a run also waits for the hosts and for the first deployments.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

BLOCKS = blocks()
PRODUCTION, CLEAN_UP = "In production", "Clean up"
SECTIONS = list(dict.fromkeys(block.section for block in BLOCKS))
FIRST = SECTIONS[: SECTIONS.index("The agent does not answer")]
SYMPTOMS = SECTIONS[len(FIRST) : SECTIONS.index(PRODUCTION)]


@contextmanager
def dockerd(site: Site, settings: str) -> Iterator[dict[str, str]]:
    """A docker daemon in the network of the agent's host; what its client needs in the environment."""
    with short_folder() as folder, site.agent.host.inside():
        (folder / "daemon.json").write_text(settings)
        address = f"unix://{folder}/docker.sock"
        argv = [
            *(program("dockerd"), "--config-file", folder / "daemon.json", "--data-root", folder / "data"),
            *("--exec-root", folder / "exec", "--pidfile", folder / "pid", "-H", address),
            *("--bridge=none", "--iptables=false", "--ip6tables=false"),
        ]
        env = {"PATH": FULL_PATH, "DOCKER_HOST": address, "HOME": str(folder)}
        try:
            with daemon(folder / "log", *argv):
                version = [program("docker"), "version"]
                wait_for(
                    "dockerd to answer",
                    lambda: subprocess.run(version, env=env, capture_output=True, check=False).returncode == 0,
                )
                yield env
        finally:
            subprocess.run(["umount", "-q", str(folder / "exec/netns/default")], check=False, capture_output=True)


def shell(text: str, env: dict[str, str], cwd: Path | None = None, ok: bool = True) -> str:
    done = subprocess.run(
        ["sh", "-ec", text], env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert ok == (done.returncode == 0), done.stdout
    return done.stdout


class Runner:
    """Runs blocks of the guide where they say, and compares what they print with the block below them."""

    def __init__(self, site: Site, workstation: Path, wheels: Path) -> None:
        self.site = site
        self.boxes = {"herd": site.herd, "agent": site.agent, "single": site.other}
        self.workstation = workstation
        self._wheels = wheels

    def run(self, *sections: str) -> None:
        """All blocks of these sections."""
        printed = ""
        for block in BLOCKS:
            if block.section not in sections:
                continue
            language, _, where = block.info.partition(" ")
            if language == "sh":
                printed = self._run(where, block)
            elif language == "text":
                assert missing(block.text, printed) == [], printed

    def _run(self, where: str, block: Block) -> str:
        if where in self.boxes:
            return self.boxes[where].run("sh", "-ec", block.text, path=FULL_PATH)
        if where == "workstation":
            return self._at_the_workstation(block)
        assert where == "docker", block.info
        [settings] = [other.text for other in BLOCKS if other.info == "json daemon.json"]
        with dockerd(self.site, settings) as env:
            return shell(block.text, env)

    def _at_the_workstation(self, block: Block) -> str:
        """A clone with a wheel; there is no sshd on the hosts, so `scp -rq FOLDER HOST:/srv/` copies."""
        shutil.copytree(FOLDER, self.workstation / "examples/multihost")
        shutil.copytree(self._wheels, self.workstation / "dist")
        cases = "\n".join(f"{box.ip}:*) to={box.root}${{3#*:}} ;;" for box in self.site.boxes)
        scp = self.workstation / "bin/scp"
        scp.parent.mkdir()
        scp.write_text(f'#!/bin/sh\nset -eu\n[ "$1" = -rq ]\ncase $3 in\n{cases}\nesac\ncp -r "$2" "$to"\n')
        scp.chmod(0o755)
        return shell(block.text, {"PATH": f"{scp.parent}:{FULL_PATH}"}, self.workstation)


@pytest.fixture(scope="module")
def runner(site: Site, tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Runner:
    if shutil.which("curl", path=FULL_PATH) is None:
        pytest.skip("curl is not on this machine; it comes with the Debian package curl")
    return Runner(site, tmp_path_factory.mktemp("workstation"), wheels)


def test_every_command_says_where_it_runs() -> None:
    kinds = {block.info for block in BLOCKS}
    assert kinds == {"sh workstation", "sh herd", "sh agent", "sh single", "sh docker", "json daemon.json", "text"}


def test_set_up_check_and_use(runner: Runner) -> None:
    runner.run(*FIRST)
    folder = runner.site.agent.root / "tmp/company_myapp"
    assert json.loads((folder / "index.json").read_text())["manifests"]


# -- symptoms: each function makes one happen, and returns what was to be seen


def checked(site: Site, ok: bool | None = True) -> str:
    """test_multihost.sh on the agent's host."""
    return site.agent.run("test/test_multihost.sh", site.herd.ip, site.agent.ip, ok=ok, path=FULL_PATH)


def pulled(site: Site, box: Box, image: str, **options: object) -> str:
    env = {"HERD_HOST": f"{site.herd.ip}:15000", "KRAKEN_PULL_WITH": "skopeo", "KRAKEN_PULL_DIR": "/tmp"}
    argv = ("test/kraken-pull.sh", image, f"{site.agent.ip}:16000")
    return box.run(*argv, path=FULL_PATH, env=env, **options)  # type: ignore[arg-type]


def agent_stopped(site: Site) -> str:
    site.push("guide/stopped:v1")
    site.agent.run("scripts/undeploy.sh")
    return pulled(site, site.agent, "guide/stopped:v1")


def herd_on_localhost(site: Site) -> str:
    said = site.deploy_herd("localhost")
    [manifest, *_] = site.push("guide/localhost:v1")
    assert answers(site.agent, f"http://localhost:16000/v2/guide/localhost/manifests/{manifest}")
    wait_for("the end", lambda: f"Torrent complete: {manifest}" in site.agent.log("agent"))
    return said


def agent_on_localhost(site: Site) -> str:
    said = site.deploy_agent(site.agent, "127.0.0.1")
    return said + checked(site)


def port_dropped(site: Site) -> str:
    site.herd.host.drop(15001)
    try:
        reach = ("python3", "scripts/net.py", "reach", site.herd.ip, "15001")
        return checked(site, ok=False) + site.agent.run(*reach, ok=False)
    finally:
        site.herd.host.undrop()


def tracker_dropped(site: Site) -> str:
    [manifest, *_] = site.push("guide/tracker:v1")
    site.herd.host.drop(15003)
    try:
        assert answers(site.agent, f"http://localhost:16000/v2/guide/tracker/manifests/{manifest}")
        wait_for("a failed announce", lambda: " failed: tracker 10.0.1.100:15003 is " in site.agent.log("agent"))
        return site.agent.run("curl", "-s", "http://localhost:16002/readiness", path=FULL_PATH)
    finally:
        site.herd.host.undrop()


def agent_before_herd(site: Site) -> str:
    site.herd.run("scripts/undeploy.sh")
    return site.deploy_agent(site.agent)


def port_taken(site: Site) -> str:
    site.herd.run("scripts/undeploy.sh")
    with daemon(Path(os.devnull), *site.herd.command("/usr/bin/python3", "-m", "http.server", "15000")):
        wait_for("the other server", lambda: ":15000 " in site.herd.run("ss", "-ltn", path=FULL_PATH))
        said = site.deploy_herd(ok=False)
    site.deploy_herd()
    return said


def package_gone(site: Site) -> str:
    place = site.other.root / "opt/kraken"
    place.rename(place.with_name("elsewhere"))
    try:
        return site.deploy_agent(site.other, ok=False)
    finally:
        place.with_name("elsewhere").rename(place)


def pushed_to_agent(site: Site) -> str:
    return site.agent.run("python3", "test/image.py", "push", f"{site.agent.ip}:16000", "company/app:v1", ok=False)


def unknown_tag(site: Site) -> str:
    argv = ("python3", "test/image.py", "pull", f"{site.agent.ip}:16000", "company/nothing:v1", "sha256:0")
    return site.agent.run(*argv, ok=False)


def docker_without_settings(site: Site) -> str:
    site.push("guide/plain:v1")
    command = f"{FOLDER}/test/kraken-pull.sh guide/plain:v1 {site.agent.ip}:16000"
    with dockerd(site, "{}") as env:
        said = shell(command, {**env, "HERD_HOST": f"{site.herd.ip}:15000"}, ok=False)
    lines = said.splitlines()
    advice = "\n".join(lines[lines.index("{") : lines.index("}") + 1])
    with dockerd(site, advice) as env:  # what it advises works
        assert "falling back" not in shell(command, env)
        assert "guide/plain" in shell("docker images", env)
        shell("docker rmi guide/plain:v1 && docker pull guide/plain:v1", env)
    return said


def nothing(site: Site) -> str:
    return ""


MAKE: dict[str, Callable[[Site], str]] = {
    "The agent does not answer": agent_stopped,
    "The herd was deployed as localhost": herd_on_localhost,
    "An agent announces an address that others cannot reach": agent_on_localhost,
    "A firewall drops the peer wire": port_dropped,
    "The tracker cannot be reached": tracker_dropped,
    "The agent was deployed before the herd": agent_before_herd,
    "A port is taken": port_taken,
    "The package is not there": package_gone,
    "A push goes to an agent": pushed_to_agent,
    "A tag is not known": unknown_tag,
    "docker wants HTTPS": docker_without_settings,
    "Which process is it?": nothing,
}


UNHARMED = ("A push goes to an agent", "A tag is not known", "docker wants HTTPS", "The package is not there")


def test_every_symptom_has_a_test() -> None:
    assert list(MAKE) == SYMPTOMS


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_symptom(runner: Runner, symptom: str) -> None:
    site = runner.site
    logs = [(site.agent, "agent"), (site.herd, "herd")]
    before = [len(box.log(component)) for box, component in logs]
    said = MAKE[symptom](site)
    seen = said + "".join(box.log(component)[skip:] for (box, component), skip in zip(logs, before, strict=True))
    expected = next((block.text for block in BLOCKS if block.section == symptom and block.info == "text"), "")
    assert missing(expected, seen) == [], seen
    for block in BLOCKS:
        if block.section == symptom and block.info.startswith("sh "):
            runner.boxes[block.info[3:]].run("sh", "-ec", block.text, path=FULL_PATH)
    if said and symptom not in UNHARMED:
        checked(site)


def test_production(runner: Runner) -> None:
    runner.run(PRODUCTION)


def test_clean_up(runner: Runner) -> None:
    site = runner.site
    other = site.other
    runner.boxes["herd"] = other  # which had one; the real one is needed by others
    try:
        runner.run(CLEAN_UP)
        left = [
            folder for folder in ("var/cache/kraken", "var/log/kraken", "etc/kraken") if (other.root / folder).exists()
        ]
        assert left == []
        assert (site.agent.root / "var/cache/kraken/agent/cache").is_dir()
    finally:
        runner.boxes["herd"] = site.herd
        shutil.copytree(site.herd.root / "opt/kraken", other.root / "opt/kraken", symlinks=True)
        site.deploy_agent(site.agent)
