"""Virtual time: what happens next, in an order that a seed fixes."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Any

from attrs import Factory, define

Action = Callable[..., None]


@define
class Clock:
    """Runs actions at their times; those of one instant in the order in which they were asked for.

    Most of what happens is a message that arrives one latency later. All of them wait equally long, so they arrive in
    the order in which they left, and a queue does for them what a heap would do for ten times the cost.

    Args:
        hop_s: how long `hop` takes.
        settle: called when time is about to pass and `unsettled` is set. Returns when `ripe` is to be called next,
            unless it settles again before.
    """

    hop_s: float
    settle: Callable[[], float] = lambda: inf
    ripe: Callable[[], None] = lambda: None
    unsettled: bool = False
    now: float = 0.0
    _ripe_at: float = inf
    _soon: deque[tuple[Action, tuple[Any, ...]]] = Factory(deque)
    _hops: deque[tuple[float, Action, tuple[Any, ...]]] = Factory(deque)
    _heap: list[tuple[float, int, Action, tuple[Any, ...]]] = Factory(list)
    _order: count[int] = Factory(count)

    def soon(self, action: Action, *args: Any) -> None:
        """Do something at this instant, after what is being done now."""
        self._soon.append((action, args))

    def hop(self, action: Action, *args: Any) -> None:
        """Do something when what leaves now has arrived."""
        self._hops.append((self.now + self.hop_s, action, args))

    def at(self, delay_s: float, action: Action, *args: Any) -> None:
        """Do something later."""
        heapq.heappush(self._heap, (self.now + delay_s, next(self._order), action, args))

    def run(self, until_s: float, done: Callable[[], bool]) -> bool:
        """Let time pass until `done` or the time is up. Returns whether it is done."""
        soon, hops, heap = self._soon, self._hops, self._heap
        pop = heapq.heappop
        while not done():
            if soon:
                action, args = soon.popleft()
                action(*args)
                continue
            if self.unsettled:
                self.unsettled = False
                self._ripe_at = self.settle()
            ripe_at = self._ripe_at
            if hops and hops[0][0] < ripe_at and (not heap or hops[0][0] < heap[0][0]):
                when, action, args = hops.popleft()
            elif heap and heap[0][0] < ripe_at:
                when, _, action, args = pop(heap)
            elif ripe_at < inf:
                when, action, args = ripe_at, self.ripe, ()
            else:
                return False
            if when > until_s:
                if when < ripe_at:
                    heapq.heappush(heap, (when, -1, action, args))
                self.now = until_s
                return False
            self.now = when
            action(*args)
        return True
