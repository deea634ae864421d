"""An origin over real sockets on port 0, with a testfs for its backend."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater

from krakentx.backend.config import BackendChoice, BackendConfig
from krakentx.backend.config import TestfsConfig as BackendTestfs
from krakentx.clients.cluster import OriginCluster
from krakentx.clients.config import HostsConfig
from krakentx.clients.hosts import HostPool
from krakentx.clients.origin import PIECES_HEADER
from krakentx.core.digest import Digest
from krakentx.core.errors import NotFound, Unavailable
from krakentx.core.metainfo import MetaInfo, PieceLengths, SumBuilder
from krakentx.origin.config import BlobServerConfig, MetaInfoGenConfig, OriginConfig
from krakentx.origin.service import OriginService, build
from krakentx.swarm.config import BandwidthConfig, ConnConfig, SwarmConfig
from krakentx.testfs.config import TestfsConfig
from krakentx.testfs.service import build as build_testfs
from krakentx.web.client import HttpClient

LENGTHS = PieceLengths(((0, 1 << 16),))


def data_of(seed: int, size: int = 300_000) -> tuple[bytes, Digest]:
    data = random.Random(seed).randbytes(size)
    return data, Digest.of(data)


def meta_of(data: bytes, digest: Digest) -> MetaInfo:
    sums = SumBuilder(LENGTHS)
    sums.update(data)
    return sums.finish(digest)


@pytest_twisted.async_yield_fixture
async def testfs(start, tmp_path: Path) -> Any:
    yield await start(build_testfs(TestfsConfig(0, "127.0.0.1", tmp_path / "testfs"), reactor=reactor))


def config_of(folder: Path, testfs: Any = None, **more: Any) -> OriginConfig:
    backends = []
    if testfs is not None:
        choice = BackendChoice(testfs=BackendTestfs(f"127.0.0.1:{testfs.http.port_number}", "blobs"))
        backends = [BackendConfig(choice)]
    return OriginConfig(
        port=0,
        interface="127.0.0.1",
        peer_port=0,
        peer_ip="127.0.0.1",
        data_dir=folder,
        backends=backends,
        metainfogen=MetaInfoGenConfig(LENGTHS),
        **more,
    )


@pytest_twisted.async_yield_fixture
async def origin(start, tmp_path: Path, testfs: Any) -> Any:
    yield await start(build(config_of(tmp_path / "origin", testfs), reactor=reactor, rng=random.Random(1)))


def url(service: OriginService) -> str:
    return f"http://127.0.0.1:{service.http.port_number}"


async def upload(fetch: Any, base: str, data: bytes, digest: Digest, chunk: int = 100_000, ns: str = "ns%2Fa") -> Any:
    begun = await fetch("POST", f"{base}/namespace/{ns}/blobs/{digest}/uploads?size={len(data)}")
    if begun.status != 200:
        return begun
    uid = begun.headers.getRawHeaders("Location")[0]
    where = f"{base}/namespace/{ns}/blobs/{digest}/uploads/{uid}"
    for at in range(0, len(data), chunk):
        part = data[at : at + chunk]
        sent = await fetch("PATCH", where, data=part, headers={"Content-Range": f"{at}-{at + len(part)}"})
        assert sent.status == 200, sent.body
    return await fetch("PUT", where)


async def eventually(check: Any, seconds: float = 5.0) -> Any:
    for _ in range(int(seconds / 0.05)):
        answer = await check()
        if answer:
            return answer
        await deferLater(reactor, 0.05)
    raise AssertionError("did not come to pass")


@pytest_twisted.ensureDeferred
async def test_upload_download_stat_metainfo(origin: OriginService, testfs: Any, fetch) -> None:
    base = url(origin)
    data, digest = data_of(1)
    assert (await upload(fetch, base, data, digest)).status == 200
    assert (await fetch("GET", f"{base}/namespace/x/blobs/{digest}")).body == data
    upper = str(digest).upper().replace("SHA256", "sha256")
    part = await fetch("GET", f"{base}/namespace/x/blobs/{upper}", headers={"Range": "bytes=5-9"})
    assert (part.status, part.body) == (206, data[5:10])
    head = await fetch("HEAD", f"{base}/internal/namespace/x/blobs/{digest}?local=true")
    assert (head.status, head.headers.getRawHeaders("Content-Length")) == (200, ["300000"])
    meta = await fetch("GET", f"{base}/internal/namespace/x/blobs/{digest}/metainfo")
    assert MetaInfo.from_json(meta.body) == meta_of(data, digest)
    where = await fetch("GET", f"{base}/blobs/{digest}/locations")
    assert where.headers.getRawHeaders("Origin-Locations") == [base.removeprefix("http://")]
    context = json.loads((await fetch("GET", f"{base}/internal/peercontext")).body)
    assert (context["ip"], context["origin"], len(context["peer_id"])) == ("127.0.0.1", True, 20)
    files = f"http://127.0.0.1:{testfs.http.port_number}/files/blobs/{digest.hex}"

    async def written() -> bool:
        return (await fetch("GET", files)).body == data and not origin.origin.store.is_persisted(digest)

    await eventually(written)
    again = await upload(fetch, base, data, digest)
    assert again.status == 409


@pytest_twisted.ensureDeferred
async def test_agents_that_fetch_pieces_wait_for_a_turn_and_others_do_not(start, tmp_path: Path, fetch) -> None:
    server = BlobServerConfig(fetches=1, fetch_wait_s=0.3, max_waiting_fetches=1)
    config = config_of(tmp_path / "origin", blobserver=server)
    origin = await start(build(config, reactor=reactor, rng=random.Random(1)))
    data, digest = data_of(8, 60_000_000)  # more than sockets hold
    assert (await upload(fetch, url(origin), data, digest, 30_000_000)).status == 200
    where, pieces = f"{url(origin)}/namespace/x/blobs/{digest}", {PIECES_HEADER: "true", "Range": "bytes=0-59999999"}
    slow = socket.create_connection(("127.0.0.1", origin.http.port_number))
    head = "".join(f"{name}: {value}\r\n" for name, value in pieces.items())
    slow.sendall(f"GET /namespace/x/blobs/{digest} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
    await deferLater(reactor, 0.1)

    waits = ensureDeferred(fetch("GET", where, headers=pieces))
    await deferLater(reactor, 0.1)
    too_many = await fetch("GET", where, headers=pieces)
    assert (too_many.status, too_many.headers.getRawHeaders("Retry-After")) == (503, ["1"])
    assert (await fetch("GET", where, headers={"Range": "bytes=5-9"})).body == data[5:10], "a client that is no agent"
    waited = await waits
    assert waited.status == 503
    assert b"no turn within 0.3 s" in waited.body

    last = ensureDeferred(fetch("GET", where, headers=pieces | {"Range": "bytes=5-9"}))
    await deferLater(reactor, 0.1)
    slow.close()
    assert (await last).body == data[5:10], "one that left makes room"


@pytest_twisted.ensureDeferred
async def test_pieces_over_http_keep_to_the_limit_of_egress(start, tmp_path: Path, fetch) -> None:
    rate = 1_000_000
    bandwidth = BandwidthConfig(enable=True, egress_bits_per_sec=8 * rate)
    config = config_of(tmp_path / "origin", scheduler=SwarmConfig(conn=ConnConfig(bandwidth=bandwidth)))
    origin = await start(build(config, reactor=reactor, rng=random.Random(1)))
    data, digest = data_of(3, 1_500_000)
    assert (await upload(fetch, url(origin), data, digest)).status == 200
    where = f"{url(origin)}/namespace/x/blobs/{digest}"
    began = reactor.seconds()
    assert (await fetch("GET", where, headers={PIECES_HEADER: "true"})).body == data
    held = reactor.seconds()
    assert held - began > len(data) / rate / 1.035
    assert (await fetch("GET", where)).body == data, "a client that is no agent"
    assert reactor.seconds() - held < held - began


@pytest_twisted.ensureDeferred
async def test_metainfo_of_before_strong_sums_gets_them_when_somebody_asks(origin: OriginService, fetch) -> None:
    """Its cut stays, whatever the ring's `piece_lengths` say by now."""
    base = url(origin)
    data, digest = data_of(4)
    assert (await upload(fetch, base, data, digest)).status == 200
    sums = SumBuilder(PieceLengths(((0, 1000),)))
    sums.update(data)
    new = sums.finish(digest)
    old = evolve(new, strong_sums=b"")
    await origin.origin.store.set_metainfo(old)
    path = f"{base}/internal/namespace/x/blobs/{digest}/metainfo"
    assert (await fetch("GET", path)).body == old.to_json()
    assert (await fetch("GET", path + "?strong_sums=true")).body == new.to_json()
    assert (await fetch("GET", path)).body == new.to_json()
    assert (await fetch("GET", path + "?strong_sums=perhaps")).status == 400


