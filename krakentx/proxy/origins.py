"""The origins in other processes, and the proxy's cache of what they have."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from krakentx.clients.cluster import OriginCluster
from krakentx.core.digest import Digest
from krakentx.core.errors import NotFound
from krakentx.core.metainfo import MetaInfo
from krakentx.proxy.fetch import Fetch, FetchReader
from krakentx.storage import disk
from krakentx.storage.files import BlobStore
from krakentx.storage.interfaces import IBlobReader
from krakentx.storage.threads import Shared, Threads
from krakentx.web.client import Receive


@define(eq=False)
class RemoteOrigins(Service):
    """An `IOrigins`. One blob is fetched once, however many ask for it.

    Args:
        scratch: a folder of its own on the file system of `store`; emptied at the start.
    """

    cluster: OriginCluster
    store: BlobStore
    scratch: Path
    threads: Threads
    clock: IReactorTime

    log = Logger()

    _fetches: dict[Digest, Fetch] = field(factory=dict, init=False)
    _opening: dict[Digest, Shared[Fetch]] = field(factory=dict, init=False)
    _running: dict[Fetch, Deferred[None]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        disk.remove_tree(self.scratch)
        self.scratch.mkdir(parents=True)

    def stopService(self) -> Deferred[Any]:
        """End what is under way."""
        super().stopService()  # type: ignore[no-untyped-call]
        running = list(self._running.values())
        for each in running:
            each.cancel()
        return DeferredList(running)

    async def stat(self, namespace: str, digest: Digest) -> int:
        """Size in bytes. Raises: NotFound, Unavailable."""
        return await self.cluster.stat(namespace, digest)

    async def open(self, namespace: str, digest: Digest) -> IBlobReader:
        """From the cache; else from the origins, whose bytes go to the cache and to the reader at once.

        Raises:
            NotFound, Unavailable, OutOfSpace.
        """
        try:
            return self.store.open(digest)
        except NotFound:
            pass
        fetch = self._fetches.get(digest)
        if fetch is None or fetch.error is not None:
            opening = self._opening.get(digest)
            if opening is None or opening.done:
                opening = self._opening[digest] = Shared(self._begin(namespace, digest))
            fetch = await opening.wait()
        return FetchReader(fetch)

    async def _begin(self, namespace: str, digest: Digest) -> Fetch:
        try:
            size = await self.cluster.stat(namespace, digest)
            temporary = self.scratch / uuid.uuid4().hex
            fetch = Fetch(digest, size, self.store, temporary, self.threads, self.clock)
            fetch.begin()
        finally:
            self._opening.pop(digest, None)

        async def download(receive: Receive) -> None:
            await self.cluster.download(namespace, digest, receive)

        self._fetches[digest] = fetch
        fetch.hold()  # so that its file is there for whoever waits for this very call
        running = self._running[fetch] = Deferred.fromCoroutine(fetch.run(download))
        running.addBoth(self._ended, fetch)
        return fetch

    def _ended(self, result: Failure | None, fetch: Fetch) -> None:
        if isinstance(result, Failure) and not result.check(CancelledError):
            self.log.failure("fetch of {digest} failed", failure=result, digest=str(fetch.digest))
        self._running.pop(fetch, None)
        if self._fetches.get(fetch.digest) is fetch:
            del self._fetches[fetch.digest]
        fetch.release()

    async def take(self, namespace: str, meta: MetaInfo) -> None:
        """Send a blob of the store to the first owner that takes it. Raises: Unavailable."""
        self.store.pin(meta.digest)
        try:
            await self.cluster.upload(namespace, meta.digest, self.store.path(meta.digest), meta.length)
        finally:
            self.store.unpin(meta.digest)

    async def prefetch(self, namespace: str, digest: Digest) -> None:
        """Have an owner fetch it from the backend. Raises: NotFound, Unavailable."""
        await self.cluster.prefetch(namespace, digest)
