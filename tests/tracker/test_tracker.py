"""The tracker over real sockets on port 0."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from klein import Klein
from twisted.internet import reactor

from krakentx.clients.config import HostsConfig, UpstreamConfig
from krakentx.core.digest import Digest
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import PeerContext, PeerID, PeerInfo
from krakentx.tracker import peers
from krakentx.tracker.config import TrackerConfig
from krakentx.tracker.service import build
from krakentx.web.app import new_app
from krakentx.web.replies import reply, reply_json
from krakentx.web.service import HttpService

META = MetaInfo(Digest.of(b"0123456789"), 10, 4, (2791742845, 1292674027, 155395596))
STRONG = evolve(META, strong_sums=bytes(48))
ORIGIN = PeerContext("10.0.0.9", 15001, PeerID.of_address("10.0.0.9", 15001), origin=True)


class FakeOrigin:
    """The routes of an origin that a tracker asks, counting."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status = 200
        self.app: Klein = new_app("plain")

        @self.app.route("/readiness")
        def ready(request: Any) -> bytes:
            return reply(request, 200, b"OK\n")

        @self.app.route("/blobs/<digest>/locations")
        def locations(request: Any, digest: str) -> bytes:
            self.asked.append("locations")
            host = request.getHeader("host")
            return reply(request, 200, headers={"Origin-Locations": host})

        @self.app.route("/internal/peercontext")
        def context(request: Any) -> bytes:
            self.asked.append("peercontext")
            return reply_json(request, ORIGIN.to_json())

        @self.app.route("/internal/namespace/<path:ns>/blobs/<digest>/metainfo")
        def metainfo(request: Any, ns: str, digest: str) -> bytes:
            strong = request.args.get(b"strong_sums") == [b"true"]
            self.asked.append(f"{'strong ' if strong else ''}metainfo {ns}")
            meta = STRONG if strong else META
            return reply(request, self.status, meta.to_json() if self.status == 200 else b"")


@pytest.fixture
def origin() -> FakeOrigin:
    return FakeOrigin()


@pytest_twisted.async_yield_fixture
async def base(origin: FakeOrigin, start) -> Any:
    http = await start(HttpService("origin", origin.app.resource(), 0, "127.0.0.1", reactor=reactor))
    upstream = UpstreamConfig(hosts=HostsConfig(static=(f"127.0.0.1:{http.port_number}",)))
    config = TrackerConfig(port=0, interface="127.0.0.1", origin=upstream)
    service = await start(build(config, reactor=reactor, rng=random.Random(1)))
    yield f"http://127.0.0.1:{service.http.port_number}"


def body(ip: str, *, port: int = 16001, complete: bool = False, **more: Any) -> bytes:
    peer = PeerInfo(PeerID.of_address(ip, port), ip, port, complete=complete)
    data = {"name": META.digest.hex, "digest": str(META.digest), "info_hash": META.info_hash.to_json()}
    return json.dumps({**data, "peer": peer.to_json(), **more}).encode()


def ips(answer: Any) -> list[str]:
    assert answer.status == 200, answer.body
    return [peer["ip"] for peer in json.loads(answer.body)["peers"] or []]


@pytest_twisted.ensureDeferred
async def test_announces_by_both_versions(base: str, fetch) -> None:
    v2 = f"{base}/announce/{META.info_hash}"
    assert ips(await fetch("POST", v2, data=body("10.0.0.1"))) == ["10.0.0.9"]
    assert ips(await fetch("POST", v2, data=body("10.0.0.2", complete=True))) == []
    third = await fetch("GET", f"{base}/announce", data=body("10.0.0.3"))
    assert ips(third) == ["10.0.0.2", "10.0.0.9", "10.0.0.1"]  # complete agents, origins, the others; never itself
    answer = json.loads(third.body)
    assert answer["interval"] == 3_000_000_000
    assert answer["peers"][1] == ORIGIN.as_peer(complete=True).to_json()
    assert json.loads((await fetch("POST", v2, data=body("10.0.0.2", complete=True))).body)["peers"] is None


