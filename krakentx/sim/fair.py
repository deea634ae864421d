"""Max-min fair shares of lines among the flows over them, kept up to date where something changed.

A line has a level: what a flow may have that nothing else holds back. A flow runs at the lowest level of its lines.
When a flow begins or ends, the levels of its lines are found anew; a line whose level changed has its neighbours look
again, but only over those flows which it holds back, before or after. So a change spreads as far as it matters and no
farther. A level falls as far as it must, and rises only when there is more than half a per cent to be had: without
that, every end of a flow would stir the whole swarm by ever smaller amounts. What is lost by it is never more than
that half per cent, and no line ever carries more than it can: that is checked at every end of a flow.

This is where a large run spends its time, so it is plain loops over numbered rows, which numba compiles when it is
installed. Rows are then records of numpy; without it they are objects with the same fields, and all is slower. Callers
count lines and flows from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, NamedTuple, ParamSpec, TypeVar

from attrs import define, fields

try:
    import numba
    import numpy
except ImportError:
    numba = None

COMPILED = numba is not None
WAYS = 4  # lines that a flow may cross
NO_LINE = [-1]
_RISE = 1.005
_FUZZ = 1e-6  # of a capacity: rounding
_ENDING, _DIRTY, _FIRST_DIRTY, _STIRRED = range(4)

_P = ParamSpec("_P")
_R = TypeVar("_R")


@define
class LineRow:
    """A line, in bytes and seconds."""

    capacity: float = 0.0
    level: float = inf
    spare: float = 0.0  # of the capacity, at least, as long as it holds back nobody; else not above 0
    first: int = -1  # of its hops
    last: int = -1
    dirty: bool = False


@define
class FlowRow:
    """A flow, in bytes and seconds."""

    size: float = 0.0
    left: float = 0.0
    since: float = 0.0  # when `left` was true
    rate: float = 0.0
    ends: float = inf
    place: int = -1  # in `ending`
    stirred: bool = False


@define
class HopRow:
    """A flow on one of its lines. Those of flow `n` are the rows from `n * WAYS` until one without a line."""

    line: int = -1
    before: int = -1  # on the same line
    after: int = -1


class Rows(NamedTuple):
    """All state. The lists of numbers hold no more than what `counts` says of each."""

    lines: Sequence[LineRow]
    flows: Sequence[FlowRow]
    hops: Sequence[HopRow]
    ending: Any  # flows, as a heap by their ends
    dirty: Any  # lines whose levels must be found anew, as a ring
    stirred: Any  # flows whose rates may have changed
    bounds: Any  # what other lines allow to the flows of one
    counts: Any


def rows(lines: int, flows: int, old: Rows | None = None) -> Rows:
    """Room for so many lines and flows, with what was in less room."""
    new = Rows(
        _records(LineRow, lines),
        _records(FlowRow, flows),
        _records(HopRow, flows * WAYS),
        _numbers(int, flows),
        _numbers(int, lines),
        _numbers(int, flows),
        _numbers(float, flows),
        _numbers(int, 4),
    )
    if old is not None:
        assert lines == len(old.lines) or not old.counts[_DIRTY], "a ring cannot grow while it is in use"
        for before, after in zip(old, new, strict=True):
            after[: len(before)] = before
    return new


def _records(kind: type[Any], count: int) -> Any:
    if numba is None:
        return [kind() for _ in range(count)]
    types = {"float": "f8", "int": "i4", "bool": "?"}
    made = numpy.empty(count, numpy.dtype([(field.name, types[str(field.type)]) for field in fields(kind)], align=True))
    for field in fields(kind):
        made[field.name] = field.default
    return made


def _numbers(kind: type[float], count: int) -> Any:
    return [kind(0)] * count if numba is None else numpy.zeros(count, {int: "i4", float: "f8"}[kind])


def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The same, by numba where it is installed. It all stays in one file: numba's cache sees no change of another."""
    if numba is None:
        return function
    made: Callable[_P, _R]
    try:
        made = numba.njit(cache=True)(function)
    except RuntimeError:  # no folder here can be written to; then each process compiles it anew
        made = numba.njit(function)
    return made


