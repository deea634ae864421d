"""Lines, and flows over them: bytes that take as long as their fair share of the lines makes them."""

from __future__ import annotations

from collections.abc import Callable

from attrs import Factory, define

from krakentx.sim import fair
from krakentx.sim.clock import Clock

_LINES, _FLOWS = 16, 64  # room at the start


@define(eq=False)
class Line:
    """One direction of a card or of an uplink.

    Args:
        capacity: bytes per second.
    """

    number: int
    name: str
    capacity: float
    carried: float = 0.0  # bytes so far, of flows that have ended


@define(eq=False)
class Flow:
    """Bytes on their way over some lines."""

    number: int
    lines: tuple[Line, ...]
    size: float
    done: Callable[[], None]


@define
class Flows:
    """All flows of a world."""

    clock: Clock
    lines: list[Line] = Factory(list)
    _rows: fair.Rows = Factory(lambda: fair.rows(_LINES, _FLOWS))
    _live: list[Flow | None] = Factory(lambda: [None] * _FLOWS)
    _free: list[int] = Factory(lambda: list(range(_FLOWS)))
    _freed: list[int] = Factory(list)  # free as soon as the changes of this instant are settled

    def __attrs_post_init__(self) -> None:
        self.clock.settle, self.clock.ripe = self._settle, self._end_next

    def line(self, name: str, capacity: float) -> Line:
        """A new line of so many bytes per second."""
        line = Line(len(self.lines), name, capacity)
        if line.number == len(self._rows.lines):
            self._settle()
            self._rows = fair.rows(2 * line.number, len(self._live), self._rows)
        self.lines.append(line)
        fair.open_line(self._rows, line.number, capacity)
        return line

    def start(self, lines: tuple[Line, ...], size: float, done: Callable[[], None]) -> Flow:
        """Begin a flow; `done` is called when its last byte has passed."""
        if not self._free:
            self._grow()
        flow = Flow(self._free.pop(), lines, size, done)
        self._live[flow.number] = flow
        first, second, third, fourth = [line.number for line in lines] + fair.NO_LINE * (fair.WAYS - len(lines))
        fair.join(self._rows, flow.number, size, self.clock.now, (first, second, third, fourth))
        self.clock.unsettled = True
        return flow

    def _grow(self) -> None:
        room = len(self._live)
        self._rows = fair.rows(len(self._rows.lines), 2 * room, self._rows)
        self._live += [None] * room
        self._free += range(room, 2 * room)

    def stop(self, flow: Flow) -> float:
        """End a flow early. Returns the bytes that passed."""
        passed = self.moved(flow)
        self._end(flow, passed)
        return passed

    def moved(self, flow: Flow) -> float:
        """Bytes of a flow that have passed."""
        return flow.size - fair.left(self._rows, flow.number, self.clock.now)

    def takes_s(self, flow: Flow, size: float) -> float:
        """How long the next `size` bytes of a flow take, or what is left of it, at its present rate."""
        return fair.takes_s(self._rows, flow.number, size, self.clock.now)

    def passed(self, line: Line) -> float:
        """Bytes that a line has carried until now."""
        return line.carried + fair.moved_on(self._rows, line.number, self.clock.now)

    def _end(self, flow: Flow, passed: float) -> None:
        fair.leave(self._rows, flow.number)
        self._live[flow.number] = None
        self._freed.append(flow.number)
        for line in flow.lines:
            line.carried += passed
        self.clock.unsettled = True

    def _settle(self) -> float:
        """Find the rates that hold from now on. Returns when the next flow ends."""
        self._free += self._freed
        self._freed.clear()
        return fair.settle(self._rows, self.clock.now)

    def _end_next(self) -> None:
        flow = self._live[fair.next_end(self._rows)]
        assert flow is not None, "a flow that has ended ends again"
        over = fair.overloaded(self._rows, flow.number)
        assert over < 0, f"{self.lines[over].name} carries more than its {self.lines[over].capacity}"
        self._end(flow, flow.size)
        flow.done()
