"""When and how much to get by HTTP, because the swarm gives nothing."""

from __future__ import annotations

from krakentx.swarm.config import FallbackConfig
from krakentx.swarm.events import FetchProblem
from krakentx.swarm.picker import lowest


class Fallback:
    """The fetches of one torrent.

    Batches grow while the source is quick: few requests, yet the way back to the peers stays short.
    """

    def __init__(self, now: float) -> None:
        self.held = 0  # pieces in fetches: no connection may write them
        self.on = False  # the swarm gives nothing
        self._began: dict[tuple[int, ...], float] = {}
        self._stopped: set[tuple[int, ...]] = set()
        self._batch_bytes = 0
        self._retry_at = now
        self._retry_s = 0.0

    def __len__(self) -> int:
        """Fetches under way."""
        return len(self._began)

    def plan(
        self, open_pieces: int, first: int, piece_length: int, now: float, config: FallbackConfig
    ) -> tuple[int, ...]:
        """Choose the pieces of the next fetch, and remember it. Empty when none is to begin now.

        Args:
            open_pieces: missing, and written by nobody at present.
            first: where a reader stands; the fetch takes what is open from there on, then from the start.
        """
        open_pieces &= ~self.held
        if not self.on or not open_pieces or len(self._began) >= config.parallel or now < self._retry_at:
            return ()
        self._batch_bytes = self._batch_bytes or config.first_batch_bytes
        count = max(1, self._batch_bytes // piece_length)
        ahead = open_pieces >> first << first
        chosen: list[int] = []
        for part in (ahead, open_pieces ^ ahead):
            while part and len(chosen) < count:
                piece = lowest(part)
                part &= part - 1
                chosen.append(piece)
        batch = tuple(sorted(chosen))
        self._began[batch] = now
        for piece in batch:
            self.held |= 1 << piece
        return batch

    def stop(self) -> list[tuple[int, ...]]:
        """The swarm gives again. Returns the fetches that are to be ended, each once."""
        self.on = False
        stopping = [batch for batch in self._began if batch not in self._stopped]
        self._stopped.update(stopping)
        return stopping

    def ended(self, batch: tuple[int, ...], problem: FetchProblem | None, now: float, config: FallbackConfig) -> None:
        """A fetch is over: learn from it."""
        began = self._began.pop(batch, None)
        if began is None:
            return
        for piece in batch:
            self.held &= ~(1 << piece)
        if batch in self._stopped:
            self._stopped.remove(batch)  # how long it took says nothing of the source
        elif problem is None:
            self._retry_s = 0.0
            took = now - began
            if took < config.batch_time_s / 2:
                self._batch_bytes = min(2 * self._batch_bytes, config.max_batch_bytes)
            elif took > config.batch_time_s * 2:
                self._batch_bytes = max(self._batch_bytes // 2, config.first_batch_bytes)
        else:
            self._retry_s = min(max(config.retry_s, 2 * self._retry_s), config.max_retry_s)
            self._retry_at = now + self._retry_s
            self._batch_bytes = config.first_batch_bytes

    @property
    def failing(self) -> bool:
        """The last fetch brought trouble."""
        return self._retry_s > 0
