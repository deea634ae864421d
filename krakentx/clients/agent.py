"""Client of an agent's management port."""

from __future__ import annotations

from urllib.parse import quote

from attrs import frozen

from krakentx.clients.ranges import download_range
from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput, NotFound, Unavailable
from krakentx.web.client import HttpClient, Receive


@frozen
class AgentClient:
    """One agent at `host:port`. Every method raises `Unavailable` when it does not answer properly in time.

    Args:
        stall_s: a download ends when no byte came for so long; the first byte may take a whole backend fetch.
    """

    http: HttpClient
    host: str
    timeout_s: float = 10.0
    stall_s: float = 300.0

    async def health(self) -> None:
        """Raises: Unavailable: it is not alive."""
        await self.http.request("GET", f"http://{self.host}/health", timeout_s=self.timeout_s)

    async def readiness(self) -> None:
        """Raises: Unavailable: it, or what it depends on, is not ready."""
        await self.http.request("GET", f"http://{self.host}/readiness", timeout_s=self.timeout_s)

    async def tag(self, tag: str) -> Digest:
        """What `repo:tag` points at. Raises: NotFound."""
        url = f"http://{self.host}/tags/{quote(tag, safe='')}"
        response = await self.http.request("GET", url, ok=(200, 404), timeout_s=self.timeout_s)
        if response.status == 404:
            raise NotFound("tag", tag)
        try:
            return Digest.parse(response.body.decode().strip())
        except (InvalidInput, UnicodeDecodeError) as error:
            raise Unavailable(self.host, f"answered with no digest: {error}") from error

    async def download(self, namespace: str, digest: Digest, receive: Receive) -> None:
        """The bytes of a blob, in order. Raises: NotFound."""
        url = f"http://{self.host}/namespace/{quote(namespace, safe='')}/blobs/{digest}"
        await download_range(self.http, self.host, url, digest, 0, None, receive, self.stall_s)

    async def delete(self, digest: Digest) -> None:
        """Drop a blob from its cache."""
        await self.http.request("DELETE", f"http://{self.host}/blobs/{digest}", timeout_s=self.timeout_s)
