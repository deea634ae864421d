"""The cache: complete blobs whose bytes hash to their name.

Every change that others can see (a folder appears, a folder goes) is one rename made in the reactor's thread, so the
rules "pinned blobs are not evicted" and "one of twenty equal uploads wins" need no lock. What takes time (fsync,
copying, removing) happens in the pool before that rename, or after it out of sight.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from attrs import define, field
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from typing_extensions import Self

from krakentx.core.digest import Digest
from krakentx.core.errors import Conflict, Corrupt, InvalidInput, NotFound
from krakentx.core.metainfo import MetaInfo
from krakentx.storage import disk
from krakentx.storage.interfaces import BlobRecord
from krakentx.storage.layout import ACCESS, DATA, META, PERSIST, Shards, decode_time, encode_time
from krakentx.storage.threads import Threads, shielded

ACCESS_RESOLUTION_S = 300.0
"""The time of access is written at most this often for one blob, as in the reference."""

_METAINFOS = 64  # kept in memory; one of 10,000 pieces takes 400 KB
_REMEMBERED = 1 << 16


@define(eq=False)
class CachedBlob:
    """An open blob of the cache. Deleting it meanwhile does not disturb the reader."""

    digest: Digest
    size: int
    _fd: int
    _unpin: Callable[[Digest], None]
    _open: bool = field(default=True, init=False)

    def fileno(self) -> int:
        """The open file."""
        return self._fd

    async def wait(self, offset: int, stop: int) -> int:
        """At once: `stop`."""
        return stop

    def close(self) -> None:
        """Unpin and close."""
        if self._open:
            self._open = False
            os.close(self._fd)
            self._unpin(self.digest)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlobStore:
    """See `interfaces.IBlobStore`. One process, one object for a root: leftovers are swept when it is made."""

    log = Logger()

    def __init__(self, root: Path, *, reactor: Any, pool: ThreadPool) -> None:
        self.root = Path(root)
        self._threads = Threads(reactor, pool)
        self._shards = Shards(self.root)
        self._pins: dict[Digest, int] = {}
        self._metainfos: OrderedDict[Digest, MetaInfo] = OrderedDict()
        self._sizes: OrderedDict[Digest, int] = OrderedDict()  # compared with the metainfo already
        self._accesses: OrderedDict[Digest, float] = OrderedDict()
        self._reported: set[Digest] = set()
        self.committed: Callable[[int], None] | None = None
        """Called with the size in bytes of each new blob; the sweeper listens here."""
        swept = self._shards.sweep()
        if swept:
            self.log.info("swept {count} leftovers of an earlier run from {root}", count=swept, root=str(root))

    # -- reading

    def stat(self, digest: Digest) -> int | None:
        """Size in bytes, or None when absent; a blob shorter or longer than its metainfo says counts as absent."""
        try:
            size = os.stat(self.path(digest)).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        return size if self._is_sound(digest, size) else None

    def path(self, digest: Digest) -> Path:
        """The file of a blob, for what can only work with a name. Pin the blob meanwhile."""
        return self._shards.folder(digest) / DATA

    def open(self, digest: Digest) -> CachedBlob:
        """Open for reading and note the access.

        Raises:
            NotFound: it is not here.
        """
        try:
            fd = os.open(self.path(digest), os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound("blob", digest) from error
        try:
            size = os.fstat(fd).st_size
            if not self._is_sound(digest, size):
                raise NotFound("blob", digest)
        except BaseException:
            os.close(fd)
            raise
        self.pin(digest)
        self._note_access(digest)
        return CachedBlob(digest, size, fd, self.unpin)

    def metainfo(self, digest: Digest) -> MetaInfo | None:
        """The stored metainfo, or None, also when the file is torn or names another blob."""
        known = self._metainfos.get(digest)
        if known is not None:
            self._metainfos.move_to_end(digest)
            return known
        data = disk.read_or_none(self._shards.folder(digest) / META)
        if data is None:
            return None
        try:
            meta = MetaInfo.from_json(data)
        except InvalidInput as error:
            self.log.warn("metainfo of {digest} is unreadable: {error}", digest=str(digest), error=str(error))
            return None
        if meta.digest != digest:
            self.log.warn("metainfo of {digest} names {other}", digest=str(digest), other=str(meta.digest))
            return None
        _remember(self._metainfos, digest, meta, _METAINFOS)
        return meta

    def is_persisted(self, digest: Digest) -> bool:
        """Whether it still waits for the backend."""
        return disk.read_or_none(self._shards.folder(digest) / PERSIST) == b"true"

    def records(self) -> Iterator[BlobRecord]:
        """All blobs; reads the disk, so call it in a thread."""
        for digest, folder in self._shards:
            try:
                info = os.stat(folder / DATA)
            except (FileNotFoundError, NotADirectoryError):
                continue
            accessed_at = decode_time(disk.read_or_none(folder / ACCESS) or b"")
            yield BlobRecord(
                digest=digest,
                size_bytes=info.st_size,
                modified_at=info.st_mtime,
                accessed_at=max(info.st_mtime, accessed_at or 0.0),
                persist=disk.read_or_none(folder / PERSIST) == b"true",
            )

    # -- changing

    async def set_metainfo(self, meta: MetaInfo) -> None:
        """Store metainfo beside its blob, atomically.

        Raises:
            NotFound: there is no such blob. Corrupt: it has another length. OutOfSpace: the disk is full.
        """
        size = self.stat(meta.digest)
        if size is None:
            raise NotFound("blob", meta.digest)
        if size != meta.length:
            raise Corrupt(f"{meta.length} bytes", f"{size} bytes")
        self._metainfos.pop(meta.digest, None)
        await shielded(self._write_side_file(meta.digest, META, meta.to_json()))
        _remember(self._metainfos, meta.digest, meta, _METAINFOS)

    async def commit(
        self,
        source: Path,
        digest: Digest,
        meta: MetaInfo | None,
        *,
        keep_source: bool = False,
        persist: bool = False,
    ) -> None:
        """Take a file whose hash was verified by the caller into the cache: fsync, side files, atomic rename.

        An existing blob of that name is kept and the source dropped. With `keep_source` the file is hard-linked (on
        another file system copied). `persist` marks the blob as waiting for the backend in the same instant as it
        appears.

        Raises:
            OutOfSpace: the disk is full; the source is untouched. Corrupt: the metainfo tells another length.
        """
        await shielded(self._commit(source, digest, meta, keep_source, persist))

    async def _commit(
        self, source: Path, digest: Digest, meta: MetaInfo | None, keep_source: bool, persist: bool
    ) -> None:
        placed = False
        if self.stat(digest) is None:
            stage = self._shards.hidden(digest)
            size = await self._threads.run(self._prepare, stage, source, meta, persist)
            # Twenty equal uploads may have come this far together.
            placed = self.stat(digest) is None and await self._place(digest, stage, size)
            if not placed:
                await self._threads.run(disk.remove_tree, stage)
        if not placed and persist:
            self.set_persist(digest, True)
        # A blob which another caller put in place a moment ago may not be durable yet, hence for both cases:
        await self._threads.run(self._shards.sync, digest)
        if not keep_source:
            await self._threads.run(disk.remove_tree, source)

    def _prepare(self, stage: Path, source: Path, meta: MetaInfo | None, persist: bool) -> int:
        """Make the folder of the blob, durable and out of sight. In a thread."""
        try:
            with disk.space(self.root):
                stage.mkdir()
                disk.link_or_copy(source, stage / DATA)
                size = os.stat(stage / DATA).st_size
                if meta is not None and meta.length != size:
                    raise Corrupt(f"{meta.length} bytes", f"{size} bytes")
                disk.sync_file(stage / DATA)
                if meta is not None:
                    disk.write_new(stage / META, meta.to_json())
                if persist:
                    disk.write_new(stage / PERSIST, b"true")
                disk.sync_folder(stage)
        except FileNotFoundError as error:
            disk.remove_tree(stage)
            raise NotFound("file", source) from error
        except BaseException:
            disk.remove_tree(stage)
            raise
        return size

    async def _place(self, digest: Digest, stage: Path, size: int) -> bool:
        bad = None
        with disk.space(self.root):
            if not self._shards.place(digest, stage):
                # A folder without sound data: side files that outlived their blob, or a blob cut short by a crash.
                bad = self._shards.take_away(digest)
                self._shards.place(digest, stage)
        self._forget(digest)
        if self.committed is not None:
            self.committed(size)
        if bad is not None:
            await self._threads.run(disk.remove_tree, bad)
        return True

    async def delete(self, digest: Digest) -> bool:
        """Remove it. False when it was not here. Who has it open can read on.

        Raises:
            Conflict: it is persisted (not yet in the backend).
        """
        if self.is_persisted(digest):
            raise Conflict(f"blob {digest} is not yet in the backend")
        was_here = self.stat(digest) is not None
        gone = self._shards.take_away(digest)
        self._forget(digest)
        if gone is not None:
            await shielded(self._remove(gone))
        return was_here

    async def evict(self, digest: Digest) -> bool:
        """`delete` for the sweeper: a blob that is in use or not yet in the backend stays. True when it went."""
        if self.is_pinned(digest) or self.is_persisted(digest):
            return False
        return await self.delete(digest)

    def set_persist(self, digest: Digest, value: bool) -> None:
        """Mark as not (or no longer) waiting for the backend.

        Survives a crash of the process, not a loss of power within the next seconds: who needs that gives `persist`
        to `commit`.

        Raises:
            NotFound: there is no such blob.
        """
        folder = self._shards.folder(digest)
        try:
            if value:
                with disk.space(self.root):
                    disk.replace(folder / PERSIST, b"true", self._shards.hidden(digest), durable=False)
            else:
                (folder / PERSIST).unlink(missing_ok=True)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound("blob", digest) from error

    # -- pins

    def pin(self, digest: Digest) -> None:
        """Count one more user: a pinned blob is not evicted."""
        self._pins[digest] = self._pins.get(digest, 0) + 1

    def unpin(self, digest: Digest) -> None:
        """Count one user less."""
        left = self._pins.get(digest, 0) - 1
        if left > 0:
            self._pins[digest] = left
        else:
            self._pins.pop(digest, None)

    def is_pinned(self, digest: Digest) -> bool:
        """Whether anyone uses it."""
        return digest in self._pins

    # -- within

    def _is_sound(self, digest: Digest, size: int) -> bool:
        if self._sizes.get(digest) == size:
            return True
        meta = self.metainfo(digest)
        if meta is not None and meta.length != size:
            if digest not in self._reported:
                self._reported.add(digest)
                self.log.error(
                    "blob {digest} has {size_bytes} bytes instead of {expected_bytes}: treated as absent",
                    digest=str(digest),
                    size_bytes=size,
                    expected_bytes=meta.length,
                )
            return False
        _remember(self._sizes, digest, size, _REMEMBERED)
        return True

    def _forget(self, digest: Digest) -> None:
        self._metainfos.pop(digest, None)
        self._sizes.pop(digest, None)
        self._accesses.pop(digest, None)
        self._reported.discard(digest)

    def _note_access(self, digest: Digest) -> None:
        now = self._threads.now()
        if now - self._accesses.get(digest, 0.0) < ACCESS_RESOLUTION_S:
            return
        _remember(self._accesses, digest, now, _REMEMBERED)
        path = self._shards.folder(digest) / ACCESS
        try:
            disk.replace(path, encode_time(now), self._shards.hidden(digest), durable=False)
        except OSError as error:
            # A disk that is full or read-only must not keep anyone from reading.
            self.log.debug("access of {digest} not noted: {error}", digest=str(digest), error=str(error))

    async def _write_side_file(self, digest: Digest, name: str, data: bytes) -> None:
        path = self._shards.folder(digest) / name
        try:
            with disk.space(self.root):
                await self._threads.run(disk.replace, path, data, self._shards.hidden(digest))
        except FileNotFoundError as error:
            raise NotFound("blob", digest) from error

    async def _remove(self, folder: Path) -> None:
        await self._threads.run(disk.remove_tree, folder)


def _remember(memory: OrderedDict[Digest, Any], digest: Digest, value: Any, bound: int) -> None:
    memory[digest] = value
    memory.move_to_end(digest)
    if len(memory) > bound:
        memory.popitem(last=False)
