"""The clients against small servers over real sockets."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from klein import Klein
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater

from krakentx.clients.agent import AgentClient
from krakentx.clients.buildindex import BuildIndexClient
from krakentx.clients.cluster import OriginCluster
from krakentx.clients.config import HostsConfig
from krakentx.clients.fallback import HttpFallback
from krakentx.clients.hosts import HostPool
from krakentx.clients.memo import Memo
from krakentx.clients.metainfo import MetaInfoSources
from krakentx.clients.origin import OriginTimeouts
from krakentx.clients.tracker import TrackerClient, decode_answer
from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput, NotFound, Unavailable
from krakentx.core.metainfo import MetaInfo, PieceLengths, SumBuilder
from krakentx.core.peer import AnnounceAnswer, InfoHash, PeerContext, PeerID, PeerInfo
from krakentx.web.app import new_app
from krakentx.web.bodies import read_body
from krakentx.web.client import HttpClient
from krakentx.web.replies import reply
from krakentx.web.service import HttpService

DATA = random.Random(3).randbytes(200_000)
DIGEST = Digest.of(DATA)
ME = PeerContext("10.0.0.1", 16001, PeerID.of_address("10.0.0.1", 16001))


def meta() -> MetaInfo:
    sums = SumBuilder(PieceLengths(((0, 1 << 16),)))
    sums.update(DATA)
    return sums.finish(DIGEST)


class Server:
    """Answers like an origin, a registry, a tracker, or badly."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pending = 0
        self.hang = False
        self.status = 200
        self.ranges = True
        self.strong: bool | None = True  # it has strong sums; None: it makes them for those who ask
        self.batches = True
        self.asked: list[str] = []
        self.announces: list[dict[str, Any]] = []
        self.app: Klein = new_app("plain")
        if kind == "registry":
            self.app.route("/v2/")(lambda request: reply(request, 200, b"{}"))
            self.app.route("/v2/<path:repo>/blobs/<digest>")(self.blob)
        elif kind == "origin":
            self.app.route("/namespace/<path:repo>/blobs/<digest>")(self.blob)
            self.app.route("/internal/namespace/<path:repo>/blobs/<digest>/metainfo")(self.metainfo)
        else:
            self.app.route("/namespace/<path:repo>/blobs/<digest>/metainfo")(self.metainfo)
            self.app.route("/announce/<info_hash>", methods=["POST"])(self.announce)
            self.app.route("/announces", methods=["POST"])(self.announce_many)

    async def announce_many(self, request: Any) -> bytes:
        self.asked.append("batch")
        if not self.batches:
            return reply(request, 404)
        if self.status != 200:
            return reply(request, self.status)
        self.announces.append(json.loads(await read_body(request, 1 << 20, "announces")))
        return reply(request, 200, b'{"peers":null,"interval":3000000000}')

    async def blob(self, request: Any, repo: str, digest: str) -> bytes:
        self.asked.append(request.getHeader("range") or "all")
        if self.pending:
            self.pending -= 1
            return reply(request, 202)
        if self.status != 200 or Digest.parse(digest) != DIGEST:
            return reply(request, self.status if self.status != 200 else 404)
        span = request.getHeader("range")
        if span and self.ranges:
            start, stop = (int(each) for each in span.removeprefix("bytes=").split("-"))
            headers = {"Content-Range": f"bytes {start}-{stop}/{len(DATA)}"}
            return reply(request, 206, DATA[start : stop + 1], headers=headers)
        return reply(request, 200, DATA)

    async def metainfo(self, request: Any, repo: str, digest: str) -> bytes:
        self.asked.append("metainfo")
        if self.hang:
            await deferLater(reactor, 20)
        if self.pending:
            self.pending -= 1
            return reply(request, 202)
        asked = self.strong is None and request.args.get(b"strong_sums") == [b"true"]
        known = meta() if self.strong or asked else evolve(meta(), strong_sums=b"")
        return reply(request, self.status, known.to_json() if self.status == 200 else b"")

    async def announce(self, request: Any, info_hash: str) -> bytes:
        self.announces.append(json.loads(await read_body(request, 1 << 16)))
        bad = {"peer_id": "hex", "ip": "10.0.0.9", "port": 1}
        good = {"peer_id": [1] * 20, "ip": "10.0.0.2", "port": 16001, "origin": False, "complete": True}
        return reply(request, self.status, json.dumps({"peers": [bad, good], "interval": 2_000_000_000}).encode())


