"""The origins as one: who owns a blob, and what to do when one of them is silent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from attrs import field, frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from krakentx.clients.hosts import HostPool, first_answer
from krakentx.clients.origin import OriginClient, OriginTimeouts
from krakentx.clients.polling import poll
from krakentx.core.digest import Digest
from krakentx.core.errors import NotFound, TooLarge, Unavailable
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import PeerContext
from krakentx.web.client import HttpClient, Receive

T = TypeVar("T")

_ASKED_FOR_LOCATIONS = 3
_PENDING_LIMIT_S = 900.0


@frozen
class OriginCluster:
    """Every origin behind one list of hosts.

    Whatever one origin cannot do for lack of an answer is asked of the next owner; 404 of one is believed only when
    nobody who could be asked says otherwise.
    """

    http: HttpClient
    pool: HostPool
    clock: IReactorTime
    timeouts: OriginTimeouts = field(factory=OriginTimeouts)

    log = Logger()

    def client(self, host: str) -> OriginClient:
        """One member."""
        return OriginClient(self.http, host, self.timeouts)

    async def owners(self, digest: Digest) -> list[str]:
        """`host:port` of the origins that own a blob, the most wanted first.

        Raises:
            Unavailable: none of the members asked could tell.
        """
        members = (await self.pool.shuffled())[:_ASKED_FOR_LOCATIONS]
        return await first_answer("origin", members, lambda host: self.client(host).locations(digest), self.pool.health)

    async def stat(self, namespace: str, digest: Digest) -> int:
        """Size in bytes.

        Raises:
            NotFound: no owner and no backend has it. Unavailable: nobody could tell.
        """
        return await self._any_owner(digest, lambda origin: origin.stat(namespace, digest))

    async def metainfo(self, namespace: str, digest: Digest, *, strong: bool = False) -> MetaInfo:
        """How the blob is cut into pieces.

        Args:
            strong: see `OriginClient.metainfo`.

        Raises:
            NotFound, Unavailable. Pending: an origin is fetching the blob from its backend: ask again.
        """
        return await self._any_owner(digest, lambda origin: origin.metainfo(namespace, digest, strong=strong))

    async def _any_owner(self, digest: Digest, ask: Callable[[OriginClient], Awaitable[T]]) -> T:
        owners = await self.owners(digest)
        missing: list[str] = []

        async def one(host: str) -> T:
            try:
                return await ask(self.client(host))
            except NotFound:
                missing.append(host)
                raise Unavailable(host, "does not have it", status=404) from None

        try:
            return await first_answer("origin", owners, one, self.pool.health)
        except Unavailable:
            if len(missing) == len(owners):
                raise NotFound("blob", digest) from None
            raise
        finally:
            for host in missing:
                self.pool.health.passed(host)

    async def download(
        self,
        namespace: str,
        digest: Digest,
        receive: Receive,
        *,
        start: int = 0,
        stop: int | None = None,
    ) -> None:
        """Hand on bytes [start, stop) in order, going on at the next owner where one broke off.

        Raises:
            NotFound, Unavailable.
        """
        at = start

        def count(part: bytes) -> Awaitable[None] | None:
            nonlocal at
            at += len(part)
            return receive(part)

        async def ask(origin: OriginClient) -> None:
            if stop is None or at < stop:
                await poll(
                    lambda: origin.download(namespace, digest, at, stop, count),
                    clock=self.clock,
                    host=origin.host,
                    limit_s=_PENDING_LIMIT_S,
                )

        await self._any_owner(digest, ask)

    async def read(self, namespace: str, digest: Digest, limit_bytes: int) -> bytes:
        """A small blob as a whole.

        Raises:
            NotFound, Unavailable. TooLarge: above the limit.
        """
        data = bytearray()

        def add(part: bytes) -> None:
            if len(data) + len(part) > limit_bytes:
                raise TooLarge("blob", limit_bytes)
            data.extend(part)

        await self.download(namespace, digest, add)
        return bytes(data)

    async def upload(self, namespace: str, digest: Digest, source: Path, size_bytes: int) -> str:
        """Send a file to the first owner that takes it; it hands copies to the others. Returns that owner.

        Raises:
            Unavailable: no owner took it.
        """

        async def one(host: str) -> str:
            await self.client(host).upload(namespace, digest, source, size_bytes)
            return host

        return await first_answer("origin", await self.owners(digest), one, self.pool.health)

    async def prefetch(self, namespace: str, digest: Digest) -> None:
        """Have an owner fetch the blob from the backend, and wait for it.

        Raises:
            NotFound, Unavailable.
        """

        async def ask(origin: OriginClient) -> None:
            await poll(
                lambda: origin.prefetch(namespace, digest),
                clock=self.clock,
                host=origin.host,
                limit_s=_PENDING_LIMIT_S,
            )

        await self._any_owner(digest, ask)

    async def replicate(self, namespace: str, digest: Digest, remote: str) -> None:
        """Have an owner send the blob to another cluster, and wait for it.

        Raises:
            NotFound, Unavailable.
        """

        async def ask(origin: OriginClient) -> None:
            await poll(
                lambda: origin.replicate(namespace, digest, remote),
                clock=self.clock,
                host=origin.host,
                limit_s=_PENDING_LIMIT_S,
            )

        await self._any_owner(digest, ask)

    async def peers(self, digest: Digest) -> list[PeerContext]:
        """The owners as peers; those that do not answer are left out.

        Raises:
            Unavailable: none answered.
        """
        owners = await self.owners(digest)

        async def context(host: str) -> PeerContext | None:
            try:
                return await self.client(host).peer_context()
            except Unavailable as error:
                self.log.warn("origin {host} tells no peer context: {reason}", host=host, reason=error.reason)
                return None

        answers = await gatherResults([Deferred.fromCoroutine(context(host)) for host in owners], consumeErrors=True)
        found = [answer for answer in answers if answer is not None]
        if not found:
            raise Unavailable("every origin", "none told its peer context")
        return found

    async def readiness(self) -> None:
        """Raises: Unavailable: no member is ready."""
        members = await self.pool.shuffled()
        await first_answer("origin", members, lambda host: self.client(host).readiness(), self.pool.health)
