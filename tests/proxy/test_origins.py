"""Blobs on their way from origins in other processes."""

from __future__ import annotations

import os

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, gatherResults
from twisted.internet.task import deferLater

from krakentx.core.digest import Digest
from krakentx.core.errors import Corrupt, KrakenError, NotFound, Unavailable
from krakentx.proxy.fetch import HOLD_BACK_BYTES
from krakentx.proxy.origins import RemoteOrigins
from krakentx.storage.threads import Threads

DATA = bytes(range(256)) * 2000
DIGEST = Digest.of(DATA)


@define
class Cluster:
    """Origins whose bytes come when the test puts them in; None ends the blob, an error breaks it off."""

    size: int = len(DATA)
    parts: DeferredQueue = field(factory=DeferredQueue)
    downloads: int = 0

    async def stat(self, namespace: str, digest: Digest) -> int:
        await deferLater(reactor, 0)
        if digest != DIGEST:
            raise NotFound("blob", digest)
        return self.size

    async def download(self, namespace: str, digest: Digest, receive) -> None:
        self.downloads += 1
        while (part := await self.parts.get()) is not None:
            if isinstance(part, KrakenError):
                raise part
            await receive(part)


pytestmark = pytest.mark.timeout(20)


@pytest_twisted.async_yield_fixture
async def remote(tmp_path, store, pool):
    origins = RemoteOrigins(Cluster(), store, tmp_path / "fetch", Threads(reactor, pool), reactor)
    origins.startService()
    yield origins
    await origins.stopService()
    assert list(origins.scratch.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_s14_one_download_serves_all_who_ask_and_they_read_while_it_runs(remote, store) -> None:
    readers = await gatherResults([Deferred.fromCoroutine(remote.open("a", DIGEST)) for _ in range(20)])
    remote.cluster.parts.put(DATA[:100_000])
    assert [await reader.wait(0, 1 << 30) for reader in readers] == [100_000] * 20
    late = await remote.open("a", DIGEST)
    assert os.pread(late.fileno(), 1000, 5) == DATA[5:1005]
    remote.cluster.parts.put(DATA[100_000:])
    assert await late.wait(100_000, 1 << 30) == len(DATA) - HOLD_BACK_BYTES
    end = Deferred.fromCoroutine(late.wait(len(DATA) - HOLD_BACK_BYTES, 1 << 30))
    await deferLater(reactor, 0.02)
    assert not end.called
    remote.cluster.parts.put(None)
    assert await end == len(DATA)
    for reader in (*readers, late):
        reader.close()
        reader.close()
    while store.stat(DIGEST) is None:
        await deferLater(reactor, 0.005)
    assert store.path(DIGEST).read_bytes() == DATA
    assert remote.cluster.downloads == 1
    cached = await remote.open("a", DIGEST)
    assert await cached.wait(0, 10) == 10
    cached.close()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([DATA[:-1] + b"?", None], Corrupt),
        ([DATA[:-1], None], Corrupt),
        ([DATA + b"?"], Corrupt),
        ([DATA[:200_000], Unavailable("every origin", "broke off")], Unavailable),
    ],
)
async def test_the_end_of_a_bad_blob_is_never_served(remote, store, parts, error) -> None:
    reader = await remote.open("a", DIGEST)
    for part in parts:
        remote.cluster.parts.put(part)
    at = 0
    with pytest.raises(error):
        while True:
            at = await reader.wait(at, len(DATA))
            assert at <= len(DATA) - HOLD_BACK_BYTES
    reader.close()
    assert store.stat(DIGEST) is None
    remote.cluster.parts.put(DATA)
    remote.cluster.parts.put(None)
    again = await remote.open("a", DIGEST)
    assert await again.wait(0, 10) == 10
    while store.stat(DIGEST) is None:
        await deferLater(reactor, 0.005)
    again.close()


@pytest_twisted.ensureDeferred
async def test_what_no_origin_has_is_not_found_by_anyone(remote) -> None:
    other = Digest.of(b"other")
    for _ in range(2):
        with pytest.raises(NotFound):
            await remote.open("a", other)


@pytest_twisted.ensureDeferred
async def test_stopping_ends_a_download_and_tells_its_readers(remote) -> None:
    reader = await remote.open("a", DIGEST)
    waiting = Deferred.fromCoroutine(reader.wait(0, 10))
    await remote.stopService()
    with pytest.raises(Unavailable):
        await waiting
    reader.close()
