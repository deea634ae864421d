"""Which queued piece leaves next: one queue for the whole host, over all torrents.

Few at a time: with four receivers and one line, the first copy is out after a quarter of the time when they are served
one after the other, and can be passed on meanwhile. Never idle: when the receivers at hand cannot take the full rate,
more start beside them. The host's rate is not known, so it is found by trying: after every few pieces the sum of
bytes per second is compared with what it was with fewer slots, and slots that added nothing are taken back.
"""

from __future__ import annotations

from collections import deque

from attrs import Factory, define

from krakentx.swarm.config import UploadConfig
from krakentx.swarm.events import ConnID

_WINDOW = 6  # pieces per measurement, at least
_GAIN = 1.08  # slots that add less than this are not worth having
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


@define
class _Queue:
    """What one connection is to be sent."""

    waiting: deque[int] = Factory(deque)
    active: dict[int, float] = Factory(dict)  # piece -> since when


class Uploads:
    """Round robin over connections."""

    def __init__(self, config: UploadConfig) -> None:
        self.config = config
        self._queues: dict[ConnID, _Queue] = {}
        self._turn: deque[ConnID] = deque()  # connections with something waiting, each once
        self._slots = SlotCount(config.slots)
        self._active = 0
        self._mean_s = 0.0  # how long a piece takes, lately

    def __len__(self) -> int:
        """Pieces waiting or leaving."""
        return sum(len(queue.waiting) + len(queue.active) for queue in self._queues.values())

    @property
    def active(self) -> int:
        """Pieces that leave at this moment."""
        return self._active

    def busy(self, conn: ConnID) -> bool:
        """Something waits or leaves for this connection."""
        return conn in self._queues

    def stuck_since(self, conn: ConnID) -> float | None:
        """Since when the oldest piece of this connection has been leaving; None when none is."""
        queue = self._queues.get(conn)
        return min(queue.active.values()) if queue and queue.active else None

    def add(self, conn: ConnID, piece: int) -> bool:
        """Queue a piece. False when too many wait already; a piece that is queued anyway is not queued twice."""
        queue = self._queues.get(conn)
        if queue is None:
            queue = self._queues[conn] = _Queue()
        if piece in queue.active or piece in queue.waiting:
            return True
        if len(queue.waiting) >= self.config.max_queued:
            return False
        if not queue.waiting:
            self._turn.append(conn)
        queue.waiting.append(piece)
        return True

    def cancel(self, conn: ConnID, piece: int) -> bool:
        """Drop a piece that waits. False when it does not (any more)."""
        queue = self._queues.get(conn)
        if queue is None or piece not in queue.waiting:
            return False
        queue.waiting.remove(piece)
        self._tidy(conn, queue)
        return True

    def drop(self, conn: ConnID) -> None:
        """The connection is gone."""
        queue = self._queues.pop(conn, None)
        if queue is not None:
            self._active -= len(queue.active)
            if queue.waiting:
                self._turn.remove(conn)

    def began(self, conn: ConnID, piece: int, now: float) -> None:
        """The first byte left: only from now on can one say that it takes long."""
        queue = self._queues.get(conn)
        if queue is not None and piece in queue.active:
            queue.active[piece] = now

    def sent(self, conn: ConnID, piece: int, size_bytes: int, now: float) -> None:
        """The last byte left."""
        queue = self._queues.get(conn)
        since = None if queue is None else queue.active.pop(piece, None)
        if queue is None or since is None:
            return
        self._active -= 1
        took = now - since
        self._mean_s = took if not self._mean_s else 0.8 * self._mean_s + 0.2 * took
        if self._turn:
            self._slots.sent(size_bytes, now, self.config)
        else:
            self._slots.restart(now)
        self._tidy(conn, queue)

    def start(self, now: float) -> list[tuple[ConnID, int]]:
        """Take what may leave now."""
        started = []
        while self._turn and self._active < self.config.max_slots and self._holding(now) < self._slots.now:
            conn = self._turn.popleft()
            queue = self._queues[conn]
            piece = queue.waiting.popleft()
            queue.active[piece] = now
            self._active += 1
            if queue.waiting:
                self._turn.append(conn)
            started.append((conn, piece))
        return started

    @property
    def patience_s(self) -> float:
        """A piece that takes longer is stuck. It leaves its slot to others; while something waits, look again."""
        return max(self.config.slot_patience_s, 4 * self._mean_s)

    @property
    def waiting(self) -> bool:
        """Something waits for a slot."""
        return bool(self._turn)

    def _holding(self, now: float) -> int:
        """Slots in use, without the pieces that are stuck."""
        if self._active < self._slots.now:
            return self._active
        since = now - self.patience_s
        return sum(began > since for queue in self._queues.values() for began in queue.active.values())

    def _tidy(self, conn: ConnID, queue: _Queue) -> None:
        if not queue.waiting:
            if conn in self._turn:
                self._turn.remove(conn)
            if not queue.active:
                del self._queues[conn]