@pytest_twisted.async_yield_fixture
async def http() -> Any:
    client = HttpClient(reactor, connect_s=2.0)
    yield client
    await client.close()


@pytest.fixture
def serve(start) -> Any:
    async def run(server: Server) -> str:
        service = await start(
            HttpService("server", server.app.resource(), 0, "127.0.0.1", reactor=reactor, drain_s=0.1)
        )
        return f"127.0.0.1:{service.port_number}"

    return run


def pool(*hosts: str) -> HostPool:
    return HostPool(HostsConfig(static=hosts), default_port=1, reactor=reactor, rng=random.Random(1))


DEAD = "127.0.0.1:1"


@pytest.mark.parametrize("kind", ["origin", "registry"])
@pytest.mark.parametrize("ranges", [True, False])
@pytest_twisted.ensureDeferred
async def test_the_fallback_gets_exactly_what_was_asked_for(http, serve, kind: str, ranges: bool) -> None:
    server = Server(kind)
    server.ranges = ranges
    server.pending = 1 if kind == "origin" else 0
    fallback = HttpFallback(http, pool(await serve(server)), reactor)
    for start, stop in ((0, 10), (65_536, 131_072), (199_000, 200_000), (5, 5), (0, 200_000)):
        got = bytearray()
        await fallback.fetch("library/alpine", DIGEST, start, stop, got.extend, 5.0)
        assert got == DATA[start:stop]
    with pytest.raises(NotFound):
        await fallback.fetch("library/alpine", Digest.of(b"unknown"), 0, 10, got.extend, 5.0)


@pytest_twisted.ensureDeferred
async def test_the_fallback_goes_to_the_next_host(http, serve) -> None:
    broken, good = Server("origin"), Server("origin")
    broken.status = 500
    fallback = HttpFallback(http, pool(DEAD, await serve(broken), await serve(good)), reactor)
    for _ in range(3):
        got = bytearray()
        await fallback.fetch("ns", DIGEST, 100, 200, got.extend, 5.0)
        assert got == DATA[100:200]
    good.status = 503
    with pytest.raises(Unavailable):
        await fallback.fetch("ns", DIGEST, 100, 200, got.extend, 5.0)
    good.status = 404
    with pytest.raises(Unavailable):  # one says no, but the others could not be asked
        await fallback.fetch("ns", DIGEST, 100, 200, got.extend, 5.0)


@pytest_twisted.ensureDeferred
async def test_announces_tell_and_hear(http, serve) -> None:
    tracker = Server("tracker")
    client = TrackerClient(http, pool(DEAD, await serve(tracker)), ME, reactor)
    info_hash = meta().info_hash
    dead = PeerID.of_address("10.0.0.7", 1)
    client.report_lost(info_hash, dead)
    answer = await client.announce(DIGEST, info_hash, complete=False)
    assert [peer.ip for peer in answer.peers] == ["10.0.0.2"]  # the one that can be read
    assert answer.interval_s == 2.0
    await client.announce(DIGEST, info_hash, complete=True)
    await client.leave(DIGEST, info_hash)
    first, second, third = tracker.announces
    assert first["digest"] == str(DIGEST)
    assert first["info_hash"] == list(info_hash)
    assert first["peer"]["peer_id"] == list(ME.peer_id)
    assert first["failed_peers"] == [list(dead)]
    assert first["again"] == 60_000_000_000
    assert "failed_peers" not in second
    assert second["again"] == 300_000_000_000
    assert third["stopped"] is True
    tracker.status = 500
    with pytest.raises(Unavailable):
        await client.announce(DIGEST, info_hash, complete=False)


TORRENTS = [(Digest.of(bytes([n])), InfoHash(bytes([n]) * 20)) for n in range(5)]


def all_complete(client: TrackerClient) -> list[Deferred[AnnounceAnswer]]:
    return [Deferred.fromCoroutine(client.announce(*torrent, complete=True)) for torrent in TORRENTS]


@pytest_twisted.ensureDeferred
async def test_complete_torrents_are_announced_in_one_request(http, serve) -> None:
    tracker = Server("tracker")
    client = TrackerClient(http, pool(await serve(tracker)), ME, reactor)
    first = Deferred.fromCoroutine(client.announce(DIGEST, meta().info_hash, complete=False))
    answers = await gatherResults(all_complete(client))
    assert first.called, "a download waited for the batch"
    assert [answer.interval_s for answer in answers] == [3.0] * 5
    single, batch = tracker.announces
    assert single["peer"]["complete"] is False
    assert batch["torrents"] == {str(info_hash): str(digest) for digest, info_hash in TORRENTS}
    assert batch["again"] == 300_000_000_000
    assert PeerInfo.from_json(batch["peer"]) == ME.as_peer(complete=True)
    await first


