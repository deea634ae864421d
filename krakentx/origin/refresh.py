"""Bringing blobs back from the backend: one fetch for a blob, however many ask for it.

Who asks gets `Pending` while the fetch runs (202 on the wire) and asks again; a fetch that is done within a moment is
waited for instead. The end of a fetch that failed is told for a few seconds to those who were sent away and ask again:
otherwise each of them would begin a new one and nobody would ever learn what is wrong. When nobody was sent away it is
not kept, so that an outage is over for clients when it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from krakentx.core.digest import Digest
from krakentx.core.errors import Busy, Corrupt, InvalidInput, KrakenError, NotFound, Pending, TooLarge, Unavailable
from krakentx.core.metainfo import MetaInfo
from krakentx.origin.config import RefreshConfig
from krakentx.storage.interfaces import IBlobStore, IUploadStore
from krakentx.storage.threads import Shared

_MOMENT_S = 0.25
_TRIES = 3
_MAX_ERRORS = 10_000


class IBlobBackend(Protocol):
    """What is asked of a backend here."""

    async def stat(self, namespace: str, name: str) -> int:
        """Size in bytes. Raises: NotFound, Unavailable."""

    async def download(self, namespace: str, name: str, sink: Callable[[bytes], Coroutine[Any, Any, None]]) -> None:
        """Hand the bytes to `sink`, waiting for it each time. Raises: NotFound, Unavailable."""


@frozen
class _Failed:
    error: KrakenError
    until: float


class Refresher:
    """Fetches blobs from their backends.

    Args:
        find: the backend of a namespace; None when there is none for it.
        uploads: sessions in which the bytes are hashed while they come; what they finish is in `store`.
        fetched: told of every blob that came.
    """

    log = Logger()

    def __init__(
        self,
        *,
        find: Callable[[str], IBlobBackend | None],
        store: IBlobStore,
        uploads: IUploadStore,
        config: RefreshConfig,
        clock: IReactorTime,
        fetched: Callable[[str, Digest], None],
    ) -> None:
        self._find = find
        self._store = store
        self._uploads = uploads
        self._config = config
        self._clock = clock
        self._fetched = fetched
        self._slots = DeferredSemaphore(max(1, config.parallel))
        self._running: dict[Digest, Shared[None]] = {}
        self._tasks: dict[Digest, Deferred[None]] = {}
        self._sent_away: set[Digest] = set()
        self._failed: dict[Digest, _Failed] = {}
        self._stopped = False

    @property
    def running(self) -> int:
        """Fetches under way or waiting for their turn."""
        return len(self._running)

    async def stat(self, namespace: str, digest: Digest) -> int:
        """Size in bytes in the backend.

        Raises:
            NotFound: it is not there, or there is no backend for this namespace. Unavailable.
        """
        backend = self._find(namespace)
        if backend is None:
            raise NotFound("blob", digest)
        return await backend.stat(namespace, digest.hex)

    async def ensure(self, namespace: str, digest: Digest) -> None:
        """Return when the blob is in the cache.

        Raises:
            Pending: it is being fetched. NotFound: the backend does not have it. Unavailable, Busy, TooLarge, Corrupt.
        """
        if self._store.stat(digest) is not None:
            return
        running = self._running.get(digest) or self._begin(namespace, digest)
        waiting = running.wait()
        waiting.addTimeout(_MOMENT_S, self._clock, onTimeoutCancel=_still_running)
        try:
            await waiting
        except Pending:
            if digest in self._running:
                self._sent_away.add(digest)
            raise

    def _begin(self, namespace: str, digest: Digest) -> Shared[None]:
        failed = self._failed.pop(digest, None)
        if failed is not None and self._clock.seconds() < failed.until:
            self._failed[digest] = failed
            raise failed.error
        if self._find(namespace) is None:
            raise NotFound("blob", digest)
        if self._stopped or len(self._running) >= self._config.max_waiting:
            raise Busy("too many blobs are being fetched from the backend", retry_after_s=5.0)
        task = Deferred.fromCoroutine(self._in_turn(namespace, digest))
        shared = Shared(_result(task))
        if not shared.done:
            self._running[digest] = shared
            self._tasks[digest] = task
        return shared

    async def _in_turn(self, namespace: str, digest: Digest) -> None:
        try:
            await self._slots.acquire()
            try:
                await self._fetch(namespace, digest)
            finally:
                self._slots.release()
        except CancelledError as error:
            raise Busy("the origin is stopping") from error
        except NotFound as error:
            missing = NotFound("blob", digest)
            self._remember(digest, missing)
            raise missing from error
        except KrakenError as error:
            self._remember(digest, error)
            raise
        finally:
            self._running.pop(digest, None)
            self._tasks.pop(digest, None)
            self._sent_away.discard(digest)
        self._fetched(namespace, digest)

    async def _fetch(self, namespace: str, digest: Digest) -> None:
        backend = self._find(namespace)
        assert backend is not None, "looked for before the fetch began"
        size = await backend.stat(namespace, digest.hex)
        limit = self._config.size_limit_bytes
        if limit and size > limit:
            raise TooLarge(f"blob {digest}", limit)
        began = self._clock.seconds()
        meta = await self._download(backend, namespace, digest)
        self.log.info(
            "{digest} came from the backend: {size_bytes} bytes in {elapsed_s:.3f} s",
            digest=str(digest),
            size_bytes=meta.length,
            elapsed_s=self._clock.seconds() - began,
        )

    async def _download(self, backend: IBlobBackend, namespace: str, digest: Digest) -> MetaInfo:
        """One that breaks off is tried again, for the sake of all who wait; one that never began is not."""
        for left in reversed(range(_TRIES)):
            upload = await self._uploads.create()
            try:
                await backend.download(namespace, digest.hex, upload.write)
                return await upload.finish(digest)
            except InvalidInput as error:
                raise Corrupt(digest, error.message) from error
            except BaseException as error:
                await upload.abort()
                if not (isinstance(error, Unavailable) and upload.offset and left):
                    raise
                broke_off = {"digest": str(digest), "offset": upload.offset, "error": str(error)}
                self.log.warn("{digest} broke off after {offset} bytes, once more: {error}", **broke_off)
        raise AssertionError("the last try returns or raises")

    def _remember(self, digest: Digest, error: KrakenError) -> None:
        if digest not in self._sent_away:
            return
        if len(self._failed) >= _MAX_ERRORS:
            self._failed.clear()
        self._failed[digest] = _Failed(error, self._clock.seconds() + self._config.error_ttl_s)

    def forget(self, digest: Digest) -> None:
        """The blob came by another way: an earlier failure counts no more."""
        self._failed.pop(digest, None)

    async def stop(self) -> None:
        """End what is under way."""
        self._stopped = True
        running = list(self._running.values())
        for task in list(self._tasks.values()):
            task.cancel()
        for shared in running:
            try:
                await shared.wait()
            except KrakenError:
                pass


async def _result(task: Deferred[None]) -> None:
    await task


def _still_running(_result: object, _timeout: float) -> None:
    raise Pending("the blob is being fetched from the backend")
