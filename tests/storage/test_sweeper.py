"""The services that clean up, on a clock of the test."""

from __future__ import annotations

import time
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from krakentx.storage.config import CleanupConfig
from krakentx.storage.files import BlobStore
from krakentx.storage.pieces import PartialStore
from krakentx.storage.sweeper import BlobSweeper, UploadSweeper


class ThreadClock(Clock):
    """Stands still at the present, yet threads come back through the real reactor."""

    def __init__(self) -> None:
        super().__init__()
        self.advance(time.time())

    def callFromThread(self, *args: Any) -> None:
        reactor.callFromThread(*args)


@pytest.fixture
def tick_clock() -> ThreadClock:
    return ThreadClock()


async def _until(condition: Any) -> None:
    for _ in range(500):
        if condition():
            return
        tick: Deferred[None] = Deferred()
        reactor.callLater(0.01, tick.callback, None)
        await tick
    raise AssertionError("it did not come to pass")


@pytest_twisted.ensureDeferred
async def test_idle_blobs_go_at_the_next_tick(tmp_path, pool, sample, tick_clock) -> None:
    store = BlobStore(tmp_path / "cache", reactor=tick_clock, pool=pool)
    blobs = [sample(100, seed) for seed in range(3)]
    for blob in blobs:
        (tmp_path / "source").write_bytes(blob.data)
        await store.commit(tmp_path / "source", blob.digest, blob.meta, persist=blob is blobs[2])
    sweeper = BlobSweeper(store, CleanupConfig(interval_s=60, tti_s=3600), reactor=tick_clock, pool=pool)
    sweeper.startService()
    await _until(lambda: sweeper.used_bytes == 300)
    reader = store.open(blobs[0].digest)
    tick_clock.advance(4000)
    await _until(lambda: sweeper.evicted == 1)
    assert [store.stat(blob.digest) for blob in blobs] == [100, None, 100] and sweeper.used_bytes == 200
    reader.close()
    tick_clock.advance(60)
    await _until(lambda: sweeper.evicted == 2)
    assert [store.stat(blob.digest) for blob in blobs] == [None, None, 100]
    await sweeper.stopService()
    assert tick_clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_burst_does_not_wait_for_the_tick(tmp_path, pool, sample, tick_clock) -> None:
    store = BlobStore(tmp_path / "cache", reactor=tick_clock, pool=pool)
    config = CleanupConfig(interval_s=1800, budget_bytes=1000, budget_low_bytes=500)
    sweeper = BlobSweeper(store, config, reactor=tick_clock, pool=pool)
    sweeper.startService()
    await _until(lambda: sweeper._volume_bytes)
    for seed in range(11):
        blob = sample(100, seed)
        (tmp_path / "source").write_bytes(blob.data)
        await store.commit(tmp_path / "source", blob.digest, blob.meta)
    tick_clock.advance(1)
    await _until(lambda: sweeper.evicted == 6)
    assert sum(record.size_bytes for record in store.records()) == sweeper.used_bytes == 500
    assert store.stat(blob.digest) == 100
    await sweeper.stopService()


@pytest_twisted.ensureDeferred
async def test_downloads_that_nobody_continues_go(tmp_path, pool, store, sample, tick_clock) -> None:
    partials = PartialStore(tmp_path / "download", store, reactor=tick_clock, pool=pool)
    abandoned, arriving = sample(1000), sample(2000)
    (await partials.open(abandoned.meta)).close()
    partial = await partials.open(arriving.meta)
    tick_clock.advance(7 * 3600)
    sweeper = BlobSweeper(partials, CleanupConfig(), reactor=tick_clock, pool=pool)
    sweeper.startService()
    await _until(lambda: sweeper.evicted == 1)
    await sweeper.stopService()
    assert partials.find(abandoned.digest) is None and partials.find(arriving.digest) == arriving.meta
    partial.close()


@pytest_twisted.ensureDeferred
async def test_idle_uploads_end(make_uploads, tick_clock) -> None:
    uploads = make_uploads(reactor=tick_clock, idle_s=100.0)
    await uploads.create()
    sweeper = UploadSweeper(uploads, 50.0, reactor=tick_clock)
    sweeper.startService()
    tick_clock.advance(50)
    assert len(uploads) == 1
    tick_clock.advance(60)
    await _until(lambda: not len(uploads) and not any(uploads.root.iterdir()))
    await sweeper.stopService()


@pytest_twisted.ensureDeferred
async def test_disabled(store, pool, tick_clock) -> None:
    sweeper = BlobSweeper(store, CleanupConfig(disabled=True), reactor=tick_clock, pool=pool)
    sweeper.startService()
    assert sweeper.stopService() is None and tick_clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_failing_disk_does_not_end_the_service(store, pool, tick_clock, monkeypatch) -> None:
    calls = []

    def broken() -> Any:
        calls.append(1)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(store, "records", broken)
    sweeper = BlobSweeper(store, CleanupConfig(interval_s=10), reactor=tick_clock, pool=pool)
    sweeper.startService()
    await _until(lambda: len(calls) == 1 and not sweeper._sweeping)
    tick_clock.advance(10)
    await _until(lambda: len(calls) == 2 and not sweeper._sweeping)
    await sweeper.stopService()