@pytest_twisted.ensureDeferred
async def test_an_empty_blob(origin: OriginService, fetch) -> None:
    digest = Digest.of(b"")
    assert (await upload(fetch, url(origin), b"", digest)).status == 200
    got = await fetch("GET", f"{url(origin)}/namespace/x/blobs/{digest}")
    assert (got.status, got.body) == (200, b"")
    meta = await fetch("GET", f"{url(origin)}/internal/namespace/x/blobs/{digest}/metainfo")
    assert json.loads(meta.body)["Info"]["PieceSums"] is None


@pytest_twisted.ensureDeferred
async def test_uploads_that_go_wrong(origin: OriginService, fetch) -> None:
    data, digest = data_of(2, 1000)
    other = Digest.of(b"other")
    base = f"{url(origin)}/namespace/ns/blobs"
    uid = (await fetch("POST", f"{base}/{digest}/uploads")).headers.getRawHeaders("Location")[0]
    where = f"{base}/{digest}/uploads/{uid}"

    async def patch(target: str, span: str, body: bytes) -> int:
        return (await fetch("PATCH", target, data=body, headers={"Content-Range": span})).status

    assert await patch(where, "10-20", b"x" * 10) == 416
    assert await patch(where, "0,10", b"x" * 10) == 400
    assert (await fetch("PATCH", where, data=b"x")).status == 400
    assert await patch(f"{base}/{other}/uploads/{uid}", "0-10", b"x" * 10) == 404
    assert await patch(f"{base}/{digest}/uploads/nonsense", "0-10", b"x" * 10) == 404
    assert await patch(where, "0-600", data[:600]) == 200
    assert await patch(where, "500-1000", data[500:] + b"more is ignored") == 200  # sent again in part
    assert (await fetch("PUT", f"{base}/{other}/uploads/{uid}")).status == 404
    assert (await fetch("PUT", where)).status == 200
    assert (await fetch("GET", f"{base}/{digest}")).body == data

    uid = (await fetch("POST", f"{base}/{other}/uploads")).headers.getRawHeaders("Location")[0]
    wrong = f"{base}/{other}/uploads/{uid}"
    assert await patch(wrong, "0-10", b"x" * 10) == 200
    assert await patch(wrong, "10-20", b"short") == 400
    assert (await fetch("PUT", wrong)).status == 400  # the digest is another
    assert (await fetch("PUT", wrong)).status == 404
    assert (await fetch("GET", f"{base}/{other}")).status == 404
    assert (await fetch("POST", f"{base}/sha256:12/uploads")).status == 400


