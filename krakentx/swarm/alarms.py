"""Alarms: one deadline for each of many things, and the earliest of all.

Deadlines mostly move later (every byte that comes postpones a timeout), so a later one is only noted: its place in the
heap is corrected when the earlier time comes. Moving costs one dictionary write, and the heap stays about as long as
there are things with a deadline.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from itertools import count
from math import inf
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Alarms(Generic[K]):
    """At most one deadline per key."""

    def __init__(self) -> None:
        self._when: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self.sooner = inf
        """What `next` would say has become no earlier than this since it was asked."""
        self._order = count()  # ties are broken by age: keys need not be comparable

    def __len__(self) -> int:
        return len(self._when)

    def set(self, key: K, when: float) -> None:
        """Wake `key` at `when`, whatever was set before."""
        before = self._when.get(key)
        self._when[key] = when
        if before is None or when < before:
            heapq.heappush(self._heap, (when, next(self._order), key))
            self.sooner = min(self.sooner, when)
            if len(self._heap) > 4 * len(self._when) + 64:
                self._heap = [(time, next(self._order), name) for name, time in self._when.items()]
                heapq.heapify(self._heap)

    def no_later(self, key: K, when: float) -> None:
        """Wake `key` at `when`, unless it wakes earlier anyway."""
        before = self._when.get(key)
        if before is None or when < before:
            self.set(key, when)

    def cancel(self, key: K) -> None:
        """Never wake `key`."""
        self._when.pop(key, None)

    def due(self, now: float) -> K | None:
        """Take one key whose time has come; it has no deadline afterwards. None when there is none."""
        self.sooner = -inf
        while self._heap and self._heap[0][0] <= now:
            _, _, key = heapq.heappop(self._heap)
            when = self._when.get(key)
            if when is None:
                continue
            if when <= now:
                del self._when[key]
                return key
            heapq.heappush(self._heap, (when, next(self._order), key))
        return None

    def next(self) -> float | None:
        """When to look again. It may be too early (a postponed deadline), never too late."""
        self.sooner = inf
        while self._heap and self._heap[0][2] not in self._when:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
