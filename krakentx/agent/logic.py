"""What the registry of the agent stands on: blobs that the swarm brings."""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from krakentx.core.digest import Digest
from krakentx.core.errors import Unavailable
from krakentx.peer.interfaces import IMetaInfoSource
from krakentx.peer.scheduler import Scheduler
from krakentx.storage.interfaces import IBlobReader, IBlobStore, IPartialStore


@frozen
class Blobs:
    """An `IBlobs`: from the cache, else from the swarm, readable while it arrives."""

    scheduler: Scheduler
    cache: IBlobStore
    partials: IPartialStore
    metainfo: IMetaInfoSource
    clock: IReactorTime
    stat_timeout_s: float

    async def stat(self, repo: str, digest: Digest) -> int:
        """Size in bytes. Nothing is downloaded: metainfo tells the size.

        Raises:
            NotFound, Unavailable.
        """
        size = self.cache.stat(digest)
        if size is not None:
            return size
        meta = self.partials.find(digest)
        if meta is None:
            asked = Deferred.fromCoroutine(self.metainfo.metainfo(repo, digest))
            try:
                meta = await asked.addTimeout(self.stat_timeout_s, self.clock)
            except TimeoutError as error:
                raise Unavailable("the origins", f"nobody told the size of {digest} in time") from error
        return meta.length

    async def open(self, repo: str, digest: Digest) -> IBlobReader:
        """Open for reading; bytes may still be arriving. Raises: NotFound, Unavailable, OutOfSpace."""
        return await self.scheduler.open(repo, digest)