@pytest_twisted.ensureDeferred
async def test_what_only_the_backend_has_is_fetched_once(origin: OriginService, testfs: Any, fetch) -> None:
    data, digest = data_of(3, 200_000)
    files = f"http://127.0.0.1:{testfs.http.port_number}/files/blobs"
    assert (await fetch("POST", f"{files}/{digest.hex}", data=data)).status == 200
    base = url(origin)
    assert (await fetch("HEAD", f"{base}/internal/namespace/x/blobs/{digest}?local=true")).status == 404
    size = (await fetch("HEAD", f"{base}/internal/namespace/x/blobs/{digest}")).headers.getRawHeaders("Content-Length")
    assert size == ["200000"]

    async def there() -> bool:
        answer = await fetch("GET", f"{base}/internal/namespace/x/blobs/{digest}/metainfo")
        assert answer.status in (200, 202)
        return answer.status == 200

    await eventually(there)
    assert (await fetch("GET", f"{base}/namespace/x/blobs/{digest}")).body == data
    assert (await fetch("POST", f"{base}/namespace/x/blobs/{digest}/prefetch")).status == 200
    assert not origin.origin.store.is_persisted(digest)

    unknown = Digest.of(b"unknown")
    for method, path in (("GET", "/namespace/x/blobs/{}"), ("GET", "/internal/namespace/x/blobs/{}/metainfo")):
        assert (await fetch(method, base + path.format(unknown))).status == 404
    assert (await fetch("HEAD", f"{base}/internal/namespace/x/blobs/{unknown}")).status == 404

    wrong = Digest.of(b"wrong")
    assert (await fetch("POST", f"{files}/{wrong.hex}", data=b"something else")).status == 200
    assert (await fetch("GET", f"{base}/namespace/x/blobs/{wrong}")).status == 503


