"""Bandwidth limits: one gate per direction, shared by all connections of a Scheduler.

Only piece bytes pay, as in the reference. Each connection has a `Lane` at the gate and asks for a grant before it moves
bytes; when it gets none it stops, waits, and is called when it is its turn. Pieces over HTTP pay by a `Toll`.

How exact. Nothing passes that was not granted before, whatever the sizes of pieces, and the bucket holds at most what
flows in within `BURST_S`. So no second carries more than 1 + `BURST_S` times the rate, also after idling; and a busy
process that comes back to its sockets late makes up for so much of the delay, and not for more: that would make another
second too full. Grants are slices of `SLICE_S`, so that a slow limit is spread evenly over time and over connections;
at high rates a slice is what one system call moves anyway.

How fair. Torrents take turns by the bytes that they got (start-time fair queueing: the least served is called first,
and one that comes back from idling begins where the others are); the connections of a torrent take turns in the order
of asking. Nobody overtakes those who wait. Who is called and does not come, because its socket has no bytes or no room,
holds up nobody: what was kept for it goes to the next after a moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from weakref import WeakValueDictionary

from attrs import Factory, define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

BURST_S = 0.035
SLICE_S = 0.005
MIN_SLICE_BYTES = 512  # below 120 kbit/s this is more than the burst, and a second is no longer exact
MAX_SLICE_BYTES = 1 << 20
_SLACK_S = 1e-4  # or rounding calls us a moment before the slice is whole
_CREDIT = 4  # slices that a torrent may lag behind the others and still get


class TokenBucket:
    """Bytes that may pass now. Pure: time is an argument, in seconds.

    It starts empty: what passed before is not known.

    Args:
        rate_bytes_s: bytes per second that flow in.
        burst_bytes: the bucket's size.
    """

    def __init__(self, rate_bytes_s: float, burst_bytes: float, now: float) -> None:
        self.rate_bytes_s = rate_bytes_s
        self.burst_bytes = burst_bytes
        self._tokens = 0.0
        self._at = now

    def change(self, rate_bytes_s: float, burst_bytes: float, now: float) -> None:
        """Go on at another rate with what is there."""
        self.available(now)
        self.rate_bytes_s = rate_bytes_s
        self.burst_bytes = burst_bytes
        self._tokens = min(self._tokens, burst_bytes)

    def available(self, now: float) -> int:
        """Whole bytes in the bucket; negative after a debt."""
        if now > self._at:
            self._tokens = min(self.burst_bytes, self._tokens + (now - self._at) * self.rate_bytes_s)
        self._at = now
        return int(self._tokens // 1)

    def spend(self, count: int) -> None:
        """Take bytes out (or put them back, when negative). May leave a debt."""
        self._tokens = min(self.burst_bytes, self._tokens - count)

    def seconds_until(self, count: int, now: float) -> float:
        """How long until `count` bytes are there."""
        return max(0.0, (count - self.available(now)) / self.rate_bytes_s)


@define(eq=False)
class _Group:
    """The lanes of one torrent, as far as they wait."""

    served: float = 0.0  # bytes that it got; where it stands among the others
    waiting: deque[Lane] = Factory(deque)


@define(eq=False)
class Lane:
    """One connection's place at a gate.

    Args:
        resume: called once after each `wait`, when it is this one's turn.
    """

    gate: Gate
    resume: Callable[[], None]
    group: _Group
    allowance: int = 0  # it was called, for so much, which its group has paid
    first: bool = False  # it was called and yet found nothing: it keeps its place

    def join(self, torrent: Hashable) -> None:
        """Say whose bytes pass here. A lane that never said so shares the turn of all such."""
        self.forget()
        self.group = self.gate.group(torrent)

    @property
    def limited(self) -> bool:
        """There is a limit."""
        return self.gate.rate_bytes_s is not None

    def grant(self, want: int) -> int:
        """How many of `want` bytes may pass now, already paid; 0 = `wait` for your turn."""
        return self.gate.grant(self, want)

    def give_back(self, count: int) -> None:
        """Granted bytes that did not pass; negative: bytes that passed without a grant."""
        self.gate.give_back(self, count)

    def wait(self) -> None:
        """Ask to be called when it is this one's turn: for a slice, in as many grants as it takes."""
        self.gate.wait(self)

    def forget(self) -> None:
        """Do not call any more. It need not be waiting."""
        self.gate.forget(self)


