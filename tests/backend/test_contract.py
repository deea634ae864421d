"""What holds of every backend."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from krakentx.backend.interfaces import IBackend
from krakentx.core.errors import InvalidInput, NotFound, Unavailable

pytestmark = pytest.mark.integration

BACKENDS = pytest.mark.parametrize("which", ["file", "testfs"])
HEX = "ab" + "0123456789" * 6 + "cd"


class Sink:
    """Collects, slowly: each call takes a turn of the reactor, and no two may overlap."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.busy = False

    async def __call__(self, data: bytes) -> None:
        assert not self.busy
        self.busy = True
        tick: Deferred[None] = Deferred()
        reactor.callLater(0, tick.callback, None)
        await tick
        self.data += data
        self.busy = False


async def _get(backend: IBackend, name: str) -> bytes:
    sink = Sink()
    await backend.download("ns", name, sink)
    return bytes(sink.data)


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(data: bytes) -> Path:
        path = tmp_path / "upload"
        path.write_bytes(data)
        return path

    return write


@BACKENDS
@pytest.mark.parametrize("size", [0, 10, 3_000_000])
@pytest_twisted.ensureDeferred
async def test_what_goes_up_comes_down(make_backend, file, which, size) -> None:
    backend = await make_backend(which, "sharded_docker_blob", "/blobs")
    data = random.Random(size).randbytes(size)
    with pytest.raises(NotFound):
        await backend.stat("ns", HEX)
    await backend.upload("ns", HEX, file(data))
    assert await backend.stat("ns", HEX) == size
    assert await _get(backend, HEX) == data
    assert await backend.list("") == [HEX]


@BACKENDS
@pytest_twisted.ensureDeferred
async def test_upload_replaces(make_backend, file, which) -> None:
    backend = await make_backend(which, "docker_tag", "tags")
    for digest in (b"sha256:old-and-longer", b"sha256:new"):
        await backend.upload("ns", "library/alpine:3.20", file(digest))
    assert await _get(backend, "library/alpine:3.20") == b"sha256:new"


@BACKENDS
@pytest_twisted.ensureDeferred
async def test_list_below_a_folder(make_backend, file, which) -> None:
    backend = await make_backend(which, "docker_tag", "/tags")
    assert await backend.list("") == [] and await backend.list("a/_manifests/tags") == []
    for name in ("a:2", "a:1", "a/b:1", "c/d/e:latest"):
        await backend.upload("ns", name, file(b"x"))
    assert await backend.list("") == ["a/b:1", "a:1", "a:2", "c/d/e:latest"]
    assert await backend.list("a/_manifests/tags") == ["a:1", "a:2"]
    assert await backend.list("/c/") == ["c/d/e:latest"]


@BACKENDS
@pytest.mark.parametrize("root", ["", "blobs", "/blobs/deep/"])
@pytest_twisted.ensureDeferred
async def test_identity_below_any_root(make_backend, file, which, root) -> None:
    backend = await make_backend(which, "identity", root)
    await backend.upload("ns", "some dir/50% & more", file(b"x"))
    assert await _get(backend, "some dir/50% & more") == b"x"
    assert await backend.list("") == ["some dir/50% & more"]
    assert await backend.list("some dir") == ["some dir/50% & more"]


@BACKENDS
@pytest_twisted.ensureDeferred
async def test_absent_is_known_to_be_absent(make_backend, which) -> None:
    backend = await make_backend(which, "identity", "")
    sink = Sink()
    with pytest.raises(NotFound):
        await backend.download("ns", "absent", sink)
    with pytest.raises(NotFound):
        await backend.stat("ns", "absent/below")
    assert sink.data == b""


@BACKENDS
@pytest_twisted.ensureDeferred
async def test_names_cannot_leave_the_folder(make_backend, file, which) -> None:
    backend = await make_backend(which, "identity", "root")
    for name in ("", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "a\0b"):
        for work in (backend.stat("ns", name), backend.upload("ns", name, file(b"x")), _get(backend, name)):
            with pytest.raises(InvalidInput):
                await work
    with pytest.raises(InvalidInput):
        await backend.list("../..")


@BACKENDS
@pytest_twisted.ensureDeferred
async def test_error_of_the_sink_ends_the_download(make_backend, file, which) -> None:
    backend = await make_backend(which, "identity", "")
    await backend.upload("ns", "x", file(bytes(3_000_000)))

    async def full(data: bytes) -> None:
        raise Unavailable("sink", "full")

    with pytest.raises(Unavailable, match="sink"):
        await backend.download("ns", "x", full)


@pytest_twisted.ensureDeferred
async def test_a_backend_that_is_down_is_not_an_absent_file(client, tmp_path) -> None:
    from krakentx.backend.paths import name_paths
    from krakentx.backend.testfs import TestfsBackend

    backend = TestfsBackend("127.0.0.1:1", name_paths("identity", ""), client)
    (tmp_path / "x").write_bytes(b"x")

    async def sink(data: bytes) -> None:
        raise AssertionError

    for work in (
        backend.stat("ns", "x"),
        backend.download("ns", "x", sink),
        backend.upload("ns", "x", tmp_path / "x"),
        backend.list(""),
    ):
        with pytest.raises(Unavailable):
            await work


@pytest_twisted.ensureDeferred
async def test_a_broken_folder_is_not_an_absent_file(make_backend, file, tmp_path) -> None:
    backend = await make_backend("file", "identity", "")
    loop = tmp_path / "elsewhere"
    loop.symlink_to(loop)
    with pytest.raises(Unavailable):
        await _get(backend, "x")
    with pytest.raises(Unavailable):
        await backend.upload("ns", "x", file(b"x"))
