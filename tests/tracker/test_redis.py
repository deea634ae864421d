"""Peers in a real redis-server: what a tracker of the reference finds there, and what an outage does not break."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, evolve, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from krakentx.clients.config import HostsConfig, UpstreamConfig
from krakentx.core.digest import Digest
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import PeerID, PeerInfo
from krakentx.tracker.config import PeerStoreConfig, RedisConfig, TrackerConfig
from krakentx.tracker.service import build
from tests.ports import free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

META = MetaInfo(Digest.of(b"0123456789"), 10, 4, (2791742845, 1292674027, 155395596))
HOUR = 3600


@define(eq=False)
class Redis:
    """A redis-server, or a sentinel, that may be killed and started again."""

    folder: Path
    options: tuple[str, ...] = ()
    config: str = ""
    port: int = field(factory=free_port)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("redis-server is not on this machine; it comes with the Debian package redis-server")
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "redis.conf"
        file.write_text(self.config)
        argv = [program, str(file), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        self.process = subprocess.Popen(
            [*argv, *self.options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "redis-server does not listen"
                time.sleep(0.02)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(10)

    def ask(self, *words: str) -> Any:
        """One command, in redis' own protocol, by nothing of ours."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock, sock.makefile("rwb") as stream:
            text = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
            stream.write(text.encode())
            stream.flush()
            return _answer(stream)


def _answer(stream: Any) -> Any:
    kind, rest = stream.read(1), stream.readline().strip()
    if kind == b":":
        return int(rest)
    if kind == b"*":
        return [_answer(stream) for _ in range(int(rest))]
    if kind == b"$":
        return stream.read(int(rest) + 2)[:-2].decode()
    return rest.decode()


Spawn = Callable[..., Redis]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    with ExitStack() as held:

        def start(*options: str, config: str = "", port: int | None = None) -> Redis:
            redis = Redis(tmp_path / f"redis-{free_port()}", options, config)
            if port is not None:
                redis.port = port
            held.callback(redis.end)
            redis.start()
            return redis

        yield start


@pytest.fixture
def redis(spawn: Spawn) -> Redis:
    return spawn("--save", "")


Tracker = Callable[..., Any]


@pytest_twisted.async_yield_fixture
async def tracker(start: Any) -> AsyncIterator[Tracker]:
    """Starts a tracker with its peers in redis; gives its base URL."""

    async def run(redis: RedisConfig) -> str:
        origin = UpstreamConfig(hosts=HostsConfig(static=("127.0.0.1:1",)))
        config = TrackerConfig(port=0, interface="127.0.0.1", origin=origin, peerstore=PeerStoreConfig(redis=redis))
        service = await start(build(config, reactor=reactor))
        return f"http://127.0.0.1:{service.http.port_number}"

    yield run


def at(redis: Redis, **changes: Any) -> RedisConfig:
    return evolve(RedisConfig(enabled=True, addr=f"127.0.0.1:{redis.port}", retry_s=0.3), **changes)


@define
class Announcer:
    """Announces to a tracker, and tells whom it named."""

    base: str
    fetch: Any

    async def __call__(self, ip: str, *, complete: bool = False, **more: Any) -> list[str]:
        return sorted(peer.ip for peer in await self.peers(ip, complete=complete, **more))

    async def peers(self, ip: str, *, complete: bool = False, **more: Any) -> list[PeerInfo]:
        peer = PeerInfo(PeerID.of_address(ip, 16001), ip, 16001, complete=complete)
        data = {"name": META.digest.hex, "digest": str(META.digest), "peer": peer.to_json(), **more}
        answer = await self.fetch("POST", f"{self.base}/announce/{META.info_hash}", data=json.dumps(data).encode())
        assert answer.status == 200, answer.body
        return [PeerInfo.from_json(peer) for peer in json.loads(answer.body)["peers"] or []]


def member(ip: str, complete: int) -> str:
    return f"{PeerID.of_address(ip, 16001)}:{ip}:16001:{complete}"


