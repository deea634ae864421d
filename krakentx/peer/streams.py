"""ArrivingBlob: an `IBlobReader` over a blob that the swarm is bringing."""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.defer import TimeoutError
from twisted.internet.interfaces import IReactorTime

from krakentx.core.errors import NotFound, Unavailable
from krakentx.peer.torrents import Torrent
from krakentx.swarm.events import Event, ReaderGone, ReaderID, ReaderWants


class ArrivingBlob:
    """Lets bytes be read as soon as their piece is verified, the last ones when the whole is.

    Where the reader stands is told to the Engine, which lets the pieces in front of it come first. Closing tells the
    Engine too, and nothing else: the download goes on, for the next one who asks.

    Args:
        stall_s: seconds without any progress of the download after which waiting ends with an error.
    """

    def __init__(
        self, torrent: Torrent, reader: ReaderID, feed: Callable[[Event], None], clock: IReactorTime, stall_s: float
    ) -> None:
        self.digest = torrent.digest
        self.size = torrent.meta.length
        self._torrent = torrent
        self._reader = reader
        self._feed = feed
        self._clock = clock
        self._stall_s = stall_s
        self._wants: range | None = None
        self._lies = len(torrent.lies)
        # A descriptor of its own: a client may read on long after the torrent was put away.
        self._fd: int | None = os.dup(torrent.fileno())

    def fileno(self) -> int:
        """The file, readable from each offset that `wait` has released."""
        if self._fd is None:
            raise NotFound("blob", self.digest)
        return self._fd

    async def wait(self, offset: int, stop: int) -> int:
        """See `IBlobReader`."""
        stop = min(stop, self.size)
        while True:
            if self._fd is None:
                raise NotFound("blob", self.digest)
            if len(self._torrent.lies) > self._lies:
                raise self._torrent.lies[-1]  # some of what we let through may have been forged
            end = self._torrent.released(offset, stop)
            self._tell(offset, stop)
            if end > offset or offset >= stop:
                return end
            if self._torrent.error is not None:
                raise self._torrent.error
            try:
                await self._torrent.changed(offset).addTimeout(self._stall_s, self._clock)
            except TimeoutError as error:
                self._check_stalled(error)

    def _tell(self, offset: int, stop: int) -> None:
        wants = self._torrent.meta.pieces_of(offset, stop)
        if wants != self._wants and not self._torrent.verified and self._torrent.error is None:
            self._wants = wants
            self._feed(ReaderWants(self._torrent.info_hash, self._reader, wants.start, wants.stop))

    def _check_stalled(self, error: TimeoutError) -> None:
        idle_s = self._clock.seconds() - self._torrent.progress_at
        if idle_s >= self._stall_s and not self._torrent.verifying:
            problem = self._torrent.error_of(f"nothing of {self.digest} came for {idle_s:.0f} s")
            raise Unavailable("the swarm", str(problem)) from error

    def close(self) -> None:
        """See `IBlobReader`."""
        if self._fd is None:
            return
        os.close(self._fd)
        self._fd = None
        if self._wants is not None:
            self._feed(ReaderGone(self._torrent.info_hash, self._reader))
