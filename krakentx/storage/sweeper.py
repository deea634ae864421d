"""The services that clean up: blobs that leave the cache, downloads and uploads that nobody continues."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from krakentx.core.digest import Digest
from krakentx.storage.config import CleanupConfig
from krakentx.storage.eviction import Sweep, marks, plan
from krakentx.storage.files import BlobStore
from krakentx.storage.interfaces import BlobRecord
from krakentx.storage.threads import Threads
from krakentx.storage.uploads import UploadStore

_PAUSE_S = 1.0
"""Least time between a new blob that breaks the budget and the sweep: many may come at once."""


class Sweepable(Protocol):
    """A folder of blobs: `BlobStore` or `PartialStore`."""

    root: Path

    def records(self) -> Iterator[BlobRecord]:
        """All blobs; called in a thread."""

    def is_pinned(self, digest: Digest) -> bool:
        """Whether it is in use."""

    async def evict(self, digest: Digest) -> bool:
        """Remove it unless it is in use or must stay."""


class BlobSweeper(TimerService):
    """Sweeps one folder of blobs every `interval`, and soon after a new blob when the byte budget is exceeded."""

    log = Logger()

    def __init__(self, store: Sweepable, config: CleanupConfig, *, reactor: Any, pool: ThreadPool) -> None:
        super().__init__(config.interval_s, self._tick)  # type: ignore[no-untyped-call]
        self.clock = reactor
        self._store = store
        self._config = config
        self._threads = Threads(reactor, pool)
        self._sweeping = False
        self._volume_bytes = 0
        self._soon: IDelayedCall | None = None
        self._extra: Deferred[None] | None = None
        self.used_bytes = 0
        """At the last sweep, and what came since."""
        self.evicted = 0
        """Blobs removed since the start."""
        if isinstance(store, BlobStore):
            store.committed = self._grown

    def startService(self) -> None:
        if not self._config.disabled and self._config.interval_s:
            super().startService()  # type: ignore[no-untyped-call]

    async def _stop(self) -> None:
        if self._soon is not None and self._soon.active():
            self._soon.cancel()
        if self._extra is not None:
            await self._extra
        stopped = super().stopService()  # type: ignore[no-untyped-call]
        if stopped is not None:
            await stopped

    def stopService(self) -> Deferred[None] | None:
        if not self.running:
            return None
        self.running = False  # a sweep under way ends after its present blob
        return Deferred.fromCoroutine(self._stop())

    def _tick(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._guarded())

    async def _guarded(self) -> None:
        if self._sweeping:
            return
        self._sweeping = True
        try:
            await self.sweep()
        except Exception:  # a disk that fails now may work at the next tick
            self.log.failure("clean-up of {root} failed", root=str(self._store.root))
        finally:
            self._sweeping = False

    async def sweep(self) -> int:
        """Look once and remove what must go. Returns how many blobs went."""
        found = await self._threads.run(self._plan)
        self.used_bytes = found.used_bytes
        count = 0
        for digest in found.victims:
            if not self.running:
                break
            if await self._store.evict(digest):
                count += 1
        if count:
            self.used_bytes = found.left_bytes
            self.evicted += count
            self.log.info(
                "evicted {count} blobs from {root}, {size_bytes} bytes are left",
                count=count,
                root=str(self._store.root),
                size_bytes=found.left_bytes,
            )
        return count

    def _plan(self) -> Sweep:
        volume = os.statvfs(self._store.root)
        self._volume_bytes = volume.f_blocks * volume.f_frsize
        return plan(
            self._store.records(),
            self._config,
            now=self._threads.now(),
            volume_bytes=self._volume_bytes,
            in_use=self._store.is_pinned,
        )

    def _grown(self, size_bytes: int) -> None:
        self.used_bytes += size_bytes
        bounds = marks(self._config, self._volume_bytes)
        if not self.running or bounds is None or self.used_bytes <= bounds.high:
            return
        if self._soon is None or not self._soon.active():
            self._soon = self._threads.reactor.callLater(_PAUSE_S, self._sweep_soon)

    def _sweep_soon(self) -> None:
        self._extra = self._tick()


class UploadSweeper(TimerService):
    """Ends idle upload sessions."""

    log = Logger()

    def __init__(self, uploads: UploadStore, interval_s: float, *, reactor: Any) -> None:
        super().__init__(interval_s, self._tick)  # type: ignore[no-untyped-call]
        self.clock = reactor
        self._uploads = uploads

    def _tick(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._guarded())

    async def _guarded(self) -> None:
        try:
            count = await self._uploads.sweep()
        except Exception:  # as above
            self.log.failure("clean-up of uploads failed")
        else:
            if count:
                self.log.info("ended {count} idle uploads", count=count)
