"""The other build-indexes of this cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from krakentx.buildindex.config import TagServerConfig
from krakentx.clients.buildindex import BuildIndexClient
from krakentx.clients.hosts import HostPool
from krakentx.core.digest import Digest
from krakentx.core.errors import KrakenError


@frozen
class Neighbours:
    """Tells them of every tag, all at once, before a put is answered: so each gives the new digest from then on.

    Args:
        me: labels by which the list may name this process.
    """

    pool: HostPool
    client: BuildIndexClient
    me: Collection[str]
    config: TagServerConfig

    log = Logger()

    def __bool__(self) -> bool:
        return bool(self.pool)

    async def put(self, tag: str, digest: Digest) -> None:
        """Tell them of a tag; who cannot be reached is logged."""
        stagger_s = self.config.duplicate_put_stagger_s
        await self._each(lambda host, rank: self.client.duplicate_put(host, tag, digest, stagger_s * rank))

    async def replicate(self, tag: str, digest: Digest, dependencies: Sequence[Digest]) -> None:
        """Give them copies of a replication task, for the case that this process dies."""
        stagger_s = self.config.duplicate_replicate_stagger_s
        await self._each(
            lambda host, rank: self.client.duplicate_replicate(host, tag, digest, dependencies, stagger_s * rank)
        )

    async def _each(self, tell: Callable[[str, int], Awaitable[None]]) -> None:
        if not self.pool:
            return
        hosts = [host for host in await self.pool.shuffled() if host not in self.me]
        await gatherResults([Deferred.fromCoroutine(self._one(tell, host, n + 1)) for n, host in enumerate(hosts)])

    async def _one(self, tell: Callable[[str, int], Awaitable[None]], host: str, rank: int) -> None:
        try:
            await tell(host, rank)
        except KrakenError as error:
            self.log.warn("neighbour {host} was not told: {error}", host=host, error=str(error))