@pytest_twisted.ensureDeferred
async def test_a_backend_that_is_down_is_503_and_uploads_go_on(start, fetch, tmp_path: Path, testfs: Any) -> None:
    origin = await start(build(config_of(tmp_path / "o", testfs), reactor=reactor, rng=random.Random(1)))
    await testfs.stopService()
    base = url(origin)
    data, digest = data_of(4)
    assert (await upload(fetch, base, data, digest)).status == 200
    assert (await fetch("GET", f"{base}/namespace/x/blobs/{digest}")).body == data
    unknown = Digest.of(b"unknown")
    assert (await fetch("GET", f"{base}/namespace/x/blobs/{unknown}")).status in (202, 503)

    async def told() -> bool:
        return (await fetch("GET", f"{base}/namespace/x/blobs/{unknown}")).status == 503

    await eventually(told)
    assert origin.origin.store.is_persisted(digest)
    assert (await fetch("DELETE", f"{base}/internal/blobs/{digest}")).status == 409
    cleaned = json.loads((await fetch("POST", f"{base}/forcecleanup?ttl_hr=0")).body)
    assert cleaned["deleted"] is None
    assert cleaned["errors"][0].startswith(digest.hex)


@pytest_twisted.ensureDeferred
async def test_delete_clean_up_and_settings(start, fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = await start(build(config_of(tmp_path / "o"), reactor=reactor, rng=random.Random(1)))
    base = url(origin)
    data, digest = data_of(5)
    assert (await upload(fetch, base, data, digest)).status == 200
    assert (await fetch("POST", f"{base}/internal/blobs/{digest}/metainfo?piece_length=1000")).status == 200
    monkeypatch.setattr("krakentx.origin.logic.MAX_PIECES", 2)
    assert (await fetch("POST", f"{base}/internal/blobs/{digest}/metainfo?piece_length=1")).status == 400
    absent = f"sha256:{'0' * 64}"
    assert (await fetch("POST", f"{base}/internal/blobs/{absent}/metainfo?piece_length=1")).status == 404
    meta = await fetch("GET", f"{base}/internal/namespace/x/blobs/{digest}/metainfo")
    assert MetaInfo.from_json(meta.body).piece_length == 1000
    cleaned = await fetch("POST", f"{base}/forcecleanup?ttl_hr=0")
    assert b"no backend" in cleaned.body  # the only copy stays
    assert (await fetch("DELETE", f"{base}/internal/blobs/{digest}")).status == 202
    assert (await fetch("DELETE", f"{base}/internal/blobs/{digest}")).status == 404
    assert (await fetch("GET", f"{base}/namespace/x/blobs/{digest}")).status == 404
    assert (await fetch("POST", f"{base}/forcecleanup")).status == 400
    patch = f"{base}/x/config/scheduler"
    assert (await fetch("PATCH", patch, data=b'{"SeederTTI": 60000000000}')).status == 200
    assert (await fetch("PATCH", patch, data=b'{"SeederTTI": "5m"}')).status == 400
    assert (await fetch("PATCH", patch, data=b"nonsense")).status == 400
    assert (await fetch("GET", f"{base}/health")).body == b"OK\n"
    assert (await fetch("GET", f"{base}/readiness")).body == b"OK\n"
    assert b"kraken_origin_peer_sent_sendfile_bytes" in (await fetch("GET", f"{base}/metrics")).body


@pytest_twisted.ensureDeferred
async def test_changing_state_is_for_the_networks_of_admin_cidrs(start, fetch, tmp_path: Path) -> None:
    config = config_of(tmp_path / "o", admin_cidrs=("10.9.0.0/16",))
    base = url(await start(build(config, reactor=reactor, rng=random.Random(1))))
    refused = await fetch("DELETE", f"{base}/internal/blobs/{Digest.of(b'')}")
    assert refused.status == 403
    assert b"admin_cidrs" in refused.body
    for method, path in (("POST", "/forcecleanup?ttl_hr=1"), ("PATCH", "/x/config/scheduler")):
        assert (await fetch(method, base + path, data=b"{}")).status == 403


@pytest_twisted.ensureDeferred
async def test_transfers_between_origins(origin: OriginService, fetch) -> None:
    data, digest = data_of(6, 1000)
    base = f"{url(origin)}/internal/blobs/{digest}/uploads"
    uid = (await fetch("POST", base)).headers.getRawHeaders("Location")[0]
    sent = await fetch("PATCH", f"{base}/{uid}", data=data, headers={"Content-Range": "0-1000"})
    assert sent.status == 200
    assert (await fetch("PUT", f"{base}/{uid}")).status == 200
    assert (await fetch("POST", base)).status == 409
    assert not origin.origin.store.is_persisted(digest)


@pytest_twisted.ensureDeferred
async def test_adopts_a_file_of_this_process(origin: OriginService, tmp_path: Path, testfs: Any, fetch) -> None:
    data, digest = data_of(7)
    path = tmp_path / "pushed"
    path.write_bytes(data)
    await origin.origin.adopt(path, digest, meta_of(data, digest), "library/alpine")
    assert path.read_bytes() == data
    assert (await fetch("GET", f"{url(origin)}/namespace/x/blobs/{digest}")).body == data

    async def written() -> bool:
        return not origin.origin.store.is_persisted(digest)

    await eventually(written)


@pytest_twisted.ensureDeferred
async def test_the_queue_goes_on_after_a_restart(start, fetch, tmp_path: Path) -> None:
    data, digest = data_of(8)
    folder = tmp_path / "testfs"
    first_testfs = await start(build_testfs(TestfsConfig(0, "127.0.0.1", folder), reactor=reactor))
    port = first_testfs.http.port_number
    await first_testfs.stopService()
    config = config_of(tmp_path / "o", first_testfs)
    config = OriginConfig(
        port=0,
        interface="127.0.0.1",
        peer_port=0,
        peer_ip="127.0.0.1",
        data_dir=tmp_path / "o",
        backends=[BackendConfig(BackendChoice(testfs=BackendTestfs(f"127.0.0.1:{port}", "blobs")))],
        metainfogen=config.metainfogen,
    )
    first = await start(build(config, reactor=reactor, rng=random.Random(1)))
    assert (await upload(fetch, url(first), data, digest)).status == 200
    await first.stopService()
    await start(build_testfs(TestfsConfig(port, "127.0.0.1", folder), reactor=reactor))
    second = await start(build(config, reactor=reactor, rng=random.Random(1)))

    async def written() -> bool:
        return not second.origin.store.is_persisted(digest)

    await eventually(written, 10.0)
    assert (folder / "files" / "blobs" / digest.hex).read_bytes() == data


@pytest_twisted.ensureDeferred
async def test_three_origins_share_blobs(start, fetch, tmp_path: Path) -> None:
    from tests.ports import free_ports

    ports = free_ports(3)
    hosts = HostsConfig(static=tuple(f"127.0.0.1:{port}" for port in ports))
    origins = []
    for number, port in enumerate(ports):
        config = OriginConfig(
            port=port,
            interface="127.0.0.1",
            peer_port=0,
            peer_ip="127.0.0.1",
            hostname="127.0.0.1",
            data_dir=tmp_path / str(number),
            cluster=hosts,
            metainfogen=MetaInfoGenConfig(LENGTHS),
        )
        origins.append(await start(build(config, reactor=reactor, rng=random.Random(number))))
    data, digest = data_of(9)
    assert (await upload(fetch, url(origins[0]), data, digest)).status == 200

    http = HttpClient(reactor, connect_s=2.0)
    try:
        pool = HostPool(hosts, default_port=15002, reactor=reactor, rng=random.Random(1))
        cluster = OriginCluster(http, pool, reactor)

        async def copied() -> bool:
            return all(each.origin.store.stat(digest) for each in origins)

        await eventually(copied)
        assert await cluster.stat("ns", digest) == len(data)
        assert await cluster.read("ns", digest, 1 << 20) == data
        assert len(await cluster.peers(digest)) == 3
        with pytest.raises(NotFound):
            await cluster.stat("ns", Digest.of(b"unknown"))

        owners = await cluster.owners(digest)
        first = next(each for each in origins if url(each).endswith(owners[0]))
        await first.stopService()
        assert await cluster.read("ns", digest, 1 << 20) == data
        other, other_digest = data_of(10)
        path = tmp_path / "other"
        path.write_bytes(other)
        await cluster.upload("ns", other_digest, path, len(other))
        assert await cluster.read("ns", other_digest, 1 << 20) == other
        for each in origins:
            if each.running:
                await each.stopService()
        with pytest.raises(Unavailable):
            await cluster.stat("ns", digest)
    finally:
        await http.close()