@pytest_twisted.ensureDeferred
async def test_members_and_windows_are_those_of_the_reference(redis: Redis, tracker: Tracker, fetch: Any) -> None:
    announce = Announcer(await tracker(at(redis)), fetch)
    began = time.time()
    await announce("10.0.0.1")
    await announce("10.0.0.1", complete=True)
    window = int(began) - int(began) % HOUR
    keys = redis.ask("KEYS", "*")
    assert keys in ([f"peerset:{META.info_hash}:{window}"], [f"peerset:{META.info_hash}:{window + HOUR}"])
    assert redis.ask("TYPE", keys[0]) == "set"
    # A peer that completes adds a second member, as the reference's trackers expect.
    assert sorted(redis.ask("SMEMBERS", keys[0])) == [member("10.0.0.1", 0), member("10.0.0.1", 1)]
    expires = int(keys[0].rpartition(":")[2]) + 5 * HOUR
    assert abs(redis.ask("TTL", keys[0]) - (expires - time.time())) < 3
    await announce("10.0.0.1", complete=True, stopped=True)
    assert redis.ask("KEYS", "*") == []


@pytest_twisted.ensureDeferred
async def test_peers_of_another_tracker_are_named(redis: Redis, tracker: Tracker, fetch: Any) -> None:
    window = int(time.time()) // HOUR * HOUR
    for back, ip, complete in ((0, "10.0.1.1", 0), (0, "10.0.1.1", 1), (3, "10.0.1.2", 1), (9, "10.0.1.9", 1)):
        redis.ask("SADD", f"peerset:{META.info_hash}:{window - back * HOUR}", member(ip, complete))
    redis.ask("SADD", f"peerset:{META.info_hash}:{window}", "nonsense", "a:b:c:d")
    announce = Announcer(await tracker(at(redis)), fetch)
    assert await announce("10.0.0.1") == ["10.0.1.1", "10.0.1.2"]  # not the one of nine hours ago
    answer = await fetch(
        "POST",
        f"{announce.base}/announce/{META.info_hash}",
        data=json.dumps(
            {
                "digest": str(META.digest),
                "peer": PeerInfo(PeerID.of_address("10.0.0.2", 1), "10.0.0.2", 1).to_json(),
            }
        ).encode(),
    )
    peers = {peer["ip"]: peer["complete"] for peer in json.loads(answer.body)["peers"]}
    assert peers == {"10.0.0.1": False, "10.0.1.1": True, "10.0.1.2": True}


@pytest_twisted.ensureDeferred
async def test_two_trackers_share_their_peers(redis: Redis, tracker: Tracker, fetch: Any) -> None:
    one, other = [Announcer(await tracker(at(redis)), fetch) for _ in range(2)]
    await one("10.0.0.1")
    assert await other("10.0.0.2") == ["10.0.0.1"]
    assert await one("10.0.0.3") == ["10.0.0.1", "10.0.0.2"]
    await other("10.0.0.2", stopped=True)
    assert await one("10.0.0.3") == ["10.0.0.1"]


@pytest_twisted.ensureDeferred
async def test_a_peer_that_speaks_tls_is_named_so_by_the_other_tracker(
    redis: Redis, tracker: Tracker, fetch: Any
) -> None:
    one, other = [Announcer(await tracker(at(redis)), fetch) for _ in range(2)]
    peer = PeerInfo(PeerID.of_address("10.0.0.1", 16001), "10.0.0.1", 16001)
    await one("10.0.0.1")
    await one("10.0.0.1", peer=evolve(peer, tls=True).to_json())
    (key,) = redis.ask("KEYS", "*")
    # The port reads as the same number in the reference; the spelling of before is gone.
    assert redis.ask("SMEMBERS", key) == [member("10.0.0.1", 0).replace(":16001:", ":016001:")]
    await one("10.0.0.1", peer=evolve(peer, tls=True, complete=True).to_json())
    assert await other.peers("10.0.0.2") == [evolve(peer, tls=True, complete=True)]
    await one("10.0.0.1", peer=evolve(peer, tls=True).to_json(), stopped=True)
    assert redis.ask("SMEMBERS", key) == [member("10.0.0.2", 0)]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hangs"])
async def test_announces_go_on_from_memory_while_redis_is_away(
    redis: Redis, tracker: Tracker, fetch: Any, logs: list[Any], how: signal.Signals
) -> None:
    announce = Announcer(await tracker(at(redis)), fetch)
    took: list[float] = []
    named: list[int] = []
    over = False

    async def load(number: int) -> None:
        while not over:
            began = time.monotonic()
            named.append(len(await announce(f"10.0.0.{number}")))
            took.append(time.monotonic() - began)

    loads = [Deferred.fromCoroutine(load(number)) for number in range(1, 11)]
    await deferLater(reactor, 0.5)
    assert named[-1] == 9
    if how == signal.SIGKILL:
        redis.end()
    else:
        assert redis.process is not None
        redis.process.send_signal(how)
    sent = len(took)
    await deferLater(reactor, 2.0)
    assert len(took) > sent + 100
    assert named[-1] == 9, "peers in memory were forgotten"
    if how == signal.SIGKILL:
        redis.start()
    else:
        redis.process.send_signal(signal.SIGCONT)
    await deferLater(reactor, 2.5)
    over = True
    await gatherResults(loads)
    assert max(took) < 5.0  # redis costs one second at most; the rest is this machine
    assert len(redis.ask("SMEMBERS", redis.ask("KEYS", "*")[0])) == 10  # back in redis
    said = [event["log_format"] for event in logs if "redis" in event.get("log_format", "")]
    assert len(said) == 2, said  # that it went, and that it came back


