"""The client of testfs."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from krakentx.backend.interfaces import Sink
from krakentx.backend.paths import NamePaths
from krakentx.core.errors import NotFound, OutOfSpace, Unavailable
from krakentx.web.client import HttpClient

_FULL = 507
_RETRIES = 2


class TestfsBackend:
    """See `IBackend`.

    Args:
        addr: `host:port`.
        client: stays the caller's.
    """

    __test__ = False  # not a test class

    def __init__(self, addr: str, paths: NamePaths, client: HttpClient) -> None:
        self._addr = addr
        self._paths = paths
        self._client = client

    async def stat(self, namespace: str, name: str) -> int:
        """Size in bytes, from the `Size` header."""
        answer = await self._client.request("HEAD", self._file(name), ok=(200, 404), retries=_RETRIES)
        if answer.status == 404:
            raise NotFound("file", name)
        size = answer.header("Size") or ""
        if not (size.isascii() and size.isdigit()):
            raise Unavailable(self._addr, f"told no size of {name}")
        return int(size)

    async def download(self, namespace: str, name: str, sink: Sink) -> None:
        """GET, at the pace of the sink."""
        try:
            await self._client.download(self._file(name), sink)
        except Unavailable as error:
            if error.status == 404:
                raise NotFound("file", name) from error
            raise

    async def upload(self, namespace: str, name: str, path: Path) -> None:
        """POST the file."""
        try:
            await self._client.upload("POST", self._file(name), path)
        except Unavailable as error:
            if error.status == _FULL:
                raise OutOfSpace(self._addr) from error
            raise

    async def list(self, prefix: str) -> list[str]:
        """The server tells paths from its root."""
        folder = self._paths.folder(prefix)
        url = f"http://{self._addr}/list/{quote(folder.lstrip('/'))}"
        answer = await self._client.request("GET", url, ok=(200, 404), retries=_RETRIES)
        if answer.status == 404:
            return []
        try:
            found = answer.json() or []
        except ValueError as error:
            raise Unavailable(self._addr, f"the list of {folder or '/'} is no JSON") from error
        names = [self._paths.name(path) for path in found]
        return sorted(name for name in names if name is not None)

    def _file(self, name: str) -> str:
        return f"http://{self._addr}/files/{quote(self._paths.path(name).lstrip('/'))}"
