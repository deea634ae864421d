"""What the tracker knows of the origins, kept for a few seconds so that a rush of announces asks them once."""

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from krakentx.clients.cluster import OriginCluster
from krakentx.clients.memo import Memo
from krakentx.core.digest import Digest
from krakentx.core.errors import KrakenError
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import PeerContext, PeerInfo
from krakentx.tracker.config import OriginStoreConfig, ServerConfig

_BYTES_PER_PIECE = 76  # of a metainfo in memory, its sums and the JSON of them


class Origins:
    """An `IOrigins` over the cluster's client."""

    log = Logger()

    def __init__(
        self, cluster: OriginCluster, config: OriginStoreConfig, server: ServerConfig, clock: IReactorTime
    ) -> None:
        self._cluster = cluster
        self._locations: Memo[Digest, list[str]] = Memo(
            clock, ttl_s=config.locations_ttl_s, error_ttl_s=config.locations_error_ttl_s
        )
        self._contexts: Memo[str, PeerContext] = Memo(
            clock, ttl_s=config.origin_context_ttl_s, error_ttl_s=config.origin_unavailable_ttl_s
        )
        self._metainfo: Memo[tuple[Digest, bool], MetaInfo] = Memo(
            clock,
            ttl_s=server.metainfo_ttl_s,
            limit=server.metainfo_cache_bytes,
            size=lambda meta: 500 + _BYTES_PER_PIECE * meta.piece_count,
        )

    async def peers(self, digest: Digest) -> list[PeerInfo]:
        """The owners of a blob that can be reached; empty when none can."""
        try:
            hosts = await self._locations.get(digest, lambda: self._cluster.owners(digest))
        except KrakenError as error:
            self.log.debug("no origins known for {digest}: {error}", digest=str(digest), error=str(error))
            return []
        found = await gatherResults([Deferred.fromCoroutine(self._context(host)) for host in hosts])
        return [context.as_peer(complete=True) for context in found if context is not None]

    async def _context(self, host: str) -> PeerContext | None:
        try:
            return await self._contexts.get(host, lambda: self._cluster.client(host).peer_context())
        except KrakenError as error:
            self.log.debug("origin {host} tells no peer context: {error}", host=host, error=str(error))
            return None

    async def metainfo(self, namespace: str, digest: Digest, *, strong: bool = False) -> MetaInfo:
        """With `strong`, an origin makes strong sums if it has none. Raises: NotFound, Pending, Unavailable."""
        return await self._metainfo.get(
            (digest, strong), lambda: self._cluster.metainfo(namespace, digest, strong=strong)
        )

    async def check(self) -> None:
        """Raises: Unavailable: no origin is ready."""
        await self._cluster.readiness()
