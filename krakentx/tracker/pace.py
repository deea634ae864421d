"""How often unfinished peers shall announce: as the configuration says, and less often when they are very many."""

from __future__ import annotations

from collections import deque
from math import inf

from twisted.internet.interfaces import IReactorTime

_LONGEST_S = 60.0  # an agent of ours takes no longer interval


class Pace:
    """Tells an interval at which all unfinished peers together ask no more than so many times a second.

    Those who will come again, as they were told, are all there are, each counted once for each of its torrents.

    Args:
        least_s: the interval as long as they are few.
        most_per_s: 0 = any number.
    """

    def __init__(self, least_s: float, most_per_s: float, clock: IReactorTime) -> None:
        self._least_s = least_s
        self._most_per_s = most_per_s if most_per_s > 0 else inf
        self._clock = clock
        self._will_come = 0
        self._seconds: deque[int] = deque()  # how many will come in which second, from `_first` on
        self._first = int(clock.seconds())

    @property
    def interval_s(self) -> float:
        """What is told at this moment, in seconds."""
        now = int(self._clock.seconds())
        # Those of the seconds that have passed have come, or will not.
        while self._seconds and self._first < now:
            self._will_come -= self._seconds.popleft()
            self._first += 1
        self._first = now
        return max(self._least_s, min(self._will_come / self._most_per_s, _LONGEST_S))

    def asked(self) -> float:
        """One asks. Returns after how many seconds it shall ask again."""
        interval_s = self.interval_s
        second = int(self._clock.seconds() + interval_s) - self._first
        while len(self._seconds) <= second:
            self._seconds.append(0)
        self._seconds[second] += 1
        self._will_come += 1
        return interval_s
