"""testfs over real sockets on port 0."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from krakentx.testfs.config import TestfsConfig
from krakentx.testfs.service import build


@pytest.fixture
def make(tmp_path: Path):
    return lambda: build(TestfsConfig(port=0, interface="127.0.0.1", data_dir=tmp_path), reactor=reactor)


@pytest_twisted.ensureDeferred
async def test_upload_download_stat_list(make, start, fetch) -> None:
    base = f"http://127.0.0.1:{(await start(make())).http.port_number}"
    data = b"x" * 300_000
    assert (await fetch("POST", f"{base}/files/blobs/ab/one", data=data)).status == 200
    assert (await fetch("POST", f"{base}/files/tags/repo:tag", data=b"sha256:1")).status == 200

    got = await fetch("GET", f"{base}/files/blobs/ab/one")
    assert (got.status, got.body) == (200, data)
    head = await fetch("HEAD", f"{base}/files/blobs/ab/one")
    assert head.status == 200
    assert head.headers.getRawHeaders("Size") == ["300000"]
    part = await fetch("GET", f"{base}/files/blobs/ab/one", headers={"Range": "bytes=10-19"})
    assert (part.status, len(part.body)) == (206, 10)

    assert (await fetch("GET", f"{base}/files/tags/repo/tag")).body == b"sha256:1"
    everything = await fetch("GET", f"{base}/list/")
    assert json.loads(everything.body) == ["blobs/ab/one", "tags/repo/tag"]
    assert json.loads((await fetch("GET", f"{base}/list/tags")).body) == ["tags/repo/tag"]
    assert json.loads((await fetch("GET", f"{base}/list/nothing")).body) == []
    assert (await fetch("GET", f"{base}/health")).body == b"OK"


@pytest_twisted.ensureDeferred
async def test_root_and_what_is_absent_are_404(make, start, fetch) -> None:
    base = f"http://127.0.0.1:{(await start(make())).http.port_number}"
    for method, path in (("GET", "/"), ("GET", "/files/a"), ("HEAD", "/files/a"), ("DELETE", "/files/a")):
        assert (await fetch(method, base + path)).status == 404, (method, path)


@pytest_twisted.ensureDeferred
async def test_names_cannot_leave_the_root(make, start, fetch, tmp_path: Path) -> None:
    base = f"http://127.0.0.1:{(await start(make())).http.port_number}"
    (tmp_path / "secret").write_bytes(b"secret")
    for name in ("..%2Fsecret", "a/..%2F..%2Fsecret", "%2e%2e%2fsecret", "..:secret", "..%2F..%2Fnew"):
        assert (await fetch("GET", f"{base}/files/{name}")).status == 400, name
        assert (await fetch("POST", f"{base}/files/{name}", data=b"x")).status == 400, name
    assert (await fetch("GET", f"{base}/list/..%2F")).status == 400
    assert (tmp_path / "secret").read_bytes() == b"secret"


@pytest_twisted.ensureDeferred
async def test_overwrites_and_keeps_its_files_over_a_restart(make, start, fetch) -> None:
    first = await start(make())
    base = f"http://127.0.0.1:{first.http.port_number}"
    for data in (b"old", b"new"):
        assert (await fetch("POST", f"{base}/files/name", data=data)).status == 200
    await first.stopService()
    base = f"http://127.0.0.1:{(await start(make())).http.port_number}"
    assert (await fetch("GET", f"{base}/files/name")).body == b"new"


@pytest_twisted.ensureDeferred
async def test_a_file_and_a_folder_of_one_name_are_refused(make, start, fetch) -> None:
    base = f"http://127.0.0.1:{(await start(make())).http.port_number}"
    assert (await fetch("POST", f"{base}/files/a/b", data=b"1")).status == 200
    assert (await fetch("POST", f"{base}/files/a", data=b"2")).status == 409
    assert (await fetch("POST", f"{base}/files/a/b/c", data=b"3")).status == 409
    assert (await fetch("GET", f"{base}/files/a/b")).body == b"1"


@pytest_twisted.ensureDeferred
async def test_names_too_long_for_the_disk_are_refused(make, start, fetch) -> None:
    base = f"http://127.0.0.1:{(await start(make())).http.port_number}"
    for name in ("x" * 256, "a/" * 2100 + "x", "a%00b"):
        for method in ("GET", "HEAD", "POST", "DELETE"):
            assert (await fetch(method, f"{base}/files/{name}", data=b"")).status == 400


@pytest_twisted.ensureDeferred
async def test_a_torn_upload_changes_nothing(make, start, fetch, tmp_path: Path) -> None:
    from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
    from twisted.internet.protocol import Protocol
    from twisted.internet.task import deferLater

    port = (await start(make())).http.port_number
    base = f"http://127.0.0.1:{port}"
    assert (await fetch("POST", f"{base}/files/name", data=b"whole")).status == 200
    client = await connectProtocol(HostnameEndpoint(reactor, b"127.0.0.1", port), Protocol())
    client.transport.write(b"POST /files/name HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
    await deferLater(reactor, 0.1)
    client.transport.loseConnection()
    await deferLater(reactor, 0.2)
    assert (await fetch("GET", f"{base}/files/name")).body == b"whole"
    assert list((tmp_path / "uploads").iterdir()) == []
