"""Warming up: have the origins fetch what an image consists of, before anybody pulls it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Protocol

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from krakentx.core.digest import Digest
from krakentx.core.errors import Busy, InvalidInput, KrakenError, NotFound, Unavailable
from krakentx.core.imagename import check_repository, check_tag
from krakentx.proxy.interfaces import IOrigins
from krakentx.web.bodies import read_blob

MAX_MANIFEST = 4 << 20
_MAX_CHILDREN = 1000
_MAX_RUNNING = 1000
"""Images being fetched with nobody waiting: a notification costs its sender nothing."""
_NOT_FOUND_PAUSES_S = (0.1, 0.2, 0.4)


class ITagReader(Protocol):
    """The part of the tags that is needed here."""

    async def get(self, repo: str, tag: str) -> Digest:
        """Raises: NotFound, Unavailable."""


@frozen
class Descriptor:
    """One blob that an image needs."""

    digest: Digest
    size: int


@frozen
class Limits:
    """Which blobs are worth it, and how many at a time."""

    min_bytes: int
    max_bytes: int
    parallel: int


def candidates(text: str) -> list[tuple[str, str]]:
    """What `<host>/<name>:<tag>` may mean, as (repository, tag), the likeliest first.

    With two slashes or more the first part is a host whatever it looks like, as in the reference; yet when it looks
    like none it may also belong to the name. The name may have any number of parts.

    Raises:
        InvalidInput: (`tag`) it is not of that form.
    """
    name, colon, tag = text.rpartition(":")
    first, slash, rest = name.partition("/")
    if not colon or "/" in tag or not slash:
        raise InvalidInput("tag", f"{text[:300]!r}; write host/name:tag")
    like_host = "." in first or ":" in first or first == "localhost"
    names = [rest] if like_host else [rest, name] if "/" in rest else [name, rest]
    check_tag(tag)
    for each in names:
        check_repository(each)
    return [(each, tag) for each in names]


def descriptors(data: bytes) -> tuple[list[Descriptor], list[Descriptor]]:
    """Child manifests, and blobs, that a manifest refers to.

    Raises:
        InvalidInput: (`manifest`) it cannot be read.
    """
    try:
        value = json.loads(data)
        blobs = [value["config"]] if value.get("config") else []
        blobs += value.get("layers") or []
        children = (value.get("manifests") or [])[:_MAX_CHILDREN]
        return list(map(_descriptor, children)), [_descriptor(blob) for blob in blobs if not blob.get("urls")]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidInput("manifest", f"cannot be read: {error!r}") from error


def _descriptor(value: dict[str, Any]) -> Descriptor:
    return Descriptor(Digest.parse(value["digest"]), int(value.get("size") or 0))


@define(eq=False)
class Prefetcher(Service):
    """Finds out what an image consists of, and has the origins fetch it."""

    origins: IOrigins
    tags: ITagReader
    limits: Limits
    clock: IReactorTime
    _running: set[Deferred[None]] = field(factory=set, init=False)

    log = Logger()

    def stopService(self) -> Deferred[Any]:
        """Give up what is under way."""
        super().stopService()  # type: ignore[no-untyped-call]
        running = list(self._running)
        for each in running:
            each.cancel()
        return DeferredList(running)

    async def prefetch(self, text: str, *, wait: bool) -> None:
        """Fetch all of an image.

        Args:
            text: `<host>/<name>:<tag>`.
            wait: until everything is there; False returns when the manifests are read and goes on by itself.

        Raises:
            InvalidInput: (`tag`, `manifest`). NotFound, Unavailable. Busy: too many are under way.
        """
        repo, digest = await self._find(text)
        wanted = await self._walk(repo, digest)
        if wait:
            await self._fetch(repo, wanted)
        else:
            self._own(self._fetch(repo, wanted), f"prefetch of {text}")

    async def pushed(self, repo: str, digest: Digest) -> None:
        """A manifest was pushed somewhere: have the origins fetch what it refers to, without waiting for it.

        Raises:
            NotFound, Unavailable: it cannot be read. InvalidInput. Busy: too many are under way.
        """
        children, blobs = descriptors(await self._patiently(repo, digest))
        self._own(self._fetch(repo, [*children, *blobs]), f"preheat of {repo}")

    async def _find(self, text: str) -> tuple[str, Digest]:
        for repo, tag in candidates(text):
            try:
                return repo, await self.tags.get(repo, tag)
            except NotFound:
                continue
        raise NotFound("tag", text)

    async def _walk(self, repo: str, digest: Digest) -> list[Descriptor]:
        """The manifest and everything below it; an index of indexes too, each one read once."""
        found: dict[Digest, Descriptor] = {}
        manifests = [Descriptor(digest, 0)]
        while manifests:
            manifest = manifests.pop()
            if manifest.digest in found:
                continue
            data = await self._read(repo, manifest.digest)
            found[manifest.digest] = Descriptor(manifest.digest, len(data))
            children, blobs = descriptors(data)
            found.update((blob.digest, blob) for blob in blobs)
            manifests += children
            if len(found) > 100 * _MAX_CHILDREN:
                raise InvalidInput("manifest", "refers to too much")
        return list(found.values())

    async def _read(self, repo: str, digest: Digest) -> bytes:
        return await read_blob(await self.origins.open(repo, digest), MAX_MANIFEST, "manifest")

    async def _patiently(self, repo: str, digest: Digest) -> bytes:
        """A notification may be quicker than the origins."""
        for pause_s in _NOT_FOUND_PAUSES_S:
            try:
                return await self._read(repo, digest)
            except NotFound:
                await deferLater(self.clock, pause_s)
        return await self._read(repo, digest)

    async def _fetch(self, repo: str, wanted: Iterable[Descriptor]) -> None:
        limits = self.limits
        turns = DeferredSemaphore(limits.parallel)

        async def one(digest: Digest) -> None:
            await self.origins.prefetch(repo, digest)

        worth = [each for each in wanted if limits.min_bytes <= each.size <= limits.max_bytes]
        calls = [turns.run(_started, one, each.digest) for each in worth]
        results: list[tuple[bool, Any]] = await DeferredList(calls, consumeErrors=True)
        problems = [result.value for ok, result in results if not ok]
        if problems:
            raise Unavailable("the origins", f"{len(problems)} of {len(calls)} blobs failed, one by: {problems[0]}")

    def _own(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Let it run by itself. Raises: Busy."""
        if len(self._running) >= _MAX_RUNNING:
            work.close()
            raise Busy(f"{_MAX_RUNNING} prefetches are under way")
        running = Deferred.fromCoroutine(work)
        self._running.add(running)

        def ended(result: Failure | None) -> None:
            self._running.discard(running)
            if not isinstance(result, Failure) or result.check(CancelledError):
                return
            if result.check(KrakenError):
                self.log.warn("{what}: {error}", what=what, error=str(result.value))
            else:
                self.log.failure("{what} failed", failure=result, what=what)

        running.addBoth(ended)


def _started(work: Callable[[Digest], Awaitable[None]], digest: Digest) -> Deferred[None]:
    return Deferred.fromCoroutine(work(digest))  # type: ignore[arg-type]  # an async def
