"""A running agent among strangers who mean harm: it stays small, says so briefly, and pulls what it was asked for."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import define, field

from krakentx.core.digest import Digest
from krakentx.core.metainfo import MetaInfo
from tests.cluster import Agent, Cluster, Herd, request
from tests.peer.authority import Authority
from tests.peer.strangers import Crowd

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MIB = 1 << 20
SIZE = 4 * MIB
PIECE = 512 << 10
LINE_BITS = 128_000_000
"""Of the origin: a pull takes a quarter of a second, so that the strangers can come between."""
HARM_S = 0.2
ROOM = 48
"""Sockets of strangers that an agent may hold; its own default is 256."""
FILES_OF_TWO_SWARMS = 2 * 20 + 12
"""Connections of both torrents, and what a pull opens."""
FILES_OF_A_BLOB = 4
AWAY_S = 8.0
GROWTH = 32 * MIB
LINES = 10 + 8 * 2 * 11 + 402
"""The pull's; ten of each address and of each torrent, and that there are more; what connections came to be."""
SETTINGS = {
    "scheduler": {
        "conn_tti": "1s",
        "conn": {"handshake_timeout": "700ms", "max_pending_handshakes": ROOM},
        "dispatch": {"piece_request_min_timeout": "500ms", "piece_request_timeout_per_mb": "100ms"},
    }
}
DEEDS = {
    # What is done, and within how many seconds of the last of it every connection must be gone. None: it is legal, and
    # its connection may live on; what it costs is looked at all the same.
    Crowd.say_nothing: 1.5,
    Crowd.drip: 1.5,
    Crowd.come_and_go: 1.5,
    Crowd.stay_half: 1.5,
    Crowd.boast: 1.5,
    Crowd.ask_for_another: 1.0,
    Crowd.break_tls: 1.5,
    Crowd.talk_rubbish: 0.5,
    Crowd.press_pieces: 2.0,
    Crowd.lie_of_length: 3.0,
    Crowd.demand: None,
    Crowd.never_read: 4.0,
    Crowd.chatter: None,
    Crowd.claim_all: 4.0,
}


@define(eq=False)
class Body:
    """What a process holds, as the kernel tells."""

    pid: int
    log: Path
    rss: int = field(init=False)
    files: int = field(init=False)
    most_files: int = field(init=False)
    lines: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.weigh()

    def weigh(self) -> None:
        """Remember what it holds now, and let the peak begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        self.rss, self.lines = self.now("VmRSS"), len(self.said)
        self.files = self.most_files = self.open_files

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Look at the file handles all the time."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.01):
                self.most_files = max(self.most_files, self.open_files)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def now(self, what: str) -> int:
        """Bytes, by a name of /proc/PID/status; `VmHWM` is the peak since `weigh`."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == what:
                return int(value.split()[0]) * 1024
        raise AssertionError(f"/proc tells no {what}")

    @property
    def open_files(self) -> int:
        """Open file handles."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def said(self) -> list[str]:
        """Lines of its log."""
        return self.log.read_text().splitlines()


@define(eq=False)
class Scene:
    """An agent that holds one blob, and blobs that it does not hold yet."""

    cluster: Cluster
    held: MetaInfo
    blobs: list[bytes]

    @property
    def agent(self) -> Agent:
        return self.cluster.agents[0]

    def meta(self, data: bytes) -> MetaInfo:
        """As the tracker tells it."""
        path = f"/namespace/a/blobs/{Digest.of(data)}/metainfo"
        return MetaInfo.from_json(request(self.cluster.herd.tracker_port, "GET", path).body)

    def pull(self, data: bytes) -> None:
        """Through the agent's registry."""
        answer = request(self.agent.port, "GET", f"/v2/a/blobs/{Digest.of(data)}")
        assert answer.status == 200
        assert answer.body == data


def push(herd: Herd, data: bytes) -> None:
    begun = request(herd.proxy_port, "POST", "/v2/a/blobs/uploads/", b"")
    place = begun.headers["location"]
    assert request(herd.proxy_port, "PUT", f"{place}?digest={Digest.of(data)}", data).status == 201


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("strangers")
    config = folder / "agent.yaml"
    authority = Authority.make(folder, "ca")
    own = authority.issue("agent").cert.path
    identity = {"cert": {"path": str(own)}, "key": {"path": str(own.with_suffix(".key"))}}
    tls = {"peers": "optional", "cas": [{"path": str(authority.path)}], "client": identity}
    config.write_text(json.dumps({**SETTINGS, "tls": tls}))
    bandwidth = {"enable": True, "egress_bits_per_sec": LINE_BITS, "ingress_bits_per_sec": LINE_BITS}
    origin = {"metainfogen": {"piece_lengths": {0: PIECE}}, "scheduler": {"conn": {"bandwidth": bandwidth}}}
    herd = Herd.make(folder / "herd", {"origin": origin})
    rng = random.Random(5)
    with Cluster.start(folder, 1, herd=herd, agent_options=[f"--config={config}"]) as cluster:
        held, *blobs = (rng.randbytes(SIZE) for _ in range(len(DEEDS) + 1))
        for data in (held, *blobs):
            push(herd, data)
        scene = Scene(cluster, MetaInfo(Digest.of(b""), 0, 1, ()), blobs)
        scene.pull(held)
        scene.held = scene.meta(held)
        yield scene


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
def test_an_agent_among_strangers(scene: Scene, deed: Callable[[Crowd], None], capsys: pytest.CaptureFixture) -> None:
    data = scene.blobs.pop()
    agent, within_s = scene.agent, DEEDS[deed]
    body = Body(agent.pid, agent.log)
    crowds = [Crowd(agent.peer_port, meta) for meta in (scene.held, scene.meta(data))]
    threads = [crowd.run(deed) for crowd in crowds]
    try:
        with body.watched():
            time.sleep(HARM_S)
            began = time.monotonic()
            scene.pull(data)
            took_s = time.monotonic() - began
        for crowd in crowds:
            crowd.over.set()
        for thread in threads:
            thread.join()
        left = 0 if within_s is None else sum(crowd.left(within_s) for crowd in crowds)
    finally:
        for crowd in crowds:
            crowd.leave()
    deadline = time.monotonic() + AWAY_S
    while body.open_files > body.files + FILES_OF_A_BLOB and time.monotonic() < deadline:
        time.sleep(0.02)
    peak, lines = body.now("VmHWM"), body.said[body.lines :]
    opened = sum(crowd.opened for crowd in crowds)
    with capsys.disabled():
        print(
            f"\n{deed.__name__:16}{opened:5} connections, pull {took_s:.2f} s, "
            f"files {body.files} -> {body.most_files} -> {body.open_files}, "
            f"MiB {body.rss >> 20} -> {peak >> 20} -> {body.now('VmRSS') >> 20}, {len(lines)} lines",
            end="",
        )
    assert opened >= 16, "the strangers did nothing"
    assert left == 0, f"{left} connections are still open"
    assert body.most_files <= body.files + ROOM + FILES_OF_TWO_SWARMS
    assert body.open_files <= body.files + FILES_OF_A_BLOB
    assert peak <= body.rss + GROWTH
    assert len(lines) <= LINES
    errors = [line for line in lines if " ERROR " in line or " CRITICAL " in line]
    assert errors == []
