"""kill -9 at any instant: what was acknowledged stays, nothing unverified is served, verified pieces are reused."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, field

from tests.herd.launcher import Launcher
from tests.herd.world import MANIFEST_TYPE, Image
from tests.ports import free_ports

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(110)]

INSTANTS = 30
PIECE = 32 << 10
UP_WITHIN_S = 15.0
# What a broken connection looks like, at whatever moment it breaks.
BROKEN = (OSError, http.client.HTTPException)


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path_factory.mktemp("logs"))
    yield launcher
    launcher.close()


@define
class Daemon:
    """One twistd, which may be killed and started again on its ports and data."""

    launcher: Launcher
    argv: tuple[str, ...]
    health: int  # port that answers /health once it is up
    pid: int = field(default=0, init=False)

    def start(self) -> Daemon:
        self.pid = self.launcher.start(*self.argv)
        deadline = time.monotonic() + UP_WITHIN_S
        while True:
            try:
                if request(self.health, "GET", "/health")[0] == 200:
                    return self
            except BROKEN:
                pass
            assert time.monotonic() < deadline, self.launcher.log(self.pid)
            time.sleep(0.02)

    def kill(self, how: int = signal.SIGKILL) -> None:
        pid, self.pid = self.pid, 0
        self.launcher.kill(pid, how)


@define
class Herd(Daemon):
    """A herd."""

    ports: list[int] = field(factory=list)

    @classmethod
    def make(cls, launcher: Launcher, folder: Path) -> Herd:
        folder.mkdir()
        ports = free_ports(7)
        testfs, proxy, server, peer, blobs, tracker, index = ports
        config = folder / "herd.yaml"
        config.write_text(f"origin: {{metainfogen: {{piece_lengths: {{0: {PIECE}}}}}}}\n")
        argv = (
            *("kraken-herd", f"--config={config}", f"--data-dir={folder / 'data'}", "--peer-ip=127.0.0.1"),
            *(f"--testfs-port={testfs}", f"--port={proxy}", f"--server-port={server}", f"--peer-port={peer}"),
            *(f"--blobserver-port={blobs}", f"--tracker-port={tracker}", f"--build-index-port={index}"),
        )
        return cls(launcher, argv, server, ports)

    @property
    def proxy(self) -> int:
        return self.ports[1]


def request(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers, body. Raises one of BROKEN, also for a body that is cut."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def push_blob(port: int, data: bytes) -> bool:
    """Whether it was acknowledged."""
    status, headers, _ = request(port, "POST", "/v2/a/blobs/uploads/", b"")
    if status != 202:
        return False
    half = len(data) // 2
    for part in (data[:half], data[half:]):
        status, headers, _ = request(port, "PATCH", headers["location"], part)
        if status != 202:
            return False
    status, _, _ = request(port, "PUT", f"{headers['location']}?digest={digest_of(data)}", b"")
    return status == 201


def killed_after(daemon: Daemon, seconds: float, began: Path | None = None) -> threading.Thread:
    """Kills it so many seconds from now; with `began`, from the moment that this file says that a piece is verified."""

    def kill() -> None:
        deadline = time.monotonic() + 5
        while began is not None and not _begun(began) and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(seconds)
        daemon.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def _begun(status: Path) -> bool:
    try:
        return b"\1" in status.read_bytes()
    except FileNotFoundError:
        return False


def test_a_herd_that_is_killed_while_images_are_pushed(launcher: Launcher, tmp_path: Path) -> None:
    rng = random.Random(30)
    herd = Herd.make(launcher, tmp_path / "herd").start()
    blobs: dict[str, bytes] = {}
    tags: dict[str, bytes] = {}
    tried: dict[str, bytes] = {}
    took_s = 0.15
    broken = 0
    for number in range(INSTANTS):
        image = Image.make(number, *(rng.randrange(1, 200_000) for _ in range(3)))
        timer = killed_after(herd, rng.uniform(0, took_s))
        began = time.monotonic()
        try:
            for data in image.blobs:
                tried[digest_of(data)] = data
                if push_blob(herd.proxy, data):
                    blobs[digest_of(data)] = data
            tried[digest_of(image.manifest)] = image.manifest
            path = f"/v2/a/manifests/v{number}"
            status, _, _ = request(herd.proxy, "PUT", path, image.manifest, {"Content-Type": MANIFEST_TYPE})
            if status == 201:
                tags[f"v{number}"] = image.manifest
            took_s = 0.7 * took_s + 0.3 * (time.monotonic() - began)
        except BROKEN:
            broken += 1
        timer.join()
        herd.start()
        # What was acknowledged is there; of what was not, either nothing is there or all of it.
        for digest, data in {**_some(rng, blobs), digest_of(image.blobs[-1]): image.blobs[-1]}.items():
            status, _, body = request(herd.proxy, "GET", f"/v2/a/blobs/{digest}")
            assert status == 200 or (status == 404 and digest not in blobs), launcher.log(herd.pid)
            assert status == 404 or body == data
    assert broken >= INSTANTS // 3, "most kills came too late to mean anything"
    for digest, data in tried.items():
        kind = "manifests" if data in tags.values() else "blobs"
        status, _, body = request(herd.proxy, "GET", f"/v2/a/{kind}/{digest}")
        assert status == 200 or (status == 404 and digest not in blobs), digest
        assert status == 404 or body == data
    for tag, manifest in tags.items():
        assert request(herd.proxy, "GET", f"/v2/a/manifests/{tag}")[2] == manifest
    folder = tmp_path / "herd" / "data"
    assert list((folder / "proxy" / "cache").rglob("data")) == []
    hidden = [path for part in ("origin", "proxy") for path in (folder / part).rglob(".*") if path.is_dir()]
    assert hidden == []
    herd.kill()


def _some(rng: random.Random, blobs: dict[str, bytes]) -> dict[str, bytes]:
    return dict(rng.sample(sorted(blobs.items()), min(3, len(blobs))))


def test_an_agent_that_is_killed_while_it_pulls(launcher: Launcher, tmp_path: Path) -> None:
    rng = random.Random(31)
    herd = Herd.make(launcher, tmp_path / "herd").start()
    agent, registry = _agent(launcher, tmp_path / "agent", herd)
    agent.start()
    reused = 0
    for number in range(INSTANTS):
        data = Image.make(1000 + number, PIECE * 24 + 5).layers[0]  # 0.35 s on the agent's line
        assert push_blob(herd.proxy, data)
        path = f"/v2/a/blobs/{digest_of(data)}"
        began = _status_file(tmp_path / "agent" / "data", data) if number % 3 else None
        timer = killed_after(agent, rng.uniform(0, 0.2), began)
        try:
            status, _, body = request(registry, "GET", path)
            assert (status, body) == (200, data)
        except BROKEN:
            pass
        timer.join()
        verified = _verified_bytes(tmp_path / "agent" / "data", data)
        agent.start()
        before = _received(agent.health)
        status, _, body = request(registry, "GET", path)
        assert (status, body) == (200, data), launcher.log(agent.pid)
        received = _received(agent.health) - before
        assert received <= len(data) - verified, "a verified piece was fetched again"
        reused += 0 < verified < len(data)
    assert reused >= INSTANTS // 4, "hardly any kill came in the midst of a pull"
    # The last one was answered when its hash was known, and moves into the cache a moment later.
    deadline = time.monotonic() + 5
    while left := list((tmp_path / "agent" / "data" / "download").rglob("data")):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    agent.kill()
    herd.kill()


def test_sigterm_ends_all_within_five_seconds_whatever_is_under_way(launcher: Launcher, tmp_path: Path) -> None:
    herd = Herd.make(launcher, tmp_path / "herd").start()
    agent, registry = _agent(launcher, tmp_path / "agent", herd)
    agent.start()
    data = Image.make(1, 4 << 20).layers[0]
    assert push_blob(herd.proxy, data)
    pulling = http.client.HTTPConnection("127.0.0.1", registry, timeout=20)
    pulling.request("GET", f"/v2/a/blobs/{digest_of(data)}")
    answer = pulling.getresponse()
    assert answer.read(PIECE) == data[:PIECE]
    pushing = http.client.HTTPConnection("127.0.0.1", herd.proxy, timeout=20)
    pushing.request("POST", "/v2/a/blobs/uploads/", b"")
    place = pushing.getresponse().headers["location"]
    pushing.close()
    pushing.putrequest("PATCH", place)
    pushing.putheader("Content-Length", "1000000")
    pushing.endheaders(b"the beginning of a layer")
    began = time.monotonic()
    for daemon in (agent, herd):
        os.kill(daemon.pid, signal.SIGTERM)
    for daemon in (agent, herd):
        daemon.kill(0)  # which waits for its end
    assert time.monotonic() - began < 5
    with pytest.raises(BROKEN):
        answer.read()
    pushing.close()
    for daemon in (herd, agent):
        daemon.start()
    assert request(registry, "GET", f"/v2/a/blobs/{digest_of(data)}")[2] == data
    for daemon in (agent, herd):
        daemon.kill()


def _agent(launcher: Launcher, folder: Path, herd: Herd) -> tuple[Daemon, int]:
    """An agent on a thin line, so that its pulls take a moment."""
    folder.mkdir()
    registry, server, peer = free_ports(3)
    _, _, _, _, blobs, tracker, index = herd.ports
    config = folder / "agent.yaml"
    bandwidth = {"enable": True, "ingress_bits_per_sec": 16 << 20, "egress_bits_per_sec": 16 << 20}
    config.write_text(json.dumps({"scheduler": {"conn": {"bandwidth": bandwidth}}}))
    argv = (
        *("kraken-agent", f"--config={config}", f"--data-dir={folder / 'data'}", "--peer-ip=127.0.0.1"),
        *(f"--agent-registry-port={registry}", f"--agent-server-port={server}", f"--peer-port={peer}"),
        *(f"--tracker=127.0.0.1:{tracker}", f"--build-index=127.0.0.1:{index}", f"--fallback=127.0.0.1:{blobs}"),
    )
    return Daemon(launcher, argv, server), registry


def _shard(data: bytes) -> Path:
    hex_ = hashlib.sha256(data).hexdigest()
    return Path(hex_[:2]) / hex_[2:4] / hex_


def _status_file(folder: Path, data: bytes) -> Path:
    return folder / "download" / _shard(data) / "_status"


def _verified_bytes(folder: Path, data: bytes) -> int:
    """What the disk says of a blob after a kill, without believing it where the bytes say otherwise."""
    if (folder / "cache" / _shard(data) / "data").exists():
        return len(data)
    status = _status_file(folder, data)
    partial = status.with_name("data")
    if not status.exists() or not partial.exists():
        return 0
    held = partial.read_bytes()
    total = 0
    for piece, mark in enumerate(status.read_bytes()):
        part = data[piece * PIECE : (piece + 1) * PIECE]
        if mark == 1 and held[piece * PIECE : (piece + 1) * PIECE] == part:
            total += len(part)
    return total


def _received(port: int) -> int:
    _, _, body = request(port, "GET", "/metrics")
    names = ("kraken_agent_peer_received_peers_bytes_total ", "kraken_agent_peer_received_fallback_bytes_total ")
    lines = [line for line in body.decode().splitlines() if line.startswith(names)]
    assert len(lines) == 2
    return int(sum(float(line.split()[-1]) for line in lines))
