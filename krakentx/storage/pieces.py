"""The download folder: blobs that are arriving.

A partial blob is a sparse file of full length, one status byte for each piece that was verified, and the metainfo.
After a crash the status bytes tell which pieces are worth a look; what is believed is only what matches its sum again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from krakentx.core.bitfield import Bitfield
from krakentx.core.digest import Digest
from krakentx.core.errors import Conflict, Corrupt, InvalidInput, OutOfSpace
from krakentx.core.metainfo import MetaInfo
from krakentx.storage import disk
from krakentx.storage.files import BlobStore
from krakentx.storage.hashing import CHUNK, SLICE, PrefixHasher
from krakentx.storage.interfaces import BlobRecord
from krakentx.storage.layout import DATA, META, STATUS, Shards
from krakentx.storage.threads import Shared, Threads, shielded

_HAVE = b"\1"


@frozen
class _Opened:
    data_fd: int
    status_fd: int
    have: Bitfield


class PartialBlob:
    """See `interfaces.IPartialBlob`.

    While pieces are marked, a thread hashes the contiguous beginning. A piece that was marked must therefore never be
    written again, and two writers must never write one piece at the same time: the sum is of what was received, the
    hash is of what the file holds.
    """

    log = Logger()

    def __init__(self, meta: MetaInfo, opened: _Opened, store: PartialStore) -> None:
        self.meta = meta
        self.have = opened.have
        self._data_fd = opened.data_fd
        self._status_fd = opened.status_fd
        self._store = store
        self._hasher = store.hasher(opened.data_fd, meta.digest)
        self._prefix = 0  # pieces
        self._closed = False
        self.closing: Shared[None] | None = None
        """Set by `close`; done when the file is closed."""
        self._verifying: Shared[None] | None = None
        self._extend_prefix()

    def fileno(self) -> int:
        """The open file, readable and writable at any offset; stays valid after `commit` until `close`."""
        return self._data_fd

    def mark(self, piece: int) -> None:
        """Remember a piece whose sum matched. The status byte is written after the bytes."""
        if not 0 <= piece < self.meta.piece_count:
            raise InvalidInput("piece", f"{piece} of {self.meta.piece_count}")
        if piece in self.have or self._closed:
            return
        try:
            os.pwrite(self._status_fd, _HAVE, piece)
        except OSError as error:
            # Only a restart would miss the mark, and then fetches the piece again.
            self.log.warn(
                "piece {piece} of {digest} not marked on disk: {error}",
                piece=piece,
                digest=str(self.meta.digest),
                error=str(error),
            )
        self.have = self.have.with_(piece)
        self._extend_prefix()

    def _extend_prefix(self) -> None:
        while self._prefix in self.have:
            self._prefix += 1
        self._hasher.extend(min(self.meta.length, self.meta.offset(self._prefix)))

    async def verify(self) -> None:
        """Hash the whole in a thread. Readers may have the last bytes when this returned, before `commit` is through.

        Raises:
            Corrupt: it does not hash to its name; `forget` what is wrong.
            Conflict: pieces are missing, or it was closed meanwhile.
        """
        if not self.have.complete or self._closed:
            raise Conflict(f"blob {self.meta.digest} is closed or has {len(self.have)}/{self.have.size} pieces")
        if self._verifying is None or self._verifying.done:
            self._verifying = Shared(self._verify())
        await self._verifying.wait()

    async def _verify(self) -> None:
        got = await self._hasher.digest(self.meta.length)
        if self._closed:
            raise Conflict(f"blob {self.meta.digest} was closed")
        if got != self.meta.digest:
            raise Corrupt(self.meta.digest, got)

    async def commit(self) -> None:
        """Hash the whole in a thread, then move it into the cache with its metainfo.

        Raises:
            Corrupt, Conflict: as `verify`. OutOfSpace: the disk is full; it can be tried again.
            NotFound: it was deleted meanwhile.
        """
        await self.verify()
        await self._store.take(self.meta)

    async def misfits(self) -> Bitfield:
        """Sum every piece in a thread, as it lies in the file: those that do not match, or are not here.

        Raises:
            Conflict: it was closed meanwhile.
        """
        if self._closed:
            raise Conflict(f"blob {self.meta.digest} was closed")
        # A descriptor of its own: neither `close` nor who cancels us waits for the threads.
        wrong = await shielded(self._misfits(os.dup(self._data_fd)))
        return Bitfield.of(self.meta.piece_count, wrong)

    async def _misfits(self, fd: int) -> list[int]:
        wrong = [piece for piece in range(self.meta.piece_count) if piece not in self.have]
        step = max(1, SLICE // self.meta.piece_length)
        here = list(self.have)
        try:
            for at in range(0, len(here), step):
                wrong += await self._store.misfits(fd, self.meta, here[at : at + step])
        finally:
            os.close(fd)
        return wrong

    def forget(self, pieces: Bitfield) -> None:
        """The inverse of `mark`, for pieces that are to be written again; nothing may be hashing the file."""
        self.have = Bitfield(self.have.size, self.have.mask & ~pieces.mask)
        if self._closed:
            return
        disk.write_at(self._status_fd, _status(self.have), 0)
        self._prefix = 0
        self._hasher = self._store.hasher(self._data_fd, self.meta.digest)
        self._extend_prefix()

    def close(self) -> None:
        """Close the file. What is on disk stays and can be resumed. May be called twice."""
        if self._closed:
            return
        self._closed = True
        os.close(self._status_fd)
        self.closing = Shared(self._close_data())

    async def _close_data(self) -> None:
        busy = self._hasher.stop()
        try:
            if busy is not None:
                # A thread reads the file: its number must not be given to another file under it.
                await busy
        finally:
            os.close(self._data_fd)
            self._store.closed(self)


class PartialStore:
    """See `interfaces.IPartialStore`. One process, one object for a root."""

    log = Logger()

    def __init__(self, root: Path, cache: BlobStore, *, reactor: Any, pool: ThreadPool) -> None:
        self.root = Path(root)
        self._cache = cache
        self._threads = Threads(reactor, pool)
        self._shards = Shards(self.root)
        self._open: dict[Digest, PartialBlob | None] = {}
        self._shards.sweep()
        for digest, folder in list(self._shards):
            if cache.stat(digest) is not None:
                # A crash came between the move into the cache and the removal here.
                disk.remove_tree(folder)

    async def open(self, meta: MetaInfo) -> PartialBlob:
        """Create, or resume: pieces with a status byte are read and checked again against their sums.

        Raises:
            OutOfSpace: less is free than what is missing. Conflict: it is open already.
        """
        known = self._open.get(meta.digest)
        if known is not None and known.closing is not None:
            await known.closing.wait()
        if meta.digest in self._open:
            raise Conflict(f"blob {meta.digest} is already being downloaded")
        self._open[meta.digest] = None
        opening = Shared(self._begin(meta))
        try:
            return await opening.wait()
        except CancelledError:
            opening.wait().addCallbacks(PartialBlob.close, lambda _failure: None)
            raise

    async def _begin(self, meta: MetaInfo) -> PartialBlob:
        try:
            opened = await self._threads.run(self._load, meta)
        except BaseException:
            del self._open[meta.digest]
            raise
        blob = PartialBlob(meta, opened, self)
        self._open[meta.digest] = blob
        return blob

    def find(self, digest: Digest) -> MetaInfo | None:
        """The metainfo of a partial blob on disk, or None."""
        data = disk.read_or_none(self._shards.folder(digest) / META)
        try:
            meta = MetaInfo.from_json(data) if data is not None else None
        except InvalidInput:
            return None
        return meta if meta is not None and meta.digest == digest else None

    async def delete(self, digest: Digest) -> bool:
        """Drop the partial blob. False when there was none. Who has it open keeps the bytes, but cannot commit."""
        gone = self._shards.take_away(digest)
        if gone is not None:
            await shielded(self._remove(gone))
        return gone is not None

    async def evict(self, digest: Digest) -> bool:
        """`delete` for the sweeper: what is arriving stays. True when it went."""
        return digest not in self._open and await self.delete(digest)

    def is_pinned(self, digest: Digest) -> bool:
        """Whether it is arriving now."""
        return digest in self._open

    def records(self) -> Iterator[BlobRecord]:
        """All partial blobs, with the bytes that they take now; call it in a thread."""
        for digest, folder in self._shards:
            try:
                info = os.stat(folder / DATA)
            except (FileNotFoundError, NotADirectoryError):
                continue
            yield BlobRecord(digest, info.st_blocks * 512, info.st_mtime, info.st_mtime, persist=False)

    # -- for PartialBlob

    def hasher(self, fd: int, digest: Digest) -> PrefixHasher:
        """A new hasher for an open file."""
        return PrefixHasher(fd, digest.algorithm, self._threads)

    def misfits(self, fd: int, meta: MetaInfo, pieces: Sequence[int]) -> Deferred[list[int]]:
        """Those of some pieces that do not match their sums."""
        return self._threads.run(lambda: [piece for piece in pieces if not piece_fits(fd, meta, piece)])

    async def take(self, meta: MetaInfo) -> None:
        """Move a verified blob into the cache, and remove its folder here."""
        await self._cache.commit(self._shards.folder(meta.digest) / DATA, meta.digest, meta)
        await self.delete(meta.digest)

    def closed(self, blob: PartialBlob) -> None:
        """It may be opened again."""
        self._open.pop(blob.meta.digest, None)

    async def _remove(self, folder: Path) -> None:
        await self._threads.run(disk.remove_tree, folder)

    # -- in a thread

    def _load(self, meta: MetaInfo) -> _Opened:
        folder = self._shards.folder(meta.digest)
        stored = self.find(meta.digest)
        if stored is None or stored.info_hash != meta.info_hash:
            # Another cut of the same blob: its status bytes would speak of other pieces.
            disk.remove_tree(folder)
        with disk.space(self.root):
            folder.mkdir(parents=True, exist_ok=True)
            data_fd = os.open(folder / DATA, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                status_fd = os.open(folder / STATUS, os.O_RDWR | os.O_CREAT, 0o664)
                try:
                    return self._resume(meta, folder, data_fd, status_fd)
                except BaseException:
                    os.close(status_fd)
                    raise
            except BaseException:
                os.close(data_fd)
                raise

    def _resume(self, meta: MetaInfo, folder: Path, data_fd: int, status_fd: int) -> _Opened:
        status = os.pread(status_fd, meta.piece_count + 1, 0)
        if os.fstat(data_fd).st_size != meta.length:
            os.ftruncate(data_fd, meta.length)
        claimed = [i for i, byte in enumerate(status) if byte == _HAVE[0]] if len(status) == meta.piece_count else []
        pieces = [i for i in claimed if piece_fits(data_fd, meta, i)]
        if len(pieces) < len(claimed):
            self.log.warn(
                "{count} pieces of {digest} on disk do not match their sums",
                count=len(claimed) - len(pieces),
                digest=str(meta.digest),
            )
        have = Bitfield.of(meta.piece_count, pieces)
        clean = _status(have)
        if clean != status:
            os.ftruncate(status_fd, 0)
            disk.write_at(status_fd, clean, 0)
        missing = meta.length - sum(meta.piece_size(i) for i in pieces)
        free = os.statvfs(folder)
        if free.f_bavail * free.f_frsize < missing:
            if not pieces:
                disk.remove_tree(folder)
            raise OutOfSpace(self.root)
        if not (folder / META).exists():
            disk.replace(folder / META, meta.to_json(), self._shards.hidden(meta.digest), durable=False)
        return _Opened(data_fd, status_fd, have)


def _status(have: Bitfield) -> bytes:
    """A byte for each piece."""
    status = bytearray(have.size)
    for piece in have:
        status[piece] = _HAVE[0]
    return bytes(status)


def piece_fits(fd: int, meta: MetaInfo, piece: int) -> bool:
    """Whether a piece as it lies in the file matches its sums. Blocks."""
    offset, left, passed = meta.offset(piece), meta.piece_size(piece), meta.new_sum()
    buffer = memoryview(bytearray(min(CHUNK, left)))
    while left:
        count = os.preadv(fd, [buffer[:left]], offset)
        if not count:
            break
        passed.update(buffer[:count])
        offset += count
        left -= count
    return meta.fits(piece, passed)