@pytest_twisted.ensureDeferred
async def test_the_digest_may_come_as_a_name_only(base: str, fetch) -> None:
    data = json.loads(body("10.0.0.1"))
    data["digest"] = None
    answer = await fetch("GET", f"{base}/announce", data=json.dumps(data).encode())
    assert ips(answer) == ["10.0.0.9"]


@pytest.mark.parametrize("ip", ["0.0.0.0", "::", "", "224.0.0.1", "a b", "http://x"])
@pytest_twisted.ensureDeferred
async def test_refuses_addresses_that_nobody_can_reach(base: str, fetch, ip: str) -> None:
    data = json.loads(body("10.0.0.1"))
    data["peer"]["ip"] = ip
    answer = await fetch("POST", f"{base}/announce/{META.info_hash}", data=json.dumps(data).encode())
    assert answer.status == 400
    assert b"address" in answer.body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"nonsense",
        b'{"name":"ab","info_hash":[],"peer":{}}',
        b'{"digest":7}',
        b"[" * 60_000,
        b"x" * 70_000,
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_announces_are_400_or_413(base: str, fetch, data: bytes) -> None:
    for method, path in (("GET", "/announce"), ("POST", f"/announce/{META.info_hash}")):
        answer = await fetch(method, base + path, data=data)
        assert answer.status == (413 if len(data) > 65_536 else 400)


@pytest_twisted.ensureDeferred
async def test_other_paths_and_methods(base: str, fetch) -> None:
    assert (await fetch("POST", f"{base}/announce/nothex", data=body("10.0.0.1"))).status == 400
    assert (await fetch("POST", f"{base}/announce", data=body("10.0.0.1"))).status == 405
    assert (await fetch("GET", f"{base}/nothing")).status == 404
    for method in ("GET", "POST"):
        answer = await fetch(method, f"{base}/announce/a/b")
        assert (answer.status, answer.body) == (404, b"not found")
    assert (await fetch("GET", f"{base}/")).status == 404


@pytest_twisted.ensureDeferred
async def test_an_origin_that_a_peer_could_not_reach_is_told_in_the_log_and_to_the_peer(base: str, fetch, logs) -> None:
    v2 = f"{base}/announce/{META.info_hash}"
    assert "notice" not in (await fetch("POST", v2, data=body("10.0.0.3"))).body.decode()
    for ip in ("10.0.0.3", "10.0.0.4"):
        answer = await fetch("POST", v2, data=body(ip, failed_peers=[ORIGIN.peer_id.to_json()]))
        assert "10.0.0.9:15001 is an origin that 127.0.0.1 could not reach" in json.loads(answer.body)["notice"]
    warned = [event for event in logs if "could not reach" in event.get("problem", "")]
    assert [event["peer"] for event in warned] == ["10.0.0.9:15001"]  # one line, however many say so


