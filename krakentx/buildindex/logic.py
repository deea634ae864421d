"""What the build-index does; no HTTP, no reactor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import frozen

from krakentx.backend.interfaces import IBackend
from krakentx.buildindex.dependencies import Dependencies
from krakentx.buildindex.store import TagStore
from krakentx.clients.memo import Memo
from krakentx.core.digest import Digest
from krakentx.core.errors import Corrupt, InvalidInput, KrakenError, NotFound, TooLarge
from krakentx.core.imagename import check_repository

_MAX_TAG_BYTES = 1024
_TAGS_FOLDER = "/_manifests/tags"
PAGE = 250


class ITagQueue(Protocol):
    """Tags on their way to the backend, and to other clusters."""

    async def write_back(self, tag: str, delay_s: float = 0.0) -> None:
        """Remember durably that the tag is to be written to the backend, after a delay."""

    async def waits(self, tag: str) -> bool:
        """Whether it is still to be written."""

    async def write_now(self, tag: str) -> None:
        """Write it to the backend. Raises: Unavailable."""

    async def replicate(self, tag: str, digest: Digest, dependencies: Sequence[Digest], delay_s: float = 0.0) -> bool:
        """Remember durably to give it to every cluster that is to have it. False when there is none."""


class INeighbours(Protocol):
    """The other build-indexes of this cluster."""

    async def put(self, tag: str, digest: Digest) -> None:
        """Tell them of a tag; who cannot be reached is logged."""

    async def replicate(self, tag: str, digest: Digest, dependencies: Sequence[Digest]) -> None:
        """Give them copies of a replication task."""

    def __bool__(self) -> bool:
        """Whether there are any."""


@frozen
class Page:
    """One page of a list; `following` continues it, and is empty at its end."""

    names: list[str]
    following: str


@frozen
class BuildIndex:
    """Tag -> digest; a `tag` is always `repo:tag`.

    What was put here is on this disk and is answered from there, so a put is seen by every later look-up. With
    neighbours, which may have been told of a newer one while this process was down, the backend is asked first for what
    is not on its way there from here.

    Args:
        find: the backend of a namespace; None when there is none.
        write_through: a put returns when the backend has the tag.
    """

    store: TagStore
    find: Callable[[str], IBackend | None]
    queue: ITagQueue
    neighbours: INeighbours
    dependencies: Dependencies
    lists: Memo[str, list[str]]
    check: bool
    write_through: bool

    async def get(self, tag: str) -> Digest:
        """What a tag points at.

        Raises:
            NotFound: known to be absent. Unavailable: the backend is down. InvalidInput: it is no `repo:tag`.
        """
        try:
            here = self.store.get(tag)
        except NotFound:
            return await self._from_backend(tag)
        if not self.neighbours or self.find(tag) is None or await self.queue.waits(tag):
            return here
        try:
            return await self._from_backend(tag)
        except KrakenError:
            return here

    async def _from_backend(self, tag: str) -> Digest:
        backend = self.find(tag)
        if backend is None:
            raise NotFound("tag", tag)
        data = bytearray()

        async def add(part: bytes) -> None:
            if len(data) + len(part) > _MAX_TAG_BYTES:
                raise TooLarge("tag", _MAX_TAG_BYTES)
            data.extend(part)

        try:
            await backend.download(tag, tag, add)
            return Digest.parse(bytes(data).decode().strip())
        except NotFound as error:
            raise NotFound("tag", tag) from error
        except (InvalidInput, UnicodeDecodeError, TooLarge) as error:
            raise Corrupt("a digest", bytes(data[:80])) from error

    async def exists(self, tag: str) -> None:
        """Raises: as `get`."""
        await self.get(tag)

    async def put(self, tag: str, digest: Digest, *, replicate: bool) -> None:
        """Point a tag at a digest; after this every look-up gives it.

        Raises:
            InvalidInput: (`manifest`) something it depends on is absent; (`tag`). Unavailable. OutOfSpace.
        """
        self.store.path(tag)
        dependencies = await self.dependencies.resolve(tag, digest) if self.check or replicate else [digest]
        if self.check:
            await self.dependencies.check(tag, dependencies)
        await self._keep(tag, digest, 0.0)
        if self.write_through and self.find(tag) is not None:
            await self.queue.write_now(tag)
        await self.neighbours.put(tag, digest)
        if replicate:
            await self._replicate(tag, digest, dependencies)

    async def put_copy(self, tag: str, digest: Digest, delay_s: float) -> None:
        """Take a neighbour's word; write it to the backend after a delay. Raises: InvalidInput, OutOfSpace."""
        await self._keep(tag, digest, delay_s)

    async def _keep(self, tag: str, digest: Digest, delay_s: float) -> None:
        await self.store.put(tag, digest)
        if self.find(tag) is not None:
            await self.queue.write_back(tag, delay_s)

    async def replicate(self, tag: str) -> None:
        """Give an existing tag to the other clusters. Raises: NotFound, Unavailable, InvalidInput."""
        digest = await self.get(tag)
        await self._replicate(tag, digest, await self.dependencies.resolve(tag, digest))

    async def _replicate(self, tag: str, digest: Digest, dependencies: Sequence[Digest]) -> None:
        if await self.queue.replicate(tag, digest, dependencies):
            await self.neighbours.replicate(tag, digest, dependencies)

    async def tags(self, repo: str) -> list[str]:
        """The tags of one repository, sorted; empty when there is no such repository. Raises: Unavailable."""
        check_repository(repo)
        names = await self._listed(repo, f"{repo}{_TAGS_FOLDER}")
        found = {name.rpartition(":")[2] for name in names if name.rpartition(":")[0] == repo}
        return sorted({*found, *await self.store.tags(repo)})

    async def names(self, prefix: str) -> list[str]:
        """All `repo:tag` below a prefix, sorted. Raises: Unavailable."""
        prefix = prefix.strip("/")
        if prefix.endswith(_TAGS_FOLDER):
            repo = prefix.removesuffix(_TAGS_FOLDER)
            return [f"{repo}:{tag}" for tag in await self.tags(repo)]
        return sorted({*await self._listed(prefix, prefix), *await self.store.names(prefix)})

    async def _listed(self, namespace: str, prefix: str) -> list[str]:
        backend = self.find(namespace)
        return [] if backend is None else await self.lists.get(prefix, lambda: _list(backend, prefix))


async def _list(backend: IBackend, prefix: str) -> list[str]:
    try:
        return await backend.list(prefix)
    except NotFound:
        return []


def page(names: Sequence[str], limit: int | None, after: str | None) -> Page:
    """Cut one page out of a sorted list; all of it without a limit or an offset.

    Args:
        after: the name after which it begins, which need not be in the list.
    """
    rest = [name for name in names if after is None or name > after]
    if limit is None and after is None:
        return Page(rest, "")
    size = PAGE if limit is None or limit < 0 else limit
    cut = rest[:size]
    return Page(cut, cut[-1] if cut and len(rest) > size else "")
