"""The origin of this process, as the proxy of this process sees it."""

from __future__ import annotations

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from krakentx.clients.polling import poll
from krakentx.core.digest import Digest
from krakentx.core.metainfo import MetaInfo
from krakentx.origin.logic import Origin
from krakentx.storage.files import BlobStore
from krakentx.storage.interfaces import IBlobReader

_FETCH_LIMIT_S = 900.0


@frozen
class LocalOrigins:
    """The proxy's `IOrigins` without HTTP between: a finished upload gets a second name, and no byte is copied.

    Args:
        store: of the proxy.
    """

    origin: Origin
    store: BlobStore
    clock: IReactorTime

    async def stat(self, namespace: str, digest: Digest) -> int:
        """Size in bytes. Raises: NotFound, Unavailable."""
        return await self.origin.stat(namespace, digest)

    async def open(self, namespace: str, digest: Digest) -> IBlobReader:
        """Open for reading, when the backend has given it. Raises: NotFound, Unavailable, Busy."""
        return await poll(
            lambda: self.origin.open(namespace, digest), clock=self.clock, host="the origin", limit_s=_FETCH_LIMIT_S
        )

    async def take(self, namespace: str, meta: MetaInfo) -> None:
        """Hand over a blob of the proxy's store. Raises: OutOfSpace."""
        await self.origin.adopt(self.store.path(meta.digest), meta.digest, meta, namespace)

    async def prefetch(self, namespace: str, digest: Digest) -> None:
        """Have it fetched from the backend, and wait for that. Raises: NotFound, Unavailable, Busy."""
        await poll(
            lambda: self.origin.prefetch(namespace, digest), clock=self.clock, host="the origin", limit_s=_FETCH_LIMIT_S
        )
