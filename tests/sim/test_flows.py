"""The lines of the model: fair shares as a slow, exact method finds them, and bytes that take their time."""

from __future__ import annotations

from random import Random

import pytest

from krakentx.sim.clock import Clock
from krakentx.sim.flows import Flow, Flows, Line


def world() -> tuple[Clock, Flows]:
    clock = Clock(0.001)
    return clock, Flows(clock)


def exact(lines: list[Line], live: set[Flow]) -> dict[Flow, float]:
    """Fill the scarcest line first, again and again."""
    rates: dict[Flow, float] = {}
    rest = {line: line.capacity for line in lines}
    while live - rates.keys():
        open_on = {line: [flow for flow in live - rates.keys() if line in flow.lines] for line in lines}
        scarcest = min((rest[line] / len(open_on[line]), line.number) for line in lines if open_on[line])[1]
        line = lines[scarcest]
        share = rest[line] / len(open_on[line])
        for flow in open_on[line]:
            rates[flow] = share
            for crossed in flow.lines:
                rest[crossed] -= share
    return rates


def rate(flows: Flows, flow: Flow) -> float:
    """Of the next byte."""
    return 1e-6 / flows.takes_s(flow, 1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_max_min_fair_and_no_line_is_overloaded(seed: int) -> None:
    rng = Random(seed)
    clock, flows = world()
    cards = [flows.line(f"card {number}", rng.uniform(50, 200)) for number in range(40)]
    racks = [flows.line(f"rack {number}", rng.uniform(200, 900)) for number in range(4)]
    live: set[Flow] = set()

    def begin() -> None:
        up, down = rng.sample(range(40), 2)
        middle = () if up % 4 == down % 4 else (racks[up % 4], racks[down % 4])
        flow = flows.start((cards[up], *middle, cards[down]), rng.uniform(10, 50), lambda: end(flow))
        live.add(flow)

    def end(flow: Flow) -> None:
        live.remove(flow)
        begin()

    for _ in range(60):
        begin()
    for moment in range(1, 20):
        clock.run(moment / 5, lambda: False)
        shares = exact(flows.lines, live)
        rates = {flow: rate(flows, flow) for flow in live}
        assert all(rates[flow] >= 0.98 * shares[flow] for flow in live)
        assert sum(rates.values()) >= 0.99 * sum(shares.values())
        for line in flows.lines:
            assert sum(rates[flow] for flow in live if line in flow.lines) <= line.capacity * 1.000001
            assert line.carried <= flows.passed(line) <= line.capacity * clock.now * 1.000001


def test_a_flow_takes_its_size_over_its_share() -> None:
    clock, flows = world()
    one, two, three = (flows.line(name, 100.0) for name in ("one", "two", "three"))
    ended: dict[str, float] = {}
    flows.start((one, two), 100.0, lambda: ended.update(long=clock.now))
    flows.start((one, three), 25.0, lambda: ended.update(short=clock.now))
    clock.run(10.0, lambda: False)
    assert ended == {"short": pytest.approx(0.5), "long": pytest.approx(1.25)}
    assert one.carried == pytest.approx(125.0)
    assert flows.passed(one) == one.carried, "nothing is under way"


def test_a_flow_that_is_stopped_counts_for_what_it_moved() -> None:
    clock, flows = world()
    one, two = flows.line("one", 100.0), flows.line("two", 50.0)
    flow = flows.start((one, two), 100.0, lambda: None)
    clock.run(1.0, lambda: False)
    assert flows.stop(flow) == pytest.approx(50.0)
    assert two.carried == pytest.approx(50.0)
    clock.run(9.0, lambda: False)


def test_what_is_asked_for_first_happens_first() -> None:
    clock = Clock(0.5)
    seen: list[str] = []
    clock.at(1.0, seen.append, "later")
    clock.hop(seen.append, "hop")
    clock.soon(seen.append, "soon")
    clock.at(0.5, seen.append, "at the time of the hop, asked for before")
    assert not clock.run(2.0, lambda: False)
    assert seen == ["soon", "at the time of the hop, asked for before", "hop", "later"]
    assert clock.now == 1.0
