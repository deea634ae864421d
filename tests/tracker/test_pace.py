"""The interval that unfinished peers are told: short while they are few, and never so short that they are too many."""

from __future__ import annotations

import heapq
from random import Random

import pytest
from twisted.internet.task import Clock

from krakentx.tracker.pace import Pace

LEAST_S, MOST = 3.0, 100


class Crowd:
    """Peers that come within a second and ask again when they were told to, give or take a tenth."""

    def __init__(self, most_per_s: float = MOST) -> None:
        self.clock = Clock()
        self.pace = Pace(LEAST_S, most_per_s, self.clock)
        self.rng = Random(5)
        self.next: list[float] = []

    def arrive(self, count: int) -> None:
        now = self.clock.seconds()
        self.next = [now + self.rng.random() for _ in range(count)]
        heapq.heapify(self.next)

    def asks(self, seconds: float) -> float:
        """Let time pass; returns how many asked in a second."""
        end, asked = self.clock.seconds() + seconds, 0
        while self.next and self.next[0] < end:
            self.clock.advance(max(0.0, self.next[0] - self.clock.seconds()))
            again = self.clock.seconds() + self.pace.asked() * (0.9 + 0.2 * self.rng.random())
            heapq.heapreplace(self.next, again)
            asked += 1
        self.clock.advance(max(0.0, end - self.clock.seconds()))
        return asked / seconds


def test_a_few_are_told_the_interval_of_the_configuration() -> None:
    crowd = Crowd()
    crowd.arrive(200)
    crowd.asks(30.0)
    assert crowd.pace.interval_s == LEAST_S


@pytest.mark.parametrize("count", [600, 3000])
def test_many_come_less_often_and_stay_within_what_is_answered(count: int) -> None:
    crowd = Crowd()
    crowd.arrive(count)
    crowd.asks(60.0)
    for _ in range(5):
        assert 0.75 * MOST < crowd.asks(20.0) < 1.25 * MOST
    assert crowd.pace.interval_s == pytest.approx(count / MOST, rel=0.3)


def test_nobody_waits_for_more_than_a_minute() -> None:
    crowd = Crowd()
    crowd.arrive(30_000)
    crowd.asks(150.0)
    assert crowd.pace.interval_s == 60.0


def test_when_the_crowd_is_gone_the_interval_is_short_again() -> None:
    crowd = Crowd()
    crowd.arrive(3000)
    crowd.asks(100.0)
    crowd.clock.advance(3600.0)
    assert crowd.pace.asked() == LEAST_S


def test_without_a_limit_all_are_told_the_same() -> None:
    crowd = Crowd(most_per_s=0)
    crowd.arrive(3000)
    crowd.asks(10.0)
    assert crowd.pace.interval_s == LEAST_S