@pytest_twisted.ensureDeferred
async def test_a_tracker_starts_without_its_redis(tmp_path: Path, spawn: Spawn, tracker: Tracker, fetch: Any) -> None:
    port = free_port()
    absent = Redis(tmp_path, port=port)
    announce = Announcer(await tracker(at(absent)), fetch)
    assert await announce("10.0.0.1") == []
    assert await announce("10.0.0.2") == ["10.0.0.1"]
    redis = spawn("--save", "", port=port)
    for _ in range(100):
        assert await announce("10.0.0.2") == ["10.0.0.1"]
        if redis.ask("KEYS", "*"):
            return
        await deferLater(reactor, 0.1)
    pytest.fail("never came to redis")


@pytest_twisted.ensureDeferred
async def test_what_redis_refuses_is_no_error_of_the_announce(redis: Redis, tracker: Tracker, fetch: Any) -> None:
    window = int(time.time()) // HOUR * HOUR
    redis.ask("SET", f"peerset:{META.info_hash}:{window}", "of another type")
    announce = Announcer(await tracker(at(redis)), fetch)
    assert await announce("10.0.0.1") == []
    assert await announce("10.0.0.2") == ["10.0.0.1"]


@pytest_twisted.ensureDeferred
async def test_sentinels_say_where_redis_is(spawn: Spawn, tracker: Tracker, fetch: Any) -> None:
    master = spawn("--save", "")
    replica = spawn("--save", "", "--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0")
    watch = (
        f"sentinel monitor kraken 127.0.0.1 {master.port} 1\nsentinel down-after-milliseconds kraken 500\n"
        "sentinel failover-timeout kraken 2000\n"
    )
    sentinel = spawn("--sentinel", config=watch)
    config = at(master, sentinels=(f"127.0.0.1:{free_port()}", f"127.0.0.1:{sentinel.port}"), sentinel_master="kraken")
    announce = Announcer(await tracker(evolve(config, addr="127.0.0.1:1")), fetch)
    assert await announce("10.0.0.1") == []
    assert await announce("10.0.0.2") == ["10.0.0.1"]
    await _until(lambda: bool(master.ask("KEYS", "*")))
    assert len(master.ask("SMEMBERS", master.ask("KEYS", "*")[0])) == 2
    await _until(lambda: str(replica.port) in str(sentinel.ask("SENTINEL", "replicas", "kraken")), 20)
    master.end()
    for number in range(3, 200):
        assert len(await announce(f"10.0.0.{number}")) == min(50, number - 1)
        await deferLater(reactor, 0.1)
        if member(f"10.0.0.{number}", 0) in str(replica.ask("SMEMBERS", (replica.ask("KEYS", "*") or ["-"])[0])):
            return
    pytest.fail("announces never came to the new master")


async def _until(holds: Callable[[], bool], limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline
        await deferLater(reactor, 0.1)


@pytest_twisted.ensureDeferred
async def test_a_batch_is_recorded_as_single_announces_are(redis: Redis, tracker: Tracker, fetch: Any) -> None:
    base = await tracker(at(redis))
    began = time.time()
    peer = PeerInfo(PeerID.of_address("10.0.0.1", 16001), "10.0.0.1", 16001)
    torrents = {f"{number:040x}": str(META.digest) for number in range(200)}
    data = json.dumps({"peer": peer.to_json(), "again": 60_000_000_000, "torrents": torrents}).encode()
    answer = await fetch("POST", f"{base}/announces", data=data)
    assert answer.status == 200, answer.body
    keys = redis.ask("KEYS", "*")
    assert {key.split(":")[1] for key in keys} == set(torrents)
    for key in keys[:5]:
        assert redis.ask("SMEMBERS", key) == [member("10.0.0.1", 1)]
        assert abs(redis.ask("TTL", key) - (int(key.rpartition(":")[2]) + 5 * HOUR - began)) < 5
