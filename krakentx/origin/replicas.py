"""Copies for the other owners of a blob, made after the upload has been answered."""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from krakentx.clients.origin import OriginClient
from krakentx.core.digest import Digest
from krakentx.core.errors import KrakenError, NotFound
from krakentx.origin.ring import Ring
from krakentx.storage.files import BlobStore

_PARALLEL = 4
_TRIES = 4
_FIRST_PAUSE_S = 1.0


class Replicator:
    """Sends blobs to their other owners.

    A copy that could not be made is no loss: the blob is here and on its way to the backend, from which the other owner
    fetches it when it is asked.

    Args:
        stagger_s: the n-th replica writes to the backend after n times as long, unless it is there by then.
    """

    log = Logger()

    def __init__(
        self,
        ring: Ring,
        store: BlobStore,
        client: Callable[[str], OriginClient],
        *,
        stagger_s: float,
        clock: IReactorTime,
        rng: random.Random,
    ) -> None:
        self._ring = ring
        self._store = store
        self._client = client
        self._stagger_s = stagger_s
        self._clock = clock
        self._rng = rng
        self._slots = DeferredSemaphore(_PARALLEL)
        self._running: set[Deferred[None]] = set()

    def uploaded(self, namespace: str, digest: Digest) -> None:
        """Copy what a client has uploaded here; the copies write to the backend too, later."""
        others = self._ring.others(digest)
        self._rng.shuffle(others)
        for rank, host in enumerate(others):
            self._start(namespace, digest, host, self._stagger_s * (rank + 1))

    def fetched(self, namespace: str, digest: Digest) -> None:
        """Copy what came from the backend here."""
        for host in self._ring.others(digest):
            self._start(namespace, digest, host, None)

    def _start(self, namespace: str, digest: Digest, host: str, delay_s: float | None) -> None:
        task = Deferred.fromCoroutine(self._copy(namespace, digest, host, delay_s))
        self._running.add(task)
        task.addBoth(lambda _result: self._running.discard(task))

    async def _copy(self, namespace: str, digest: Digest, host: str, delay_s: float | None) -> None:
        try:
            await self._slots.acquire()
            try:
                await self._try(namespace, digest, host, delay_s)
            finally:
                self._slots.release()
        except CancelledError:
            pass
        except KrakenError as error:
            self.log.warn("no copy of {digest} at {host}: {error}", digest=str(digest), host=host, error=str(error))
        except Exception:  # one copy must not take the others with it
            self.log.failure("copy of {digest} to {host} failed", digest=str(digest), host=host)

    async def _try(self, namespace: str, digest: Digest, host: str, delay_s: float | None) -> None:
        for attempt in range(_TRIES):
            size = self._store.stat(digest)
            if size is None:
                raise NotFound("blob", digest)
            self._store.pin(digest)
            try:
                await self._client(host).upload(
                    namespace,
                    digest,
                    self._store.path(digest),
                    size,
                    internal=delay_s is None,
                    write_back_delay_s=delay_s,
                )
                return
            except KrakenError:
                if attempt == _TRIES - 1:
                    raise
            finally:
                self._store.unpin(digest)
            await deferLater(self._clock, _FIRST_PAUSE_S * 4**attempt * self._rng.uniform(0.8, 1.2))

    async def stop(self) -> None:
        """Give up what is under way."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await DeferredList(running)
