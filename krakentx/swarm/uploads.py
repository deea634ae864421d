"""Which queued piece leaves next: one queue for the whole host, over all torrents.

Few at a time: with four receivers and one line, the first copy is out after a quarter of the time when they are served
one after the other, and can be passed on meanwhile. Never idle: when the receivers at hand cannot take the full rate,
more start beside them. The host's rate is not known, so it is found by trying: after every few pieces the sum of
bytes per second is compared with what it was with fewer slots, and slots that added nothing are taken back.
"""

from __future__ import annotations

from collections import deque
from math import inf
from random import Random

from attrs import define

from krakentx.swarm.config import UploadConfig
from krakentx.swarm.events import ConnID

_WINDOW = 6  # pieces per measurement, at least
_GAIN = 1.25  # slots that add less are not worth having: with slow receivers, half as many again add half as much
_REST = 10  # measurements between two attempts


@define
class SlotCount:
    """How many pieces should leave at once."""

    now: int
    _last_rate: float = 0.0
    _step: int = 0  # slots added by the attempt under way
    _rest: int = 0
    _bytes: int = 0
    _pieces: int = 0
    _since: float = 0.0

    def restart(self, now: float) -> None:
        """The line stood idle for want of requests: what was measured so far says nothing."""
        self._bytes = self._pieces = 0
        self._since = now

    def sent(self, size_bytes: int, now: float, config: UploadConfig) -> None:
        """A piece left while others waited."""
        self._bytes += size_bytes
        self._pieces += 1
        if self._pieces < max(_WINDOW, 2 * self.now) or now <= self._since:
            return
        rate = self._bytes / (now - self._since)
        self.restart(now)
        if self._step and rate < self._last_rate * _GAIN:
            self.now -= self._step
            self._step, self._rest = 0, _REST
        elif self._rest:
            self._rest -= 1
        else:
            self._step = min(max(1, self.now // 2), config.max_slots - self.now)
            self.now += self._step
        self._last_rate = rate


class Uploads:
    """Round robin over connections; one that had nothing waiting joins at a place by chance.

    If it joined at the end, all origins would serve the first hosts of a rollout first, whose lines are full then, and
    be idle in part while the others wait.
    """

    def __init__(self, config: UploadConfig, rng: Random) -> None:
        self.config = config
        self.look_at = inf
        """From when on `start` may find something: at once after a change, else when the oldest piece is stuck."""
        self._rng = rng
        self._waiting: dict[ConnID, deque[int]] = {}  # none of them empty
        # One piece per connection at a time: what stands behind another piece of the same socket would leave no
        # earlier, and could not be cancelled any more.
        self._leaving: dict[ConnID, tuple[int, float]] = {}  # piece, since when
        self._oldest = inf  # none of them has been leaving since before
        self._turn: deque[ConnID] = deque()  # connections with something waiting and nothing leaving, each once
        self._slots = SlotCount(config.slots)
        self._mean_s = 0.0  # how long a piece takes, lately

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

    @property
    def patience_s(self) -> float:
        """A piece that takes longer is stuck. It leaves its slot to others; while something waits, look again."""
        usual, slow = self.config.slot_patience_s, 4 * self._mean_s
        return slow if slow > usual else usual

    def configure(self, config: UploadConfig) -> None:
        """Use other settings."""
        self.config = config
        self.look_at = -inf

    def busy(self, conn: ConnID) -> bool:
        """Something waits or leaves for this connection."""
        return conn in self._leaving or conn in self._waiting

    def stuck_since(self, conn: ConnID) -> float | None:
        """Since when the piece of this connection has been leaving; None when none is."""
        leaving = self._leaving.get(conn)
        return leaving and leaving[1]

    def add(self, conn: ConnID, piece: int) -> bool:
        """Queue a piece. False when too many wait already; a piece that is queued anyway is not queued twice."""
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
        self.look_at = -inf

    def _no_more(self, conn: ConnID) -> None:
        del self._waiting[conn]
        if conn not in self._leaving:
            self._turn.remove(conn)

    def began(self, conn: ConnID, piece: int, now: float) -> None:
        """The first byte left: only from now on can one say that it takes long."""
        if self._leaving.get(conn, (None,))[0] == piece:
            self._leaving[conn] = (piece, now)

    def sent(self, conn: ConnID, piece: int, size_bytes: int, now: float) -> None:
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
        if self._turn:
            self._slots.sent(size_bytes, now, self.config)
        else:
            self._slots.restart(now)

    def start(self, now: float) -> list[tuple[ConnID, int]]:
        """Take what may leave now."""
        started: list[tuple[ConnID, int]] = []
        turn, leaving = self._turn, self._leaving
        while turn and len(leaving) < self.config.max_slots and self._holding(now) < self._slots.now:
            conn = turn.popleft()
            waiting = self._waiting[conn]
            piece = waiting.popleft()
            if not waiting:
                del self._waiting[conn]
            leaving[conn] = (piece, now)
            self._oldest = min(self._oldest, now)
            started.append((conn, piece))
        self.look_at = self._oldest + self.patience_s if turn else inf
        return started

    def _holding(self, now: float) -> int:
        """Slots in use; when there is no free one, without the pieces that are stuck."""
        since = now - self.patience_s
        if len(self._leaving) < self._slots.now or self._oldest > since:
            return len(self._leaving)
        self._oldest = min([began for _, began in self._leaving.values()])
        return sum(began > since for _, began in self._leaving.values())