class Gate:
    """Lets bytes of one direction through at a rate.

    Args:
        rate_bytes_s: bytes per second; None = no limit.
    """

    def __init__(self, clock: IReactorTime, rate_bytes_s: float | None = None) -> None:
        self._clock = clock
        self._groups: WeakValueDictionary[Hashable, _Group] = WeakValueDictionary()
        self._waiting: dict[_Group, None] = {}  # those with somebody who waits
        self._served = 0.0  # where the group stood that was served last
        self._promised: dict[Lane, int] = {}  # called a moment ago: others leave so much to them
        self._timer: IDelayedCall | None = None
        self._bucket: TokenBucket | None = None
        self.slice_bytes = MAX_SLICE_BYTES
        self.set_rate(rate_bytes_s)

    @property
    def rate_bytes_s(self) -> float | None:
        """The limit; None = none."""
        return None if self._bucket is None else self._bucket.rate_bytes_s

    def set_rate(self, rate_bytes_s: float | None) -> None:
        """Change the limit; those who wait are served at the new rate."""
        if rate_bytes_s == self.rate_bytes_s:
            return
        if rate_bytes_s is None:
            self._bucket = None
            self.slice_bytes = MAX_SLICE_BYTES
        else:
            self.slice_bytes = int(min(max(rate_bytes_s * SLICE_S, MIN_SLICE_BYTES), MAX_SLICE_BYTES))
            burst, now = max(self.slice_bytes, rate_bytes_s * BURST_S), self._clock.seconds()
            if self._bucket is None:
                self._bucket = TokenBucket(rate_bytes_s, burst, now)
            else:
                self._bucket.change(rate_bytes_s, burst, now)
        self._stop_timer()
        self._arm()

    def lane(self, resume: Callable[[], None]) -> Lane:
        """A place for one connection."""
        return Lane(self, resume, self.group(None))

    def group(self, torrent: Hashable) -> _Group:
        """Those who pass bytes of a torrent."""
        group = self._groups.get(torrent)
        if group is None:
            group = self._groups[torrent] = _Group()
        return group

    def grant(self, lane: Lane, want: int) -> int:
        """See `Lane.grant`."""
        if self._bucket is None:
            self._settle(lane)
            return want
        free = self._bucket.available(self._clock.seconds())
        called = lane.allowance > 0
        # Crumbs would cost a system call each: what is granted is what was asked, or a slice, or nothing.
        count = min(want, self.slice_bytes)
        if not called:
            free -= sum(self._promised.values())
        if free < count or (self._waiting and not called):
            lane.first = called
            return 0
        lane.first = False
        self._served = max(self._served, lane.group.served)
        self._pay(lane, count)
        return count

    def give_back(self, lane: Lane, count: int) -> None:
        """See `Lane.give_back`."""
        if self._bucket is not None:
            self._pay(lane, -count)

    def _pay(self, lane: Lane, count: int) -> None:
        assert self._bucket is not None
        self._bucket.spend(count)
        lane.group.served += count
        if count > 0 and lane.allowance:
            self._settle(lane, lane.allowance - count)

    def _settle(self, lane: Lane, left: int = 0) -> None:
        """Somebody who was called took some, or will not take any more: its group need not pay for it twice."""
        left = max(0, left)
        lane.group.served -= lane.allowance - left
        lane.allowance = left
        if not left:
            self._promised.pop(lane, None)
        elif lane in self._promised:
            self._promised[lane] = left

    def wait(self, lane: Lane) -> None:
        """See `Lane.wait`."""
        self._settle(lane)
        group = lane.group
        if lane.first:
            group.waiting.appendleft(lane)
        else:
            group.waiting.append(lane)
        if group not in self._waiting:
            self._waiting[group] = None
            group.served = max(group.served, self._served - _CREDIT * self.slice_bytes)
        self._arm()

    def forget(self, lane: Lane) -> None:
        """See `Lane.forget`."""
        self._settle(lane)
        lane.first = False
        if lane in lane.group.waiting:
            lane.group.waiting.remove(lane)
            if not lane.group.waiting:
                del self._waiting[lane.group]
        if not self._waiting:
            self._stop_timer()

    # --- turns

    def _arm(self) -> None:
        if self._timer is None and self._waiting:
            delay = 0.0
            if self._bucket is not None:
                wanted = self.slice_bytes + sum(self._promised.values())
                delay = self._bucket.seconds_until(wanted, self._clock.seconds()) + _SLACK_S
            self._timer = self._clock.callLater(delay, self._open)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _open(self) -> None:
        """Call as many as there are bytes for."""
        self._timer = None
        free = None if self._bucket is None else self._bucket.available(self._clock.seconds())
        self._promised.clear()
        called: list[Lane] = []
        while self._waiting and (free is None or free >= self.slice_bytes):
            group = min(self._waiting, key=lambda each: each.served)
            lane = group.waiting.popleft()
            if not group.waiting:
                del self._waiting[group]
            if free is not None:
                free -= self.slice_bytes
                self._served = max(self._served, group.served)
                group.served += self.slice_bytes
                lane.allowance = self._promised[lane] = self.slice_bytes
            called.append(lane)
        for lane in called:
            lane.resume()
        self._arm()


class Toll:
    """Pays at a gate for bytes that pass over HTTP: who moves them waits until they are paid.

    What leaves is paid first. What comes is read in runs of up to 64 KiB and paid then: a source may be ahead by one.

    Args:
        torrent: whose turn it takes.
    """

    def __init__(self, gate: Gate, torrent: Hashable) -> None:
        self._lane = gate.lane(self._called)
        self._lane.join(torrent)
        self._owed = 0
        self._paid: Deferred[None] | None = None

    @property
    def waiting(self) -> bool:
        """Something is not paid yet."""
        return self._owed > 0

    def pay(self, count: int) -> Deferred[None] | None:
        """Pay for so many bytes. Returns what fires once they are paid, None when they are."""
        self._owed += count
        self._pay()
        if not self._owed:
            return None
        self._paid = Deferred(lambda _paid: self.stop())
        return self._paid

    def stop(self) -> None:
        """Nothing more comes, and what is owed is let off."""
        self._owed = 0
        self._lane.forget()

    def _pay(self) -> None:
        while self._owed and (granted := self._lane.grant(self._owed)):
            self._owed -= granted
        if self._owed:
            self._lane.wait()

    def _called(self) -> None:
        self._pay()
        if not self._owed and self._paid is not None:
            paid, self._paid = self._paid, None
            paid.callback(None)


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
