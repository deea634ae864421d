"""One deadline per key, postponed cheaply."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from krakentx.swarm.alarms import Alarms


def test_wakes_in_time_and_once() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.set("a", 5.0)
    alarms.set("b", 3.0)
    assert alarms.next() == 3.0
    assert alarms.due(2.9) is None
    assert alarms.due(3.0) == "b"
    assert alarms.due(9.0) == "a"
    assert alarms.due(9.0) is None
    assert alarms.next() is None


def test_no_later_only_ever_brings_forward() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.no_later("a", 5.0)
    alarms.no_later("a", 7.0)
    alarms.no_later("a", 4.0)
    assert alarms.due(4.0) == "a"


def test_a_postponed_alarm_does_not_ring_early() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.set("a", 1.0)
    alarms.set("a", 5.0)
    assert alarms.due(4.9) is None
    assert alarms.due(5.0) == "a"


def test_a_cancelled_alarm_does_not_ring() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.set("a", 1.0)
    alarms.cancel("a")
    assert alarms.next() is None
    assert alarms.due(2.0) is None
    assert len(alarms) == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100)), max_size=300))
def test_the_latest_word_counts(steps: list[tuple[int, int]]) -> None:
    alarms: Alarms[int] = Alarms()
    wanted: dict[int, float] = {}
    for key, when in steps:
        alarms.set(key, when)
        wanted[key] = when
    rung = []
    for now in range(101):
        first = alarms.next()
        assert first is None or first <= min(wanted.values(), default=200)
        while (key := alarms.due(now)) is not None:
            assert wanted.pop(key) == now
            rung.append(key)
    assert not wanted


def test_the_heap_stays_small() -> None:
    alarms: Alarms[int] = Alarms()
    for step in range(10_000, 0, -1):
        alarms.set(1, float(step))  # each earlier than the last: the worst case
    assert len(alarms._heap) < 200
