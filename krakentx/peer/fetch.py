"""Pieces over HTTP: what a fallback source sends goes straight to its place in the file, summed on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from krakentx.core.errors import Corrupt, KrakenError, NotFound, Unavailable
from krakentx.peer.interfaces import IFallback
from krakentx.peer.rates import Gate, Toll
from krakentx.peer.torrents import Torrent
from krakentx.peer.transfers import write_fully
from krakentx.swarm.events import FetchProblem

GRACE_S = 2.0
"""The source ends a stalled fetch by itself; should it not, we do so this much later."""


class StorageError(Exception):
    """The disk refused bytes of a fetch.

    Args:
        error: what it said.
    """

    def __init__(self, error: OSError) -> None:
        self.error = error
        super().__init__(str(error))


def runs(pieces: Sequence[int]) -> Iterator[range]:
    """Ascending indices as runs without a gap."""
    start = 0
    for at in range(1, len(pieces) + 1):
        if at == len(pieces) or pieces[at] != pieces[at - 1] + 1:
            yield range(pieces[start], pieces[at - 1] + 1)
            start = at


class PieceWriter:
    """Takes the bytes of a run of pieces in order.

    Args:
        toll: what comes pays there.
        on_piece: a piece is on disk and its sum matches.
    """

    def __init__(
        self, torrent: Torrent, run: range, clock: IReactorTime, toll: Toll, on_piece: Callable[[int], None]
    ) -> None:
        self._torrent = torrent
        self._clock = clock
        self._toll = toll
        self._on_piece = on_piece
        self._left = list(reversed(run))
        self._passed = torrent.meta.new_sum()
        self._filled = 0
        self.problem: Exception | None = None
        self._heard_at = clock.seconds()

    @property
    def done(self) -> bool:
        """Every piece came."""
        return not self._left

    def stop(self) -> None:
        """The fetch is over: another may write these pieces now, bytes that come late must not."""
        self.problem = self.problem or Unavailable("the source", "sent bytes after the fetch was over")
        self._toll.stop()

    @property
    def heard_at(self) -> float:
        """When the source last sent something, or was not free to."""
        return self._clock.seconds() if self._toll.waiting else self._heard_at

    def receive(self, data: bytes) -> Awaitable[None] | None:
        """The next bytes; when it returns an awaitable, more of them may come once that is done.

        Raises what makes the fetch pointless, also when called again.
        """
        if self.problem is None:
            try:
                self._take(memoryview(data))
            except OSError as error:
                self.problem = StorageError(error)
            except KrakenError as error:
                self.problem = error
        if self.problem is not None:
            raise self.problem
        paid = self._toll.pay(len(data))
        return paid and paid.addCallback(self._free_again)

    def _free_again(self, _paid: None) -> None:
        self._heard_at = self._clock.seconds()

    def _take(self, view: memoryview) -> None:
        self._heard_at = self._clock.seconds()
        meta = self._torrent.meta
        while view and self._left:
            if self._torrent.closing:
                raise Unavailable("the swarm", "the download was put away")
            piece = self._left[-1]
            part = view[: meta.piece_size(piece) - self._filled]
            self._passed.update(part)
            write_fully(self._torrent.fileno(), part, meta.offset(piece) + self._filled)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == meta.piece_size(piece):
                if not meta.fits(piece, self._passed):
                    raise Corrupt(f"that of piece {piece}", self._passed)
                self._left.pop()
                self._passed, self._filled = meta.new_sum(), 0
                self._on_piece(piece)


async def fetch_pieces(
    fallback: IFallback,
    torrent: Torrent,
    pieces: Sequence[int],
    stall_s: float,
    clock: IReactorTime,
    ingress: Gate,
    on_piece: Callable[[int], None],
) -> FetchProblem | None:
    """Get pieces from the fallback sources.

    Args:
        ingress: what comes passes there, as what peers give.

    Returns:
        None when all came.

    Raises:
        StorageError: the disk refused.
    """
    log = Logger()
    for run in runs(pieces):
        writer = PieceWriter(torrent, run, clock, Toll(ingress, torrent.info_hash), on_piece)
        try:
            await _fetch_run(fallback, torrent, run, stall_s, clock, writer)
            error = writer.problem
        except (KrakenError, StorageError) as raised:
            error = writer.problem or raised
        except Exception:
            # What we raised into the source's hands may come out as anything.
            if writer.problem is None:
                raise
            error = writer.problem
        finally:
            writer.stop()
        if isinstance(error, StorageError):
            raise error
        if error is None and not writer.done:
            error = Unavailable("the source", "sent less than was asked for")
        if error is not None:
            log.warn(
                "pieces {first}-{last} of {digest} did not come over HTTP: {error}",
                first=run.start,
                last=run.stop - 1,
                digest=str(torrent.digest),
                error=str(error),
            )
            if isinstance(error, Corrupt):
                return FetchProblem.CORRUPT
            if isinstance(error, NotFound):
                torrent.trouble = error
                return FetchProblem.NOT_FOUND
            return FetchProblem.UNAVAILABLE
    return None


async def _fetch_run(
    fallback: IFallback, torrent: Torrent, run: range, stall_s: float, clock: IReactorTime, writer: PieceWriter
) -> None:
    meta = torrent.meta
    start = meta.offset(run.start)
    stop = min(meta.length, meta.offset(run.stop))
    work = fallback.fetch(torrent.namespace, torrent.digest, start, stop, writer.receive, stall_s)
    watchdog = _Watchdog(Deferred.fromCoroutine(work), writer, stall_s + GRACE_S, clock)
    try:
        await watchdog.fetching
    except CancelledError:
        if watchdog.barked:
            raise Unavailable("the source", f"sent nothing for {stall_s:.0f} s") from None
        raise
    finally:
        watchdog.stop()


class _Watchdog:
    """Cancels a fetch in which nothing happens for `patience_s`."""

    def __init__(self, fetching: Deferred[None], writer: PieceWriter, patience_s: float, clock: IReactorTime) -> None:
        self.fetching = fetching
        self.barked = False
        self._writer = writer
        self._patience_s = patience_s
        self._clock = clock
        self._timer = clock.callLater(patience_s, self._look)

    def _look(self) -> None:
        left = self._writer.heard_at + self._patience_s - self._clock.seconds()
        if left > 0 and self._writer.problem is None:
            self._timer = self._clock.callLater(left, self._look)
        else:
            self.barked = True
            self.fetching.cancel()

    def stop(self) -> None:
        """The fetch is over."""
        if self._timer.active():
            self._timer.cancel()
