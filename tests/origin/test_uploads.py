"""Chunks of an upload to an origin, also when they come twice at once."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.python.threadpool import ThreadPool

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput, RangeNotSatisfiable
from krakentx.core.metainfo import PieceLengths
from krakentx.origin.uploads import Uploads
from krakentx.storage.files import BlobStore
from krakentx.storage.uploads import UploadStore

DATA = random.Random(1).randbytes(1_000_000)
DIGEST = Digest.of(DATA)


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool(1, 2)
    pool.start()
    yield pool
    pool.stop()


@pytest.fixture
def store(tmp_path: Path, pool: ThreadPool) -> BlobStore:
    return BlobStore(tmp_path / "cache", reactor=reactor, pool=pool)


@pytest.fixture
def uploads(tmp_path: Path, store: BlobStore, pool: ThreadPool) -> Uploads:
    lengths = PieceLengths(((0, 1 << 16),))
    sessions = UploadStore(tmp_path / "upload", store, lengths, reactor=reactor, pool=pool, idle_s=3600.0, limit=10)
    return Uploads(sessions)


async def parts(data: bytes, size: int, pause_s: float = 0.0) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        if pause_s:
            await deferLater(reactor, pause_s)
        yield data[at : at + size]


@pytest_twisted.ensureDeferred
async def test_a_chunk_that_is_sent_again_while_the_first_is_still_at_work(uploads: Uploads, store: BlobStore) -> None:
    uid = await uploads.start(DIGEST)
    sizes = ((7_000, 0.0), (64_000, 0.0), (90_000, 0.001), (1_000_000, 0.0))
    calls = [uploads.patch(DIGEST, uid, 0, len(DATA), parts(DATA, size, pause_s)) for size, pause_s in sizes]
    await gatherResults([Deferred.fromCoroutine(call) for call in calls])
    await uploads.finish(DIGEST, uid)
    assert store.path(DIGEST).read_bytes() == DATA


@pytest_twisted.ensureDeferred
async def test_chunks_that_leave_a_gap_or_end_early_are_refused(uploads: Uploads) -> None:
    uid = await uploads.start(DIGEST)
    with pytest.raises(RangeNotSatisfiable):
        await uploads.patch(DIGEST, uid, 10, 20, parts(DATA[10:20], 10))
    with pytest.raises(InvalidInput, match="5 bytes came of the 10"):
        await uploads.patch(DIGEST, uid, 0, 10, parts(DATA[:5], 5))
    await uploads.patch(DIGEST, uid, 3, len(DATA), parts(DATA[3:], 100_000))
    assert (await uploads.finish(DIGEST, uid)).length == len(DATA)
