"""Docker daemons on hosts of their own, whose mirrors are their agent and then the herd's proxy."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import io
import json
import random
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.tools import Docker, need_root, program, skopeo_push
from tests.hosts.conftest import Site, Tell
from tests.testbed.daemons import PROXY, REGISTRY, HostDaemon

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

MIB = 1 << 20
RATE = "100mbit"
SIZE = 24 * MIB
PULLERS = 3
ATTEMPTS = 1


def image(path: Path, size: int, seed: int) -> str:
    """A docker archive with one layer of random bytes; returns the id of the image."""
    layer = _tar({"payload": random.Random(seed).randbytes(size)})
    diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": None, "Layers": ["layer.tar"]}]).encode()
    path.write_bytes(_tar({"config.json": config, "layer.tar": layer, "manifest.json": manifest}))
    return f"sha256:{hashlib.sha256(config).hexdigest()}"


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def push_image(site: Site, folder: Path, name: str, size: int, seed: int) -> str:
    """Make an image and push it; returns its id."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{seed}.tar"
    digest = image(archive, size, seed)
    with site.hosts.herd.inside():
        skopeo_push(f"docker-archive:{archive}", f"127.0.0.1:{PROXY}/{name}", "--dest-compress=false")
    return digest


@contextlib.contextmanager
def dockers(site: Site, agents: list[HostDaemon]) -> Iterator[list[Docker]]:
    """A docker daemon on the host of each."""
    mirrors = [f"http://127.0.0.1:{REGISTRY}", f"http://{site.hosts.herd.ip}:{PROXY}"]
    with contextlib.ExitStack() as held:
        started = []
        for agent in agents:
            with agent.host.inside():
                # By default docker tries a broken layer five more times, 75 s in all, before it asks the next mirror.
                started.append(held.enter_context(Docker.start(mirrors, max_download_attempts=ATTEMPTS)))
        yield started


def timed_pull(docker: Docker, name: str) -> float:
    began = time.monotonic()
    docker("pull", "-q", name, timeout_s=150)
    return time.monotonic() - began


def image_id(docker: Docker, name: str) -> str:
    return docker("image", "inspect", "--format", "{{.Id}}", name).strip()


def kill_at_work(agent: HostDaemon, size: int, *, again: bool) -> threading.Thread:
    """kill -9 the agent once so many bytes have come to its host; start it again, as systemd would, when told to."""
    start = agent.host.traffic().received

    def run() -> None:
        while agent.host.traffic().received < start + size:
            time.sleep(0.05)
        agent.kill()
        if again:
            agent.start()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_docker_finishes_when_its_agent_dies_in_the_middle(site: Site, tmp_path: Path, tell: Tell) -> None:
    need_root("dockerd")
    program("skopeo")
    agents = site.agents[:PULLERS]
    name = "library/kraken-hosts:v1"
    wanted = push_image(site, tmp_path, name, SIZE, 1)
    for host in site.hosts:
        host.limit(RATE)
    with dockers(site, agents) as daemons, concurrent.futures.ThreadPoolExecutor(PULLERS) as pool:
        killers = [kill_at_work(agents[0], SIZE // 3, again=False), kill_at_work(agents[1], SIZE // 3, again=True)]
        took = list(pool.map(lambda docker: timed_pull(docker, name), daemons))
        for killer in killers:
            killer.join(10)
        assert [agent.running for agent in agents] == [False, True, True]
        assert [image_id(docker, name) for docker in daemons] == [wanted] * PULLERS
    tell(
        f"docker with its agent killed in the middle: {took[0]:.1f} s by the second mirror (after {ATTEMPTS} more try),"
        f" {took[1]:.1f} s when the agent is started again, {took[2]:.1f} s undisturbed"
    )
