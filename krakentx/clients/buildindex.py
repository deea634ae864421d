"""Client of the build-index: tags."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from attrs import frozen

from krakentx.clients.hosts import HostPool, first_answer
from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput, NotFound, Unavailable
from krakentx.web.client import HttpClient, Response

_ASKED = 3
_MAX_PAGES = 10_000
_NS = 1_000_000_000


@frozen
class BuildIndexTimeouts:
    """Deadlines in seconds of one request."""

    get_s: float = 10.0
    put_s: float = 30.0
    page_s: float = 60.0


def _escape(text: str) -> str:
    return quote(text, safe="")


@frozen
class BuildIndexClient:
    """The build-indexes behind one list of hosts. A `tag` is always `repo:tag`."""

    http: HttpClient
    pool: HostPool
    timeouts: BuildIndexTimeouts = BuildIndexTimeouts()

    async def get(self, tag: str) -> Digest:
        """What a tag points at.

        Raises:
            NotFound: there is no such tag. Unavailable: nobody could tell.
        """
        response = await self._ask("GET", f"/tags/{_escape(tag)}", self.timeouts.get_s, ok=(200, 404))
        if response.status == 404:
            raise NotFound("tag", tag)
        try:
            return Digest.parse(response.body.decode().strip())
        except (InvalidInput, UnicodeDecodeError) as error:
            raise Unavailable("build-index", f"answered with no digest: {error}") from error

    async def has(self, tag: str) -> bool:
        """Whether there is such a tag.

        Raises:
            Unavailable: nobody could tell.
        """
        response = await self._ask("HEAD", f"/tags/{_escape(tag)}", self.timeouts.get_s, ok=(200, 404))
        return response.status == 200

    async def put(self, tag: str, digest: Digest, *, replicate: bool = False) -> None:
        """Point a tag at a manifest.

        Raises:
            InvalidInput: (`manifest`) it, or something it refers to, is not with the origins. Unavailable.
        """
        query = "?replicate=true" if replicate else ""
        response = await self._ask(
            "PUT", f"/tags/{_escape(tag)}/digest/{digest}{query}", self.timeouts.put_s, ok=(200, 400, 404)
        )
        if response.status != 200:
            raise InvalidInput("manifest", response.body.decode(errors="replace").strip())

    async def tags(self, repo: str) -> list[str]:
        """All tags of a repository, sorted by bytes; empty when there is no such repository."""
        return sorted(await self._pages(f"/repositories/{_escape(repo)}/tags"))

    async def list(self, prefix: str) -> Sequence[str]:
        """All `repo:tag` below a prefix, sorted by bytes."""
        return sorted(await self._pages(f"/list/{quote(prefix)}"))

    async def origin(self) -> str:
        """`host:port` of the origins beside it."""
        response = await self._ask("GET", "/origin", self.timeouts.get_s)
        return response.body.decode().strip()

    async def readiness(self) -> None:
        """Raises: Unavailable: none is ready."""
        await self._ask("GET", "/readiness", self.timeouts.get_s)

    async def duplicate_put(self, host: str, tag: str, digest: Digest, delay_s: float) -> None:
        """Give one neighbour a copy, to be written to the backend after a delay."""
        path = f"/internal/duplicate/tags/{_escape(tag)}/digest/{digest}"
        await self._post(host, "PUT", path, {"delay": int(delay_s * _NS)})

    async def duplicate_replicate(
        self, host: str, tag: str, digest: Digest, dependencies: Sequence[Digest], delay_s: float
    ) -> None:
        """Give one neighbour a copy of a replication task, to be done after a delay."""
        body = {"dependencies": [str(each) for each in dependencies], "delay": int(delay_s * _NS)}
        path = f"/internal/duplicate/remotes/tags/{_escape(tag)}/digest/{digest}"
        await self._post(host, "POST", path, body)

    async def _post(self, host: str, method: str, path: str, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        await self.http.request(method, f"http://{host}{path}", body=data, timeout_s=self.timeouts.get_s)

    async def _ask(self, method: str, path: str, timeout_s: float, ok: tuple[int, ...] = (200,)) -> Response:
        async def one(host: str) -> Response:
            return await self.http.request(method, f"http://{host}{path}", ok=ok, timeout_s=timeout_s)

        hosts = (await self.pool.shuffled())[:_ASKED]
        return await first_answer("build-index", hosts, one, self.pool.health)

    async def _pages(self, path: str) -> set[str]:
        names: set[str] = set()
        for _ in range(_MAX_PAGES):
            response = await self._ask("GET", path, self.timeouts.page_s, ok=(200, 404))
            if response.status == 404:
                return names
            result, following = _read_page(response.body)
            names.update(result)
            if not following:
                return names
            parts = urlsplit(following)
            path = f"{parts.path}?{parts.query}"
        raise Unavailable("build-index", f"the list has no end after {_MAX_PAGES} pages")


def _read_page(body: bytes) -> tuple[list[str], str]:
    try:
        page = json.loads(body)
        result, links = page.get("result") or [], page.get("Links") or page.get("links") or {}
        names, following = [str(name) for name in result], str(links.get("next") or "")
    except (ValueError, AttributeError, TypeError) as error:
        raise Unavailable("build-index", f"answered with no list: {error}") from error
    return names, following
