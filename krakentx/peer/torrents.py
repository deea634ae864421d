"""Torrent: what the executor holds of one blob - its file, which pieces may be read, and who waits for them."""

from __future__ import annotations

import errno
from typing import Protocol

from twisted.internet.defer import Deferred, succeed

from krakentx.core.bitfield import Bitfield
from krakentx.core.digest import Digest
from krakentx.core.errors import Corrupt, KrakenError, NotFound, OutOfSpace, Unavailable
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import InfoHash
from krakentx.storage.interfaces import IPartialBlob
from krakentx.storage.threads import Shared

HOLD_BACK_BYTES = 64 << 10
"""The end of a blob that nobody gets before the whole has passed its hash."""


class IFile(Protocol):
    """An open blob, whole or partial."""

    def fileno(self) -> int:
        """The open file."""

    def close(self) -> None:
        """Close it."""


class Torrent:
    """One blob of the swarm.

    The file stays open while transfers use it, also after `close`: its number must not be given to another file while
    a transport is still reading or writing under that number.

    Args:
        partial: the blob is arriving; None when `file` is a blob of the cache.
        now: monotonic seconds.
    """

    def __init__(self, meta: MetaInfo, namespace: str, file: IFile, partial: IPartialBlob | None, now: float) -> None:
        self.meta = meta
        self.namespace = namespace
        self.partial = partial
        self.wanted = False
        self.verified = self.committed = partial is None
        self.verifying = False
        self.added_at = now
        self.progress_at = now
        self.bytes_by_source = {"peer": 0, "origin": 0, "http": 0}
        self.trouble: KrakenError | None = None  # what went wrong lately; tells why, should the download fail
        self.error: KrakenError | None = None  # it has failed
        self.lies: list[Corrupt] = []  # one for each time that all of it was here and did not hash to its name
        self._file = file
        self._moving: Shared[None] | None = None  # into the cache
        self._users = 0
        self._closing = False
        self._waiting: dict[int, list[Deferred[None]]] = {}
        self._waiting_whole: list[Deferred[None]] = []
        self._waiting_commit: list[Deferred[None]] = []
        self._ready = bytearray(meta.piece_count)
        for piece in self.have:
            self._ready[piece] = 1

    @property
    def digest(self) -> Digest:
        """The blob's name."""
        return self.meta.digest

    @property
    def info_hash(self) -> InfoHash:
        """The torrent's name."""
        return self.meta.info_hash

    @property
    def have(self) -> Bitfield:
        """Pieces whose sum matched."""
        return Bitfield.full(self.meta.piece_count) if self.partial is None else self.partial.have

    # --- the file

    def fileno(self) -> int:
        """The file, for reading and (of a partial blob) writing."""
        return self._file.fileno()

    def hold(self) -> None:
        """A transfer begins to use the file."""
        self._users += 1

    def release(self) -> None:
        """A transfer has ended."""
        self._users -= 1
        self._close_if_idle()

    def close(self) -> None:
        """Close the file when the last transfer has ended. What is on disk stays."""
        self._closing = True
        self._close_if_idle()

    @property
    def closing(self) -> bool:
        """Nothing new may use the file."""
        return self._closing

    def _close_if_idle(self) -> None:
        if self._closing and self._users == 0:
            self._users = -1  # closed: once is enough
            self._file.close()

    async def commit(self) -> None:
        """Move the verified blob into the cache. Raises as `IPartialBlob.commit`."""
        assert self.partial is not None
        self._moving = Shared(self.partial.commit())
        await self._moving.wait()

    async def settled(self) -> None:
        """Wait for the end of a move into the cache, whatever came of it: who deletes before that deletes nothing."""
        if self._moving is not None:
            try:
                await self._moving.wait()
            except (OSError, KrakenError):
                pass  # told where the move began

    # --- what may be read

    def released(self, offset: int, stop: int) -> int:
        """End of the run of bytes from `offset` that may be read now, at most `stop`; `offset` when none may."""
        if self.verified:
            return max(offset, stop)
        missing = self._ready.find(0, offset // self.meta.piece_length)
        end = self.meta.length if missing < 0 else self.meta.offset(missing)
        return max(offset, min(end, stop, self.meta.length - HOLD_BACK_BYTES))

    def changed(self, offset: int) -> Deferred[None]:
        """Fires when `released(offset, ...)` may have grown.

        Fails with what ended the download.
        """
        piece = offset // self.meta.piece_length
        missing = piece < len(self._ready) and not self._ready[piece]
        return _waiter(self._waiting.setdefault(piece, []) if missing else self._waiting_whole)

    def in_cache(self) -> Deferred[None]:
        """Fires when the blob is in the cache. Fails with what ended the download."""
        return succeed(None) if self.committed else _waiter(self._waiting_commit)

    def piece_ready(self, piece: int, source: str, now: float) -> None:
        """A piece's sum matched."""
        self.progress_at = now
        self.trouble = None
        self.bytes_by_source[source] += self.meta.piece_size(piece)
        self._ready[piece] = 1
        if self.partial is not None:
            self.partial.mark(piece)
        _fire(self._waiting.pop(piece, []))

    def set_verified(self, now: float) -> None:
        """The whole blob hashes to its name."""
        self.progress_at = now
        self.verified = True
        waiters, self._waiting_whole = self._waiting_whole, []
        _fire(waiters)

    def set_committed(self) -> None:
        """The blob is in the cache."""
        self.committed = True
        waiters, self._waiting_commit = self._waiting_commit, []
        _fire(waiters)

    def corrupted(self, error: Corrupt) -> None:
        """The whole does not hash to its name: who has read some of it must stop, and nobody reads until `drop_pieces`.

        What is wrong will come again, so who only waits for the end goes on waiting.
        """
        self._ready = bytearray(self.meta.piece_count)
        self.trouble = error
        self.lies.append(error)
        self._fail_readers(error)

    def learn(self, meta: MetaInfo) -> None:
        """Take over strong sums. Raises: Unavailable: they are of another torrent, or there are none."""
        assert self.partial is not None
        if meta.info_hash != self.info_hash or not meta.strong_sums:
            raise Unavailable("the origin", "knows no strong sums of this torrent")
        self.meta = self.partial.meta = meta

    def drop_pieces(self, pieces: Bitfield) -> None:
        """Some pieces are wrong: they will come again. The others may be read, also by who came meanwhile and waits."""
        assert self.partial is not None
        self.partial.forget(pieces)
        for piece in self.have:
            self._ready[piece] = 1
            _fire(self._waiting.pop(piece, []))

    def failed(self, error: KrakenError) -> None:
        """The download has ended without the blob."""
        self.error = error
        self._fail_readers(error)
        waiters, self._waiting_commit = self._waiting_commit, []
        _fail(waiters, error)

    def _fail_readers(self, error: KrakenError) -> None:
        waiters = [*self._waiting_whole, *(each for waiting in self._waiting.values() for each in waiting)]
        self._waiting_whole = []
        self._waiting = {}
        _fail(waiters, error)

    # --- errors

    def storage_trouble(self, error: OSError | KrakenError) -> str:
        """Remember what the disk said; returns it in words."""
        if isinstance(error, KrakenError):
            self.trouble = error
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            self.trouble = OutOfSpace("the download folder")
        else:
            self.trouble = Unavailable("the disk", str(error), status=None)
        return str(self.trouble)

    def error_of(self, reason: str) -> KrakenError:
        """The error that a waiting client gets when the download ends for `reason`."""
        if isinstance(self.trouble, (OutOfSpace, Corrupt, NotFound)):
            return self.trouble
        return self.trouble or Unavailable("the swarm", reason)


def _waiter(waiting: list[Deferred[None]]) -> Deferred[None]:
    """One more who waits. Who gives up leaves no trace, however often clients come and go while nothing arrives."""
    waiter: Deferred[None] = Deferred(waiting.remove)
    waiting.append(waiter)
    return waiter


def _fire(waiters: list[Deferred[None]]) -> None:
    for waiter in list(waiters):
        if not waiter.called:  # else it was cancelled by what an earlier one did: its reader has gone
            waiter.callback(None)


def _fail(waiters: list[Deferred[None]], error: KrakenError) -> None:
    for waiter in list(waiters):
        if not waiter.called:
            waiter.errback(error)
