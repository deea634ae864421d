"""What a limit of bandwidth lets through in each second, seen where peers read payload from their sockets."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter

from attrs import Factory, define
from twisted.internet import reactor
from twisted.internet.interfaces import IDelayedCall

from krakentx.peer.transfers import Sink

_TICK_S = 0.005
_LATE_S = 0.02  # a limit makes up for such delays


@define(eq=False)
class Meter:
    """Payload that the peers of this process read, and how late the process was meanwhile."""

    times: list[float] = Factory(list)
    sums: list[int] = Factory(lambda: [0])
    by_file: Counter[int] = Factory(Counter)
    late: list[tuple[float, float]] = Factory(list)
    _last: float = 0.0
    _timer: IDelayedCall | None = None

    def watch(self, monkeypatch) -> None:
        """Begin; `stop` ends it."""
        take = Sink.take

        def counted(sink: Sink, data: memoryview) -> None:
            self.times.append(reactor.seconds())
            self.sums.append(self.sums[-1] + len(data))
            self.by_file[sink.fd] += len(data)
            take(sink, data)

        monkeypatch.setattr(Sink, "take", counted)
        self._last = reactor.seconds()
        self._tick()

    def _tick(self) -> None:
        now = reactor.seconds()
        self.late.append((now, max(0.0, now - self._last - _LATE_S)))
        self._last = now
        self._timer = reactor.callLater(_TICK_S, self._tick)

    def stop(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def passed(self, after: float, until: float) -> int:
        """Bytes that were read in that time."""
        return self.sums[bisect_right(self.times, until)] - self.sums[bisect_right(self.times, after)]

    def holds(self, bytes_s: float, begin: float = 0.0, end: float = 1e12) -> None:
        """Every second of that time carried the rate to 5 %; less only for as long as the process had no CPU."""
        times = self.times[bisect_left(self.times, begin) : bisect_right(self.times, end)]
        assert times[-1] - times[0] > 1.1, "too short to tell"
        fullest = max(self.passed(at - 1.0, at) for at in times if at - 1.0 >= begin or begin == 0.0)
        assert fullest <= 1.05 * bytes_s, f"a second carried {fullest / bytes_s:.3f} of its share"
        for at in times:
            if at + 1.0 <= times[-1]:
                lost = sum(seconds for when, seconds in self.late if at <= when <= at + 1.0 + seconds)
                share = self.passed(at, at + 1.0) / bytes_s
                assert share >= 0.95 - lost, f"a second carried {share:.3f} of its share, {lost:.3f} s were without CPU"
