"""Which queued piece leaves next: one queue for the whole host, over all torrents.

Few at a time: with four receivers and one line, the first copy is out after a quarter of the time when they are served
one after the other, and can be passed on meanwhile. Never idle: when the receivers at hand cannot take the full rate,
more start beside them, at once, and fewer when they can: while anything waits, the line is looked at every few
milliseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from math import inf
from random import Random

from attrs import define

from krakentx.swarm.config import SwarmConfig
from krakentx.swarm.events import ConnID

_ROOM = 0.95  # of what the line can carry: with less on it there is room for one more
_LOOKS = 16  # at the line, in the time that a piece takes
_LOOK_MIN_S, _LOOK_MAX_S = 0.005, 0.1
_WINDOW = 4  # looks over which a best is taken: what sockets take at once is not what the line carries
_PROBE = 4  # windows until one more is tried, however full the line seems
_SCAN = 64  # connections that are looked at for what was never given
_PASSING = 8  # others who may pass the first in the line for that
_NEXT = 8  # who may pass the first in the line since they are behind
_PASSING_BEHIND = 2  # of them one after the other
_QUICK_S = 1.0  # pieces that take no longer are quick
_FADE_S = 10.0  # in which a best that was not reached again falls to a third


@define
class Pace:
    """How many pieces should leave at once: as few as fill the line.

    What the line can carry is the limit that was set, or the best that it was seen to carry. Now and then one more
    than that asks for is tried: if the line then carries more, it was not full. Pieces that stand still carry
    nothing, so they keep nobody waiting.

    Args:
        allowed: pieces that may leave at once.
        limit: of the host, in bytes per second; None = nobody knows.
    """

    allowed: int
    limit: float | None = None
    _best: float = 0.0
    _windows: int = 0
    _last: tuple[float, int] | None = None  # when we looked, and what had left by then
    _mark: tuple[float, int] = (0.0, 0)  # the same, where the search for a best begins

    def rest(self) -> None:
        """Nothing waits: what leaves meanwhile says nothing of the line."""
        self._last = None

    def look(self, sent: int, active: int, now: float, every_s: float, least: int, most: int) -> None:
        """See what has left.

        Args:
            sent: bytes of pieces that left since the process began.
            active: pieces that are leaving.
            every_s: how long a look should take; nothing is concluded from a much shorter one.
            least: pieces that may always leave at once.
            most: pieces that may never.
        """
        if self._last is None:
            self._last = self._mark = now, sent
            return
        since, before = self._last
        if now - since < 0.9 * every_s:
            return
        self._last = now, sent
        if (sent - before) / (now - since) < _ROOM * (self.limit or self._best):
            change = 1
        elif self.limit:
            change = -1
        elif now - self._mark[0] < _WINDOW * every_s:
            return
        else:
            self._windows += 1
            change = -1 if self._windows % _PROBE else 1
        self._remember(sent, now, _WINDOW * every_s)
        self.allowed = min(max(least, active + change), most)

    def _remember(self, sent: int, now: float, least_s: float) -> None:
        since, before = self._mark
        if (took := now - since) >= least_s:
            self._mark = now, sent
            self._best = max((sent - before) / took, self._best * (1 - min(1.0, took / _FADE_S)))


class Uploads:
    """Round robin over connections; one that had nothing waiting joins at a place by chance.

    If it joined at the end, all origins would serve the first hosts of a rollout first, whose lines are full then, and
    be idle in part while the others wait.
    """

    def __init__(self, config: SwarmConfig, rng: Random, behind: Callable[[ConnID, ConnID, float], bool]) -> None:
        self.look_at = inf
        """When `start` may find something to do: at once after a change, else when the line is to be looked at."""
        self._rng = rng
        self._behind = behind  # the first gets less than the second, at this time
        self._waiting: dict[ConnID, deque[int]] = {}  # none of them empty
        # One piece per connection at a time: what stands behind another piece of the same socket would leave no
        # earlier, and could not be cancelled any more.
        self._leaving: dict[ConnID, tuple[int, float]] = {}  # piece, since when
        self._given: dict[ConnID, set[int]] = {}  # of those that a seed gives to: the pieces that it gave to anybody
        self._passed = 0  # how many passed the first in the line
        self._turn: deque[ConnID] = deque()  # connections with something waiting and nothing leaving, each once
        self._mean_s = 0.0  # how long a piece takes, lately
        self._every_s = _LOOK_MIN_S  # while something waits, the line is looked at so often
        self.pace = Pace(config.upload.slots)
        self.configure(config)

    def configure(self, config: SwarmConfig) -> None:
        """Go on with other settings."""
        self.config = config.upload
        self.look_at = -inf
        self.pace.limit = config.conn.bandwidth.egress_bytes_s

    def __len__(self) -> int:
        """Pieces waiting or leaving."""
        return sum(map(len, self._waiting.values())) + len(self._leaving)

    @property
    def active(self) -> int:
        """Pieces that leave at this moment."""
        return len(self._leaving)

    @property
    def waiting(self) -> bool:
        """Something waits for a slot."""
        return bool(self._turn)

    def look(self, sent: int, now: float) -> None:
        """Time has passed, and so many bytes of pieces have left since the process began."""
        if self._turn:
            self.pace.look(sent, len(self._leaving), now, self._every_s, self.config.slots, self._most())
            self.look_at = -inf

    def _most(self) -> int:
        """How many may leave at once at the very most.

        Where all lines are full, a giver finds room only with receivers who have some left: the more it gives at once,
        the more of those are among them. What a seed adds there is one more copy of what others give already, and on
        thin lines every piece would be there, and be passed on, only when all are.
        """
        quick = 0 < self._mean_s < _QUICK_S
        return self.config.max_quick_slots if quick and not self._given else self.config.max_slots

    def busy(self, conn: ConnID) -> bool:
        """Something waits or leaves for this connection."""
        return conn in self._leaving or conn in self._waiting

    def stuck_since(self, conn: ConnID) -> float | None:
        """Since when the piece of this connection has been leaving; None when none is."""
        leaving = self._leaving.get(conn)
        return leaving and leaving[1]

    def add(self, conn: ConnID, piece: int, given: set[int] | None = None) -> bool:
        """Queue a piece.

        Args:
            given: of a blob that is all here, the pieces that were given to anybody; kept up to date from now on.

        Returns:
            False when too many wait already; a piece that is queued anyway is not queued twice.
        """
        if given is not None:
            self._given[conn] = given
        waiting = self._waiting.get(conn)
        leaving = self._leaving.get(conn)
        if leaving is not None and leaving[0] == piece:
            return True
        if waiting is None:
            self._waiting[conn] = deque((piece,))
            if leaving is None:
                self._turn.insert(int(self._rng.random() * (len(self._turn) + 1)), conn)
                self.look_at = -inf
        elif piece not in waiting:
            if len(waiting) >= self.config.max_queued:
                return False
            waiting.append(piece)
        return True

    def cancel(self, conn: ConnID, piece: int) -> bool:
        """Drop a piece that waits. False when it does not (any more)."""
        waiting = self._waiting.get(conn)
        if waiting is None or piece not in waiting:
            return False
        waiting.remove(piece)
        if not waiting:
            self._no_more(conn)
        return True

    def retract(self, conn: ConnID, pieces: int) -> list[int] | None:
        """Drop those of a mask that wait for a connection; returns them. None when one of the mask is leaving."""
        leaving = self._leaving.get(conn)
        if leaving is not None and pieces >> leaving[0] & 1:
            return None
        dropped = [piece for piece in self._waiting.get(conn, ()) if pieces >> piece & 1]
        for piece in dropped:
            self.cancel(conn, piece)
        return dropped

    def drop(self, conn: ConnID) -> None:
        """The connection is gone."""
        if conn in self._waiting:
            self._no_more(conn)
        self._leaving.pop(conn, None)
        self._given.pop(conn, None)
        self.look_at = -inf

    def _no_more(self, conn: ConnID) -> None:
        del self._waiting[conn]
        if conn not in self._leaving:
            self._turn.remove(conn)

    def began(self, conn: ConnID, piece: int, now: float) -> None:
        """The first byte left: only from now on can one say that it takes long."""
        if self._leaving.get(conn, (None,))[0] == piece:
            self._leaving[conn] = (piece, now)

    def sent(self, conn: ConnID, piece: int, now: float) -> None:
        """The last byte left."""
        leaving = self._leaving.get(conn)
        if leaving is None or leaving[0] != piece:
            return
        del self._leaving[conn]
        self.look_at = -inf
        if conn in self._waiting:
            self._turn.append(conn)
        took = now - leaving[1]
        self._mean_s = took if not self._mean_s else 0.8 * self._mean_s + 0.2 * took
        self._every_s = min(max(_LOOK_MIN_S, self._mean_s / _LOOKS), _LOOK_MAX_S)

    def start(self, now: float) -> list[tuple[ConnID, int]]:
        """Take what may leave now."""
        started: list[tuple[ConnID, int]] = []
        turn, leaving = self._turn, self._leaving
        while turn and len(leaving) < self.pace.allowed:
            conn, piece = self._next(now)
            turn.remove(conn)
            waiting = self._waiting[conn]
            waiting.remove(piece)
            if not waiting:
                del self._waiting[conn]
            leaving[conn] = (piece, now)
            started.append((conn, piece))
        if turn:
            self.look_at = now + self._every_s
        else:
            self.look_at = inf
            self.pace.rest()
        return started

    def _next(self, now: float) -> tuple[ConnID, int]:
        """Who is served next, and with what."""
        first = self._turn[0]
        conn, piece = self._choose(first, now)
        self._passed = 0 if conn == first else self._passed + 1
        if (given := self._given.get(conn)) is not None:
            given.add(piece)
        return conn, piece

    def _choose(self, first: ConnID, now: float) -> tuple[ConnID, int]:
        """The first in the line, or one that may pass it, so many times.

        A seed first gives what it never gave: only it has that, and any other piece would be a second copy. Others
        first give to whom the whole swarm gives less: with the same to everybody, whoever has few peers ends last.
        """
        given = self._given.get(first)
        if given is not None:
            fresh = self._fresh(given) if self._passed < _PASSING else None
            return fresh or (first, self._waiting[first][0])
        others = islice(self._turn, 1, 1 + _NEXT) if self._passed < _PASSING_BEHIND else ()
        conn = first
        for other in others:
            if self._behind(other, conn, now):
                conn = other
        return conn, self._waiting[conn][0]

    def _fresh(self, given: set[int]) -> tuple[ConnID, int] | None:
        """The first in the line who waits for a piece of this torrent that was never given."""
        for conn in islice(self._turn, _SCAN):
            if self._given.get(conn) is given:
                for piece in self._waiting[conn]:
                    if piece not in given:
                        return conn, piece
        return None