@compiled
def open_line(world: Rows, line: int, capacity: float) -> None:
    """A new line of so many bytes per second."""
    world.lines[line].capacity = capacity


@compiled
def join(world: Rows, flow: int, size: float, now: float, path: tuple[int, int, int, int]) -> None:
    """Begin a flow of `size` bytes over the lines of `path`, which ends with -1 where there are fewer."""
    row = world.flows[flow]
    row.size, row.left, row.since, row.rate, row.ends, row.place = size, size, now, 0.0, inf, -1
    for way in range(WAYS):
        hop, line = flow * WAYS + way, path[way]
        world.hops[hop].line = line
        if line < 0:
            break
        at = world.lines[line]
        world.hops[hop].before = at.last
        world.hops[hop].after = -1
        if at.last < 0:
            at.first = hop
        else:
            world.hops[at.last].after = hop
        at.last = hop
        at.spare = -inf
        _mark(world, line)
    _stir(world, flow)


@compiled
def leave(world: Rows, flow: int) -> None:
    """End a flow."""
    row = world.flows[flow]
    row.stirred = False
    if row.place >= 0:
        _drop(world, row.place)
    for way in range(WAYS):
        hop = world.hops[flow * WAYS + way]
        if hop.line < 0:
            break
        if hop.before < 0:
            world.lines[hop.line].first = hop.after
        else:
            world.hops[hop.before].after = hop.after
        if hop.after < 0:
            world.lines[hop.line].last = hop.before
        else:
            world.hops[hop.after].before = hop.before
        _mark(world, hop.line)


@compiled
def left(world: Rows, flow: int, now: float) -> float:
    """Bytes of a flow that have not passed."""
    row = world.flows[flow]
    return max(0.0, row.left - row.rate * (now - row.since))


@compiled
def takes_s(world: Rows, flow: int, size: float, now: float) -> float:
    """How long the next `size` bytes of a flow take, or what is left of it; 0 as long as its rate is not known."""
    rate = world.flows[flow].rate
    return min(size, left(world, flow, now)) / rate if rate else 0.0


@compiled
def moved_on(world: Rows, line: int, now: float) -> float:
    """Bytes that have passed of the flows of a line."""
    moved = 0.0
    hop = world.lines[line].first
    while hop >= 0:
        flow = hop // WAYS
        moved += world.flows[flow].size - left(world, flow, now)
        hop = world.hops[hop].after
    return moved


