"""Single pieces over HTTP, from origins or from a registry, when peers give nothing."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Literal
from urllib.parse import quote

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from krakentx.clients.hosts import HostPool
from krakentx.clients.origin import PIECES_HEADER, OriginClient, escape
from krakentx.clients.polling import poll
from krakentx.clients.ranges import download_range
from krakentx.core.digest import Digest
from krakentx.core.errors import NotFound, Unavailable
from krakentx.core.metainfo import MetaInfo
from krakentx.web.client import HttpClient, Receive

_QUICK_S = 5.0
_PENDING_LIMIT_S = 900.0

Kind = Literal["origin", "registry"]

_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "*/*",
    )
)


@define
class HttpFallback:
    """An `IFallback` over a list of hosts, each of which may be an origin or a registry.

    What a host is shows when it is asked: a registry answers `/v2/`. Hosts in trouble are asked last.
    """

    http: HttpClient
    pool: HostPool
    clock: IReactorTime
    _kinds: dict[str, Kind] = field(factory=dict, init=False)

    log = Logger()

    async def fetch(
        self, namespace: str, digest: Digest, start: int, stop: int, receive: Receive, stall_s: float
    ) -> None:
        """Get bytes [start, stop) and hand them on in order, exactly as many.

        Raises:
            Unavailable: no source, or no byte for `stall_s`. NotFound: every source says that it has no such blob.
        """
        at = start

        def count(part: bytes) -> Awaitable[None] | None:
            nonlocal at
            at += len(part)
            return receive(part)

        missing, reasons = 0, []
        hosts = await self.pool.shuffled()
        for host in hosts:
            try:
                await self._from(host, namespace, digest, at, stop, count, stall_s)
            except NotFound:
                missing += 1
            except Unavailable as error:
                if error.status != 503:  # one that has too much to do at the moment is well
                    self.pool.health.failed(host)
                    self._kinds.pop(host, None)
                reasons.append(f"{host}: {error.reason}")
            else:
                self.pool.health.passed(host)
                return
        if missing == len(hosts):
            raise NotFound("blob", digest)
        raise Unavailable("every fallback", "; ".join(reasons))

    async def metainfo(self, namespace: str, digest: Digest, *, strong: bool = False) -> MetaInfo:
        """How the blob is cut into pieces, from whichever host is an origin.

        Args:
            strong: see `OriginClient.metainfo`.

        Raises:
            NotFound, Unavailable.
        """
        missing, reasons = 0, []
        hosts = await self.pool.shuffled()
        for host in hosts:
            try:
                return await self._metainfo(host, namespace, digest, strong)
            except NotFound:
                missing += 1
            except Unavailable as error:
                self.pool.health.failed(host)
                reasons.append(f"{host}: {error.reason}")
        if missing == len(hosts):
            raise NotFound("blob", digest)
        raise Unavailable("every fallback", "; ".join(reasons))

    async def _metainfo(self, host: str, namespace: str, digest: Digest, strong: bool) -> MetaInfo:
        if await self._kind(host) == "registry":
            raise Unavailable(host, "is a registry, which has no metainfo")
        origin = OriginClient(self.http, host)
        return await poll(
            lambda: origin.metainfo(namespace, digest, strong=strong),
            clock=self.clock,
            host=host,
            limit_s=_PENDING_LIMIT_S,
        )

    async def _kind(self, host: str) -> Kind:
        kind = self._kinds.get(host)
        if kind is None:
            response = await self.http.request("GET", f"http://{host}/v2/", ok=(200, 401, 404, 405), timeout_s=_QUICK_S)
            kind = self._kinds[host] = "registry" if response.status in (200, 401) else "origin"
        return kind

    async def _from(
        self,
        host: str,
        namespace: str,
        digest: Digest,
        start: int,
        stop: int,
        receive: Receive,
        stall_s: float,
    ) -> None:
        if await self._kind(host) == "origin":
            url = f"http://{host}/namespace/{escape(namespace)}/blobs/{digest}"
            await poll(
                lambda: download_range(
                    self.http, host, url, digest, start, stop, receive, stall_s, {PIECES_HEADER: "true"}
                ),
                clock=self.clock,
                host=host,
                limit_s=stall_s,
            )
            return
        repo = quote(namespace, safe="/")
        try:
            url = f"http://{host}/v2/{repo}/blobs/{digest}"
            await download_range(self.http, host, url, digest, start, stop, receive, stall_s)
        except NotFound:  # a registry keeps manifests apart from blobs
            url = f"http://{host}/v2/{repo}/manifests/{digest}"
            await download_range(self.http, host, url, digest, start, stop, receive, stall_s, {"Accept": _ACCEPT})