@pytest_twisted.ensureDeferred
async def test_a_peer_that_stopped_or_was_out_of_reach_for_two_is_named_no_more(
    base: str, fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    v2 = f"{base}/announce/{META.info_hash}"
    dead, live, a, b = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"
    for ip in (dead, live):
        await fetch("POST", v2, data=body(ip, complete=True))
    monkeypatch.setattr(peers, "_JUST_S", 0.0)  # as if they had announced a while ago
    failed = [PeerID.of_address(dead, 16001).to_json()]
    assert ips(await fetch("POST", v2, data=body(a, failed_peers=failed))) == [live, "10.0.0.9"]
    assert dead in ips(await fetch("POST", v2, data=body(b)))
    assert dead not in ips(await fetch("POST", v2, data=body(b, failed_peers=failed)))
    await fetch("POST", v2, data=body(live, complete=True, stopped=True))
    assert ips(await fetch("POST", v2, data=body(a))) == ["10.0.0.9", b]
    await fetch("POST", v2, data=body(dead, complete=True))  # it lives after all
    assert dead in ips(await fetch("POST", v2, data=body(a)))


@pytest_twisted.ensureDeferred
async def test_metainfo_is_asked_once_and_kept(base: str, origin: FakeOrigin, fetch) -> None:
    for ns in ("library%2Falpine", "library%252Falpine"):
        answer = await fetch("GET", f"{base}/namespace/{ns}/blobs/{META.digest}/metainfo")
        assert (answer.status, answer.body) == (200, META.to_json())
    assert origin.asked.count("metainfo library/alpine") == 1


@pytest_twisted.ensureDeferred
async def test_who_needs_strong_sums_is_not_given_what_was_kept_without(base: str, origin: FakeOrigin, fetch) -> None:
    url = f"{base}/namespace/ns/blobs/{META.digest}/metainfo"
    assert (await fetch("GET", url)).body == META.to_json()
    for _ in range(2):
        assert (await fetch("GET", url + "?strong_sums=true")).body == STRONG.to_json()
    assert origin.asked.count("strong metainfo ns") == 1


@pytest.mark.parametrize(("status", "told"), [(202, 202), (404, 404), (500, 503), (503, 503)])
@pytest_twisted.ensureDeferred
async def test_what_the_origins_say_is_passed_on_and_not_kept(
    base: str, origin: FakeOrigin, fetch, status: int, told: int
) -> None:
    url = f"{base}/namespace/ns/blobs/{META.digest}/metainfo"
    origin.status = status
    assert (await fetch("GET", url)).status == told
    origin.status = 200
    assert (await fetch("GET", url)).status == 200
    assert (await fetch("GET", f"{base}/namespace/ns/blobs/sha256:12/metainfo")).status == 400


@pytest_twisted.ensureDeferred
async def test_health_and_readiness(base: str, fetch) -> None:
    assert (await fetch("GET", f"{base}/health")).body == b"OK\n"
    assert (await fetch("GET", f"{base}/readiness")).body == b"OK\n"
    assert b"kraken_tracker_peers" in (await fetch("GET", f"{base}/metrics")).body


@pytest_twisted.ensureDeferred
async def test_nobody_to_name_is_an_empty_answer(start, fetch) -> None:
    upstream = UpstreamConfig(hosts=HostsConfig(static=("127.0.0.1:1",)))
    service = await start(build(TrackerConfig(port=0, interface="127.0.0.1", origin=upstream), reactor=reactor))
    base = f"http://127.0.0.1:{service.http.port_number}"
    answer = await fetch("POST", f"{base}/announce/{META.info_hash}", data=body("10.0.0.1"))
    assert ips(answer) == []
    assert (await fetch("GET", f"{base}/readiness")).status == 503
    assert (await fetch("GET", f"{base}/namespace/ns/blobs/{META.digest}/metainfo")).status == 503


def batch(ip: str, count: int, **more: Any) -> bytes:
    peer = PeerInfo(PeerID.of_address(ip, 16001), ip, 16001)
    torrents = {f"{number:040x}": str(META.digest) for number in range(count)}
    return json.dumps({"peer": peer.to_json(), "again": 60_000_000_000, "torrents": torrents, **more}).encode()


@pytest_twisted.ensureDeferred
async def test_one_request_tells_of_many_complete_torrents(base: str, fetch) -> None:
    answer = await fetch("POST", f"{base}/announces", data=batch("10.0.0.1", 500))
    assert answer.status == 200
    assert json.loads(answer.body) == {"peers": None, "interval": 3_000_000_000, "seen_ip": "127.0.0.1"}
    for number in (0, 499):
        named = await fetch("POST", f"{base}/announce/{number:040x}", data=body("10.0.0.2"))
        assert ips(named)[0] == "10.0.0.1"
        assert json.loads(named.body)["peers"][0]["complete"] is True
    assert (await fetch("GET", f"{base}/announces")).status == 405
    assert (await fetch("POST", f"{base}/announces/1", data=batch("10.0.0.1", 1))).status == 404


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        batch("10.0.0.1", 0),
        batch("10.0.0.1", 501),
        batch("10.0.0.1", 1, torrents=["00"]),
        batch("10.0.0.1", 1, torrents={"00": str(META.digest)}),
        batch("10.0.0.1", 1, torrents={"0" * 40: 7}),
        batch("0.0.0.0", 2),
        b"x" * 140_000,
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_batches_are_400_or_413(base: str, fetch, data: bytes) -> None:
    answer = await fetch("POST", f"{base}/announces", data=data)
    assert answer.status == (413 if len(data) > 130_000 else 400)
