"""Lines about strangers: few a minute."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, LogPublisher, formatEvent

from krakentx.peer.quiet import MOST_ABOUTS, WINDOW_S, Quiet


class Lines:
    """A logger, and what it was told above `debug`."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.log = Logger(namespace="x", observer=LogPublisher(self.events.append))

    @property
    def told(self) -> list[str]:
        return [formatEvent(event) for event in self.events if event["log_level"] >= LogLevel.info]


@pytest.fixture
def lines() -> Lines:
    return Lines()


def test_so_many_lines_about_one_thing_then_one_more_and_the_rest_is_debug(lines: Lines, clock: Clock) -> None:
    quiet = Quiet(clock, 3)
    for number in range(10):
        quiet.emit("10.0.0.1", lines.log, LogLevel.warn, "bad {number}", number=number)
    quiet.emit("10.0.0.2", lines.log, LogLevel.warn, "another")
    more = "more like this about 10.0.0.1 is told at --log-level debug for a minute"
    assert lines.told == ["bad 0", "bad 1", "bad 2", more, "another"]
    assert len(lines.events) == 12


def test_after_a_minute_it_is_told_again(lines: Lines, clock: Clock) -> None:
    quiet = Quiet(clock, 1)
    for _ in range(2):
        quiet.emit("a", lines.log, LogLevel.warn, "bad")
        quiet.emit("a", lines.log, LogLevel.warn, "bad")
        clock.advance(WINDOW_S)
    assert lines.told.count("bad") == 2


def test_more_things_than_can_be_remembered_share_their_lines(lines: Lines, clock: Clock) -> None:
    quiet = Quiet(clock, 2)
    for number in range(10 * MOST_ABOUTS):
        quiet.emit(str(number), lines.log, LogLevel.warn, "bad")
    assert lines.told.count("bad") == MOST_ABOUTS + 2
    clock.advance(WINDOW_S)
    quiet.emit("new", lines.log, LogLevel.warn, "good")
    assert lines.told[-1] == "good"