@pytest_twisted.ensureDeferred
async def test_a_tracker_without_batches_is_told_singly_and_not_asked_each_time(http, serve) -> None:
    tracker = Server("tracker")
    tracker.batches = False
    client = TrackerClient(http, pool(await serve(tracker)), ME, reactor)
    for _ in range(2):
        await gatherResults(all_complete(client))
    assert tracker.asked == ["batch"]
    assert len(tracker.announces) == 10


@pytest_twisted.ensureDeferred
async def test_a_batch_goes_to_the_next_tracker_when_one_fails(http, serve) -> None:
    broken, good = Server("tracker"), Server("tracker")
    broken.status = 500
    client = TrackerClient(http, pool(DEAD, await serve(broken), await serve(good)), ME, reactor)
    await gatherResults(all_complete(client))
    told = [
        name
        for batch in good.announces
        for name in batch.get("torrents", {str(InfoHash.from_json(batch.get("info_hash", [0] * 20))): ""})
    ]
    assert sorted(told) == sorted(str(info_hash) for _, info_hash in TORRENTS)


@pytest_twisted.ensureDeferred
async def test_a_batch_for_which_nobody_waits_is_not_sent(http, serve) -> None:
    tracker = Server("tracker")
    client = TrackerClient(http, pool(await serve(tracker)), ME, reactor)

    def gathering() -> int:
        return sum("Batches._send" in str(call.func) for call in reactor.getDelayedCalls())

    waiting = all_complete(client)
    assert gathering() == 1
    for each in waiting:
        each.addErrback(lambda failure: failure.trap(CancelledError))
        each.cancel()
    assert gathering() == 0


@pytest_twisted.ensureDeferred
async def test_metainfo_is_asked_for_until_it_is_there(http, serve) -> None:
    tracker = Server("tracker")
    client = TrackerClient(http, pool(await serve(tracker)), ME, reactor)
    tracker.pending = 2
    assert await client.metainfo("library/alpine", DIGEST) == meta()
    assert len(tracker.asked) == 3
    with pytest.raises(Unavailable):  # the metainfo of another blob
        await client.metainfo("library/alpine", Digest.of(b"other"))
    tracker.status = 404
    with pytest.raises(NotFound):
        await client.metainfo("library/alpine", DIGEST)


@pytest.mark.parametrize("how", ["dead", "silent", "broken"])
@pytest_twisted.ensureDeferred
async def test_metainfo_comes_past_a_tracker_in_trouble(http, serve, how: str) -> None:
    tracker, origin = Server("tracker"), Server("origin")
    tracker.hang = how == "silent"
    tracker.status = 500
    where = await serve(tracker)
    client = TrackerClient(http, pool(DEAD if how == "dead" else where), ME, reactor)
    fallback = HttpFallback(http, pool(await serve(origin)), reactor)
    sources = MetaInfoSources(client, fallback, reactor, patience_s=0.2)
    began = reactor.seconds()
    assert await sources.metainfo("ns", DIGEST) == meta()
    assert reactor.seconds() - began < 3.0
    tracker.hang = False
    origin.status = 503
    with pytest.raises(Unavailable):
        await sources.metainfo("ns", DIGEST)


@pytest.mark.parametrize("who", ["tracker", "origin", "nobody"])
@pytest_twisted.ensureDeferred
async def test_strong_sums_come_from_whoever_can_make_them(http, serve, who: str) -> None:
    """Neither a tracker nor an origin of the reference can."""
    tracker, origin = Server("tracker"), Server("origin")
    tracker.strong = None if who == "tracker" else False
    origin.strong = None if who == "origin" else False
    client = TrackerClient(http, pool(await serve(tracker)), ME, reactor)
    sources = MetaInfoSources(client, HttpFallback(http, pool(await serve(origin)), reactor), reactor)
    assert not (await sources.metainfo("ns", DIGEST)).strong_sums
    if who == "nobody":
        with pytest.raises(Unavailable):
            await sources.strong_sums("ns", DIGEST)
    else:
        assert await sources.strong_sums("ns", DIGEST) == meta()
    assert origin.asked == ([] if who == "tracker" else ["metainfo"])


