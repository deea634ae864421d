"""Shelf: finds the file and the metainfo of a blob, or begins a new partial one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import deferLater

from krakentx.core.digest import Digest
from krakentx.core.errors import Conflict, NotFound, Unavailable
from krakentx.core.metainfo import MetaInfo
from krakentx.peer.interfaces import IMetaInfoSource
from krakentx.peer.torrents import Torrent
from krakentx.storage.interfaces import IBlobStore, IPartialBlob, IPartialStore
from krakentx.storage.threads import Shared

METAINFO_TIMEOUT_S = 900.0
"""A cold blob has no metainfo before an origin has all of it; the source has shorter deadlines for silence."""
REOPEN_S = 0.05
REOPENS = 100


class Shelf:
    """The disk, as the Scheduler sees it.

    Everything about one blob happens one after another: of two who ask at once the second gets what the first made.

    Args:
        known: the torrent of that blob which is open already, or None.
        loaded: takes over a torrent that was just opened, and whether someone here wants it.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        cache: IBlobStore,
        partials: IPartialStore | None,
        metainfo: IMetaInfoSource | None,
        known: Callable[[Digest], Torrent | None],
        loaded: Callable[[Torrent, bool], None],
    ) -> None:
        self._reactor = reactor
        self._cache = cache
        self._partials = partials
        self._metainfo = metainfo
        self._known = known
        self._loaded = loaded
        self._busy: dict[Digest, Shared[Torrent | None]] = {}

    async def stored(self, digest: Digest) -> Torrent | None:
        """The torrent of a blob that is on disk, whole or in part; None when it is not.

        Raises:
            OutOfSpace, Unavailable: a partial blob cannot be opened.
        """
        while (torrent := self._known(digest)) is None:
            busy = self._busy.get(digest)
            if busy is None:
                return await self._start(digest, self._load_stored("", digest, wanted=False)).wait()
            await busy.wait()
        return torrent

    async def wanted(self, namespace: str, digest: Digest) -> Torrent:
        """The torrent of a blob that someone here wants.

        Raises:
            NotFound: it is known to be absent. Unavailable: nobody can tell. OutOfSpace: the disk is full.
        """
        while (torrent := self._known(digest)) is None:
            busy = self._busy.get(digest) or self._start(digest, self._load_wanted(namespace, digest))
            await busy.wait()
        return torrent

    async def idle(self, digest: Digest) -> None:
        """Wait until nothing is being opened for the blob."""
        while (busy := self._busy.get(digest)) is not None:
            await busy.wait()

    def _start(self, digest: Digest, work: Coroutine[Any, Any, Torrent | None]) -> Shared[Torrent | None]:
        # Whoever asked may hang up: the work goes on for the others.
        async def guarded() -> Torrent | None:
            try:
                return await work
            finally:
                self._busy.pop(digest, None)

        self._busy[digest] = busy = Shared(guarded())
        if busy.done:
            self._busy.pop(digest, None)
        return busy

    async def _load_stored(self, namespace: str, digest: Digest, *, wanted: bool) -> Torrent | None:
        meta = self._cache.metainfo(digest)
        if meta is not None:
            try:
                blob = self._cache.open(digest)
            except NotFound:
                pass  # evicted between the two looks, or only its side file is left
            else:
                return self._take(Torrent(meta, namespace, blob, None, self._reactor.seconds()), False)
        meta = None if self._partials is None else self._partials.find(digest)
        return None if meta is None else await self._open_partial(namespace, meta, wanted)

    async def _load_wanted(self, namespace: str, digest: Digest) -> Torrent:
        torrent = await self._load_stored(namespace, digest, wanted=True)
        if torrent is not None:
            return torrent
        if self._partials is None or self._metainfo is None:
            raise NotFound("blob", digest)
        try:
            work = Deferred.fromCoroutine(self._metainfo.metainfo(namespace, digest))
            meta = await work.addTimeout(METAINFO_TIMEOUT_S, self._reactor)
        except TimeoutError as error:
            raise Unavailable("the tracker", f"no metainfo of {digest} in time") from error
        if meta.digest != digest:
            raise Unavailable("the tracker", f"its metainfo is of {meta.digest}, not of {digest}")
        return await self._open_partial(namespace, meta, True)

    async def _open_partial(self, namespace: str, meta: MetaInfo, wanted: bool) -> Torrent:
        partial = await self._open_when_free(meta)
        torrent = Torrent(meta, namespace, partial, partial, self._reactor.seconds())
        # With every piece there only the hash of the whole is due, and that is done for whom it is wanted.
        return self._take(torrent, wanted or partial.have.complete)

    async def _open_when_free(self, meta: MetaInfo) -> IPartialBlob:
        assert self._partials is not None
        for _ in range(REOPENS):
            try:
                return await self._partials.open(meta)
            except Conflict:
                # A torrent that was just put away: a thread still reads its file.
                await deferLater(self._reactor, REOPEN_S)
        raise Unavailable("the disk", f"blob {meta.digest} is still in use")

    def _take(self, torrent: Torrent, wanted: bool) -> Torrent:
        self._loaded(torrent, wanted)
        return torrent
