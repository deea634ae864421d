"""Bandwidth limits: one gate per direction, shared by all connections of a Scheduler.

Only piece bytes pay, as in the reference. A transport asks for a grant before it moves bytes; when it gets none it
stops and is called again in the order of asking. Grants are cut into slices of about 10 ms of the rate, so that a slow
limit is spread evenly over time and over the connections, and a fast one costs nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

SLICE_S = 0.01
MIN_SLICE_BYTES = 16 << 10
MAX_SLICE_BYTES = 1 << 20


class TokenBucket:
    """Bytes that may pass now. Pure: time is an argument, in seconds.

    Args:
        rate_bytes_s: bytes per second that flow in.
        burst_bytes: the bucket's size; it starts full.
    """

    def __init__(self, rate_bytes_s: float, burst_bytes: float, now: float) -> None:
        self.rate_bytes_s = rate_bytes_s
        self.burst_bytes = burst_bytes
        self._tokens = burst_bytes
        self._at = now

    def available(self, now: float) -> int:
        """Whole bytes in the bucket; negative after a debt."""
        if now > self._at:
            self._tokens = min(self.burst_bytes, self._tokens + (now - self._at) * self.rate_bytes_s)
        self._at = now
        return int(self._tokens)

    def spend(self, count: int) -> None:
        """Take bytes out (or put them back, when negative). May leave a debt."""
        self._tokens = min(self.burst_bytes, self._tokens - count)

    def seconds_until(self, count: int, now: float) -> float:
        """How long until `count` bytes are there."""
        return max(0.0, (count - self.available(now)) / self.rate_bytes_s)


class Gate:
    """Lets bytes of one direction through at a rate.

    Args:
        rate_bytes_s: bytes per second; None = no limit.
    """

    def __init__(self, clock: IReactorTime, rate_bytes_s: float | None = None) -> None:
        self._clock = clock
        self._waiting: deque[Callable[[], None]] = deque()
        self._timer: IDelayedCall | None = None
        self.set_rate(rate_bytes_s)

    def set_rate(self, rate_bytes_s: float | None) -> None:
        """Change the limit; those who wait are served at the new rate."""
        self._bucket: TokenBucket | None = None
        self.slice_bytes = MAX_SLICE_BYTES
        if rate_bytes_s is not None:
            self.slice_bytes = int(min(max(rate_bytes_s * SLICE_S, MIN_SLICE_BYTES), MAX_SLICE_BYTES))
            burst = max(2 * self.slice_bytes, 5 * SLICE_S * rate_bytes_s)
            self._bucket = TokenBucket(rate_bytes_s, burst, self._clock.seconds())
        self._stop_timer()
        self._arm()

    def grant(self, want: int) -> int:
        """How many of `want` bytes may pass now, already paid; 0 = `wait` for your turn."""
        if self._bucket is None:
            return want
        available = self._bucket.available(self._clock.seconds())
        granted = min(want, self.slice_bytes)
        # Crumbs would cost a system call each: what is granted is what was asked, or a slice, or nothing.
        if available < granted:
            return 0
        self._bucket.spend(granted)
        return granted

    def give_back(self, count: int) -> None:
        """Granted bytes that did not pass; negative: bytes that passed without a grant."""
        if self._bucket is not None:
            self._bucket.spend(-count)

    def wait(self, resume: Callable[[], None]) -> None:
        """Call `resume` once, when it is this one's turn."""
        self._waiting.append(resume)
        self._arm()

    def forget(self, resume: Callable[[], None]) -> None:
        """Do not call `resume`. It need not be waiting."""
        if resume in self._waiting:
            self._waiting.remove(resume)
        if not self._waiting:
            self._stop_timer()

    def _arm(self) -> None:
        if self._timer is None and self._waiting:
            delay = 0.0
            if self._bucket is not None:
                # A thousandth of slack, or rounding calls us a moment before the slice is whole.
                delay = self._bucket.seconds_until(self.slice_bytes, self._clock.seconds()) + SLICE_S / 10
            self._timer = self._clock.callLater(delay, self._open)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _open(self) -> None:
        self._timer = None
        turns = len(self._waiting)
        if self._bucket is not None:
            turns = min(turns, max(1, self._bucket.available(self._clock.seconds()) // self.slice_bytes))
        for resume in [self._waiting.popleft() for _ in range(turns)]:
            resume()
        self._arm()


class Traffic:
    """The two gates of a process."""

    def __init__(
        self, clock: IReactorTime, egress_bytes_s: float | None = None, ingress_bytes_s: float | None = None
    ) -> None:
        self.egress = Gate(clock, egress_bytes_s)
        self.ingress = Gate(clock, ingress_bytes_s)

    def set_rates(self, egress_bytes_s: float | None, ingress_bytes_s: float | None) -> None:
        """Change both limits; None = no limit."""
        self.egress.set_rate(egress_bytes_s)
        self.ingress.set_rate(ingress_bytes_s)