@pytest_twisted.ensureDeferred
async def test_a_tracker_that_knows_the_blob_is_absent_is_believed(http, serve) -> None:
    tracker, origin = Server("tracker"), Server("origin")
    tracker.status = 404
    client = TrackerClient(http, pool(await serve(tracker)), ME, reactor)
    sources = MetaInfoSources(client, HttpFallback(http, pool(await serve(origin)), reactor), reactor)
    with pytest.raises(NotFound):
        await sources.metainfo("ns", DIGEST)
    assert origin.asked == []


@pytest_twisted.ensureDeferred
async def test_the_agent_and_build_index_clients_tell_absent_from_down(http) -> None:
    agent = AgentClient(http, DEAD)
    index = BuildIndexClient(http, pool(DEAD))
    for call in (agent.health(), agent.tag("a:1"), agent.download("ns", DIGEST, bytearray().extend), index.get("a:1")):
        with pytest.raises(Unavailable):
            await call


@pytest_twisted.ensureDeferred
async def test_a_memo_asks_once_and_forgets(clock) -> None:
    memo: Memo[str, int] = Memo(clock, ttl_s=10.0, error_ttl_s=1.0, limit=2)
    asked: list[str] = []

    async def load(key: str, error: bool = False) -> int:
        asked.append(key)
        if error:
            raise Unavailable(key, "is down")
        return len(asked)

    assert await memo.get("a", lambda: load("a")) == 1
    assert await memo.get("a", lambda: load("a")) == 1
    clock.advance(11)
    assert await memo.get("a", lambda: load("a")) == 2
    for _ in range(2):
        with pytest.raises(Unavailable):
            await memo.get("b", lambda: load("b", error=True))
    assert asked == ["a", "a", "b"]
    for key in ("c", "d"):
        await memo.get(key, lambda key=key: load(key))
    assert await memo.get("a", lambda: load("a")) == 6  # it had to make room


class Uploads:
    """An origin that takes uploads; one that hangs never answers the last request of them."""

    def __init__(self, hangs: bool) -> None:
        self.app: Klein = new_app("plain")
        self.owners: list[str] = []
        self.taken = b""
        base = "/namespace/<path:repo>/blobs/<digest>/uploads"

        @self.app.route("/blobs/<digest>/locations")
        def locations(request: Any, digest: str) -> bytes:
            return reply(request, 200, headers={"Origin-Locations": ",".join(self.owners)})

        @self.app.route(base, methods=["POST"])
        def begin(request: Any, repo: str, digest: str) -> bytes:
            return reply(request, 200, headers={"Location": "1"})

        @self.app.route(f"{base}/1", methods=["PATCH"])
        async def patch(request: Any, repo: str, digest: str) -> bytes:
            self.taken += await read_body(request, 1 << 20)
            return reply(request, 200)

        @self.app.route(f"{base}/1", methods=["PUT"])
        async def commit(request: Any, repo: str, digest: str) -> bytes:
            if hangs:
                await Deferred()
            return reply(request, 200)


@pytest_twisted.ensureDeferred
async def test_s02_an_origin_that_hangs_at_the_end_of_an_upload_is_left_for_the_next(http, serve, tmp_path) -> None:
    hanging, good = Uploads(True), Uploads(False)
    hosts = [await serve(hanging), await serve(good)]
    hanging.owners = good.owners = hosts
    source = tmp_path / "blob"
    source.write_bytes(DATA)
    timeouts = OriginTimeouts(commit_s=0.2, commit_bytes_per_s=len(DATA) * 10)
    cluster = OriginCluster(http, pool(*hosts), reactor, timeouts)
    began = reactor.seconds()
    assert await cluster.upload("a", DIGEST, source, len(DATA)) == hosts[1]
    assert 0.3 <= reactor.seconds() - began < 2
    assert good.taken == hanging.taken == DATA


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"[" * 100_000, b'{"interval":1.5}', b'{"interval":1,"peers":7}'])
def test_an_answer_of_a_tracker_that_is_none(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode_answer(data)


@pytest.mark.parametrize(("interval", "seconds"), [(-5, 0.0), (10**9, 1.0), (10**30, 86_400.0), (10**400, 86_400.0)])
def test_an_interval_beyond_all_sense_is_cut(interval: int, seconds: float) -> None:
    assert decode_answer(json.dumps({"interval": interval}).encode()).interval_s == seconds


@pytest_twisted.ensureDeferred
async def test_dead_peers_of_torrents_that_are_announced_no_more_are_forgotten(http) -> None:
    client = TrackerClient(http, pool(DEAD), ME, reactor)
    for number in range(3000):
        client.report_lost(InfoHash(number.to_bytes(20, "big")), ME.peer_id)
    assert len(client._lost) == 1000
