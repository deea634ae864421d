"""Who fetches pieces from an origin waits for a turn, and not for long."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from krakentx.core.errors import Busy
from krakentx.origin.line import Line


class Fetching:
    """A fetch that lasts until it is told to end."""

    def __init__(self, line: Line) -> None:
        self.began = False
        self.trouble: object = None
        self._end: Deferred[None] = Deferred()
        self.task = Deferred.fromCoroutine(self._run(line))
        self.task.addErrback(lambda failure: setattr(self, "trouble", failure.value))

    async def _run(self, line: Line) -> None:
        async with line.turn():
            self.began = True
            await self._end

    def end(self) -> None:
        self._end.callback(None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def line(clock: Clock) -> Line:
    return Line(clock, at_once=2, wait_s=2.0, longest=3)


def test_a_few_at_once_then_in_the_order_in_which_they_came(line: Line) -> None:
    some = [Fetching(line) for _ in range(5)]
    assert [one.began for one in some] == [True, True, False, False, False]
    some[1].end()
    assert [one.began for one in some] == [True, True, True, False, False]
    for one in (some[0], some[2], some[3], some[4]):
        one.end()
    late = Fetching(line)
    assert late.began
    assert not any(one.trouble for one in some)


def test_a_turn_that_does_not_come_in_time(line: Line, clock: Clock) -> None:
    first, second = Fetching(line), Fetching(line)
    third = Fetching(line)
    clock.advance(1.9)
    assert third.trouble is None
    clock.advance(0.2)
    assert isinstance(third.trouble, Busy)
    fourth = Fetching(line)
    first.end()
    assert fourth.began, "who was sent away holds no place"
    second.end()
    assert not clock.getDelayedCalls()


def test_the_line_has_an_end(line: Line) -> None:
    for _ in range(5):
        Fetching(line)
    sixth = Fetching(line)
    assert isinstance(sixth.trouble, Busy)
    assert "3 wait" in str(sixth.trouble)


def test_a_client_that_leaves_gives_up_its_place(line: Line, clock: Clock) -> None:
    first, _ = Fetching(line), Fetching(line)
    leaves, stays = Fetching(line), Fetching(line)
    leaves.task.cancel()
    first.end()
    assert stays.began
    assert not leaves.began
    first.task.cancel()
    clock.advance(10)
    assert stays.trouble is None


def test_a_fetch_that_fails_makes_room(line: Line) -> None:
    served = [Fetching(line), Fetching(line)]
    waits = Fetching(line)
    served[0].task.cancel()
    assert waits.began
