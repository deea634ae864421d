"""Events one after another, with an Engine made of functions."""

from __future__ import annotations

import pytest

from krakentx.core.peer import InfoHash
from krakentx.peer.turns import CONGESTED, Turns
from krakentx.swarm.effects import Finished, Forget
from krakentx.swarm.events import Lost, PeerLost, Tick

A, B = Finished(InfoHash(bytes(20))), Forget(InfoHash(bytes(20)))


def lost(number):
    return PeerLost(number, Lost.CLEAN)


class World:
    """Records, in order, what was handled and what was carried out."""

    def __init__(self, clock):
        self.story = []
        self.answers = {}
        self.reactions = {}
        self.turns = Turns(self, clock, self.execute, self.handled, self.failed, lambda: 0)

    def handle(self, event, now):
        self.story.append(event)
        answer = self.answers.get(event, [])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def execute(self, effect):
        self.story.append(effect)
        self.reactions.get(effect, lambda: None)()

    def handled(self, event):
        self.story.append(("handled", event))

    def failed(self, event):
        self.story.append(("failed", event))


@pytest.fixture
def world(clock):
    return World(clock)


def test_an_event_caused_by_an_effect_waits_for_the_other_effects(world):
    world.answers[lost(1)] = [A, B]
    world.reactions[A] = lambda: world.turns.feed(lost(2))
    world.turns.feed(lost(1))
    assert world.story == [lost(1), A, B, ("handled", lost(1)), lost(2), ("handled", lost(2))]


def test_a_turn_has_an_end(world, clock):
    def slow():
        clock.rightNow += 0.004  # the work itself takes time
        if world.story.count(A) < 4:
            world.turns.feed(lost(1))

    world.answers[lost(1)] = [A]
    world.reactions[A] = slow
    world.turns.feed(lost(1))
    assert world.story.count(A) == 2
    world.turns.feed(lost(9))
    assert lost(9) not in world.story, "it came later, so it waits"
    clock.advance(0)
    clock.advance(0)
    assert world.story.count(A) == 4
    assert lost(9) in world.story


def test_congestion_is_told(world, clock):
    def flood():
        world.reactions.clear()
        for number in range(CONGESTED + 2):
            world.turns.feed(lost(number + 10))
        assert world.turns.congested

    world.answers[lost(1)] = [A]
    world.reactions[A] = flood
    world.turns.feed(lost(1))
    assert not world.turns.congested


@pytest.mark.parametrize("where", ["engine", "effect"])
def test_a_bug_ends_one_event_and_not_the_process(world, logs, where):
    if where == "engine":
        world.answers[lost(1)] = ZeroDivisionError("a bug")
    else:
        world.answers[lost(1)] = [A]
        world.reactions[A] = lambda: 1 / 0
    world.turns.feed(lost(1))
    world.turns.feed(lost(2))
    assert ("failed", lost(1)) in world.story
    assert ("handled", lost(2)) in world.story
    [failure] = [event for event in logs if "log_failure" in event]
    assert failure["log_failure"].check(ZeroDivisionError)
    logs.remove(failure)


def test_a_tick_comes_when_it_was_wished(world, clock):
    world.turns.wake_at(5.0)
    clock.advance(4.9)
    assert world.story == []
    clock.advance(0.2)
    assert world.story == [Tick(0), ("handled", Tick(0))]


def test_a_later_wish_replaces_an_earlier_one_and_the_other_way_round(world, clock):
    world.turns.wake_at(5.0)
    world.turns.wake_at(8.0)
    clock.advance(6.0)
    assert world.story == []
    world.turns.wake_at(7.0)
    clock.advance(1.1)
    assert world.story.count(Tick(0)) == 1
    clock.advance(10)
    assert world.story.count(Tick(0)) == 1


def test_after_the_stop_nothing_happens(world, clock):
    world.turns.wake_at(5.0)
    world.turns.stop()
    world.turns.feed(lost(1))
    world.turns.wake_at(1.0)
    clock.advance(10)
    assert world.story == []
    assert clock.getDelayedCalls() == []


def test_the_engine_never_sees_time_go_back(clock):
    seen = []

    class Engine:
        def handle(self, event, now):
            seen.append(now)
            return []

    turns = Turns(Engine(), clock, lambda effect: None, lambda event: None, lambda event: None, lambda: 0)
    clock.advance(10)
    turns.feed(lost(1))
    clock.rightNow = 3.0
    turns.feed(lost(2))
    assert seen == [10.0, 10.0]
