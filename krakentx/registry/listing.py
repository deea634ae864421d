"""Lists of tags and repositories, page by page."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any
from urllib.parse import urlencode

from krakentx.core.errors import InvalidInput
from krakentx.registry.interfaces import ITags
from krakentx.web.params import query_int, query_value
from krakentx.web.replies import reply_json

MAX_PAGE = 10_000
"""Entries of one answer, also for a client that names no number; the `Link` leads on."""


class ListRoutes:
    """Answers what there is."""

    def __init__(self, tags: ITags) -> None:
        self._tags = tags

    async def tags(self, request: Any, repo: str, _name: str) -> bytes:
        """`GET tags/list`. Raises: InvalidInput, NotFound, Unavailable."""
        wanted = _page(request)
        found = await self._tags.tags(repo)
        return _answer(request, found, wanted, f"/v2/{repo}/tags/list", {"name": repo}, "tags")

    async def catalog(self, request: Any) -> bytes:
        """`GET /v2/_catalog`. Raises: InvalidInput, Unavailable."""
        wanted = _page(request)
        found = await self._tags.repositories()
        return _answer(request, found, wanted, "/v2/_catalog", {}, "repositories")


def _page(request: Any) -> int | None:
    try:
        return query_int(request, "n")
    except InvalidInput as error:
        raise InvalidInput("page", error.message) from error


def _answer(request: Any, found: list[str], wanted: int | None, path: str, head: dict[str, str], key: str) -> bytes:
    last = query_value(request, "last")
    start = 0 if last is None else bisect_right(found, last.encode(), key=str.encode)
    count = MAX_PAGE if wanted is None else min(wanted, MAX_PAGE)
    page = found[start : start + count]
    if page and start + count < len(found):
        query = urlencode({"n": count, "last": page[-1]})
        request.setHeader("Link", f'<{path}?{query}>; rel="next"')
    return reply_json(request, {**head, key: page})