@compiled
def overloaded(world: Rows, flow: int) -> int:
    """A line of this flow that carries more than it can, or -1."""
    for way in range(WAYS):
        line = world.hops[flow * WAYS + way].line
        if line < 0:
            break
        used = 0.0
        hop = world.lines[line].first
        while hop >= 0:
            used += world.flows[hop // WAYS].rate
            hop = world.hops[hop].after
        if used > world.lines[line].capacity * (1 + _FUZZ):
            return line
    return -1


@compiled
def next_end(world: Rows) -> int:
    """The flow that ends next, of those that are under way."""
    return world.ending[0]  # type: ignore[no-any-return]


@compiled
def settle(world: Rows, now: float) -> float:
    """Find the rates that hold from now on. Returns when the next flow ends, infinity if none does."""
    counts = world.counts
    while counts[_DIRTY]:
        line = world.dirty[counts[_FIRST_DIRTY]]
        counts[_FIRST_DIRTY] = (counts[_FIRST_DIRTY] + 1) % len(world.dirty)
        counts[_DIRTY] -= 1
        world.lines[line].dirty = False
        _look(world, line)
    for number in range(counts[_STIRRED]):
        flow = world.stirred[number]
        row = world.flows[flow]
        if row.stirred:
            row.stirred = False
            rate = inf
            for way in range(WAYS):
                line = world.hops[flow * WAYS + way].line
                if line < 0:
                    break
                rate = min(rate, world.lines[line].level)
            if rate != row.rate:
                row.left -= row.rate * (now - row.since)
                row.since, row.rate, row.ends = now, rate, now + max(0.0, row.left) / rate
                _place(world, flow)
    counts[_STIRRED] = 0
    return world.flows[world.ending[0]].ends if counts[_ENDING] else inf


@compiled
def _look(world: Rows, line: int) -> None:
    """Find the level of a line, and have its neighbours look where that matters to them."""
    at = world.lines[line]
    if at.spare > _FUZZ * at.capacity:
        return
    before, level = at.level, _level(world, line)
    if before == level or before < level <= before * _RISE:
        return
    at.level = level
    low, rise = (level, 0.0) if level < before else (before, level - before)
    hop = at.first
    while hop >= 0:
        flow = hop // WAYS
        rate = world.flows[flow].rate
        touched = before <= rate or level < rate
        for other in range(flow * WAYS, flow * WAYS + WAYS):
            beside = world.hops[other].line
            if beside < 0:
                break
            if other != hop and low < world.lines[beside].level:
                world.lines[beside].spare -= rise
                _mark(world, beside)
                touched = True
        if touched:
            _stir(world, flow)
        hop = world.hops[hop].after


@compiled
def _level(world: Rows, line: int) -> float:
    """What a flow of this line may have that no other line holds back; inf when others hold back all of them."""
    bounds, count = world.bounds, 0
    hop = world.lines[line].first
    while hop >= 0:
        bound, flow = inf, hop // WAYS
        for other in range(flow * WAYS, flow * WAYS + WAYS):
            beside = world.hops[other].line
            if beside < 0:
                break
            if other != hop:
                bound = min(bound, world.lines[beside].level)
        bounds[count] = bound
        count += 1
        hop = world.hops[hop].after
    # Whoever is held back below an equal share leaves the rest of it to the others, until nobody is.
    rest = world.lines[line].capacity
    fell = True
    while fell and count:
        fell, share, kept = False, rest / count, 0
        for number in range(count):
            bound = bounds[number]
            if bound < share:
                rest -= bound
                fell = True
            else:
                bounds[kept] = bound
                kept += 1
        count = kept
    world.lines[line].spare = 0.0 if count else rest
    return rest / count if count else inf


@compiled
def _mark(world: Rows, line: int) -> None:
    if not world.lines[line].dirty:
        world.lines[line].dirty = True
        counts = world.counts
        world.dirty[(counts[_FIRST_DIRTY] + counts[_DIRTY]) % len(world.dirty)] = line
        counts[_DIRTY] += 1


@compiled
def _stir(world: Rows, flow: int) -> None:
    if not world.flows[flow].stirred:
        world.flows[flow].stirred = True
        world.stirred[world.counts[_STIRRED]] = flow
        world.counts[_STIRRED] += 1


# ---- the heap of ends


@compiled
def _place(world: Rows, flow: int) -> None:
    """Put a flow where its end belongs."""
    if world.flows[flow].place < 0:
        _put(world, flow, world.counts[_ENDING])
        world.counts[_ENDING] += 1
    _sink(world, _lift(world, world.flows[flow].place))


@compiled
def _drop(world: Rows, place: int) -> None:
    """Take a flow out."""
    world.flows[world.ending[place]].place = -1
    world.counts[_ENDING] -= 1
    last = world.counts[_ENDING]
    if place < last:
        _put(world, world.ending[last], place)
        _sink(world, _lift(world, place))


@compiled
def _put(world: Rows, flow: int, place: int) -> None:
    world.ending[place] = flow
    world.flows[flow].place = place


@compiled
def _lift(world: Rows, place: int) -> int:
    flow = world.ending[place]
    while place:
        above = world.ending[(place - 1) // 2]
        if world.flows[above].ends <= world.flows[flow].ends:
            break
        _put(world, above, place)
        place = (place - 1) // 2
    _put(world, flow, place)
    return place


@compiled
def _sink(world: Rows, place: int) -> None:
    flow, count = world.ending[place], world.counts[_ENDING]
    while True:
        below = 2 * place + 1
        if below >= count:
            break
        if below + 1 < count and (world.flows[world.ending[below + 1]].ends < world.flows[world.ending[below]].ends):
            below += 1
        if world.flows[flow].ends <= world.flows[world.ending[below]].ends:
            break
        _put(world, world.ending[below], place)
        place = below
    _put(world, flow, place)
