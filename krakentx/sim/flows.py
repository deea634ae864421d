"""Lines and the flows over them: each flow gets its max-min fair share, kept up to date where something changed.

A line has a level: what a flow may have that nothing else holds back. A flow runs at the lowest level of its lines.
When a flow begins or ends, the levels of its lines are found anew; a line whose level changed has its neighbours look
again, but only over those flows which it holds back, before or after. So a change spreads as far as it matters and no
farther. A level falls as far as it must, and rises only when there is more than half a per cent to be had: without
that, every end of a flow would stir the whole swarm by ever smaller amounts. What is lost by it is never more than
that half per cent, and no line ever carries more than it can: that is checked at every change.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from attrs import Factory, define

from krakentx.sim.clock import Clock

_RISE = 1.005
_FUZZ = 1e-6  # of a capacity, or of the bytes of a flow: rounding


@define(eq=False)
class Line:
    """One direction of a card or of an uplink.

    Args:
        capacity: bytes per second.
    """

    name: str
    capacity: float
    level: float = inf
    spare: float = 0.0  # of the capacity, at least, as long as it holds back nobody; else not above 0
    carried: float = 0.0  # bytes so far, of flows that have ended
    flows: dict[Flow, tuple[Line, ...]] = Factory(dict)  # and the other lines of each

    @property
    def used(self) -> float:
        """The sum of the rates."""
        return sum([flow.rate for flow in self.flows])


@define(eq=False)
class Flow:
    """Bytes on their way over some lines."""

    lines: tuple[Line, ...]
    size: float
    done: Callable[[], None]
    left: float
    rate: float = 0.0
    since: float = 0.0  # when `left` was true
    ends: float = inf
    alarm: float = inf  # the earliest time at which it will be looked at

    def moved(self, now: float) -> float:
        """Bytes that have passed."""
        return self.size - max(0.0, self.left - self.rate * (now - self.since))


@define
class Flows:
    """All flows of a world. Its `settle` must run before time passes."""

    clock: Clock
    _dirty: dict[Line, None] = Factory(dict)
    _moved: dict[Flow, None] = Factory(dict)

    def start(self, lines: tuple[Line, ...], size: float, done: Callable[[], None]) -> Flow:
        """Begin a flow; `done` is called when its last byte has passed."""
        flow = Flow(lines, size, done, size, since=self.clock.now)
        self.clock.unsettled = True
        for line in lines:
            line.flows[flow] = tuple([other for other in lines if other is not line])
            line.spare = -inf
            self._dirty[line] = None
        self._moved[flow] = None
        return flow

    def stop(self, flow: Flow) -> float:
        """End a flow early. Returns the bytes that passed."""
        passed = flow.moved(self.clock.now)
        self._end(flow, passed)
        return passed

    def passed(self, line: Line) -> float:
        """Bytes that a line has carried until now."""
        now = self.clock.now
        return line.carried + sum([flow.moved(now) for flow in line.flows])

    def _end(self, flow: Flow, passed: float) -> None:
        flow.ends = flow.alarm = inf
        self._moved.pop(flow, None)
        self.clock.unsettled = True
        for line in flow.lines:
            del line.flows[flow]
            line.carried += passed
            self._dirty[line] = None

    def settle(self) -> None:
        """Find the rates that hold from now on."""
        dirty, moved = self._dirty, self._moved
        while dirty:
            line = next(iter(dirty))
            del dirty[line]
            if line.spare > _FUZZ * line.capacity:
                continue
            before, level = line.level, _level(line)
            if before == level or before < level <= before * _RISE:
                continue
            line.level = level
            low, rise = (level, 0.0) if level < before else (before, level - before)
            for flow, others in line.flows.items():
                touched = before <= flow.rate or level < flow.rate
                for other in others:
                    if low < other.level:
                        other.spare -= rise
                        dirty[other] = None
                        touched = True
                if touched:
                    moved[flow] = None
        now = self.clock.now
        for flow in moved:
            rate = inf
            for line in flow.lines:
                if line.level < rate:
                    rate = line.level
            if rate != flow.rate:
                self._run_at(flow, rate, now)
        moved.clear()

    def _run_at(self, flow: Flow, rate: float, now: float) -> None:
        flow.left -= flow.rate * (now - flow.since)
        flow.since = now
        flow.rate = rate
        left = flow.left
        flow.ends = ends = now + (left if left > 0.0 else 0.0) / rate
        if ends < flow.alarm:
            flow.alarm = ends
            self.clock.at(ends - now, self._look, flow, ends)

    def _look(self, flow: Flow, alarm: float) -> None:
        """A flow may have ended, unless it was slowed down meanwhile."""
        if flow.alarm != alarm:
            return
        now = self.clock.now
        if flow.ends > now and (flow.ends - now) * flow.rate > _FUZZ * flow.size:
            flow.alarm = flow.ends
            self.clock.at(flow.ends - now, self._look, flow, flow.ends)
            return
        for line in flow.lines:
            assert line.used <= line.capacity * (1 + _FUZZ), f"{line.name} carries {line.used} of {line.capacity}"
        self._end(flow, flow.size)
        flow.done()


def _level(line: Line) -> float:
    """What a flow of this line may have that no other line holds back; inf when others hold back all of them."""
    bounds = [
        others[0].level if len(others) == 1 else min([other.level for other in others])
        for others in line.flows.values()
    ]
    bounds.sort()
    rest, count = line.capacity, len(bounds)
    for bound in bounds:
        if bound * count >= rest:
            line.spare = 0.0
            return rest / count
        rest -= bound
        count -= 1
    line.spare = rest
    return inf
