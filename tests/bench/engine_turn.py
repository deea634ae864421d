"""What one turn of the Engine costs: `python tests/bench/engine_turn.py`.

A swarm of 60 agents pulls 716 pieces of 4 MiB (3 GB), 20 connections each; every call of `Engine.handle` is timed, by
kind of event.
"""

from __future__ import annotations

import time
from collections import defaultdict

from krakentx.sim.scenario import some_blob
from krakentx.sim.world import Network, World
from krakentx.swarm.engine import Engine


def main() -> None:
    """Print a table: events, mean and 99th percentile in microseconds."""
    costs: dict[str, list[float]] = defaultdict(list)
    handle = Engine.handle

    def timed(self: Engine, event: object, now: float) -> object:
        began = time.perf_counter()
        effects = handle(self, event, now)  # type: ignore[arg-type]  # only ever called with events
        name = type(event).__name__
        if name == "MessageReceived":
            name = type(event.message).__name__  # type: ignore[attr-defined]  # it has one
        costs[name].append(time.perf_counter() - began)
        return effects

    Engine.handle = timed  # type: ignore[method-assign,assignment]  # for the length of this run
    world = World(1, network=Network(rate=300e6))
    meta = some_blob(0, 716 * (4 << 20), 4 << 20)
    origin = world.add_host("origin", origin=True)
    world.seed_blob(origin, meta)
    agents = [world.add_host(f"agent{number}", fallback=False) for number in range(60)]
    for host in agents:
        world.want(host, [meta], world.rng.random() * 0.2)
    began = time.perf_counter()
    world.clock.run(120.0, lambda: not world.unfinished)
    took = time.perf_counter() - began
    total = sorted(cost for each in costs.values() for cost in each)
    costs["all"] = total
    print(f"{'event':<20}{'count':>9}{'mean us':>9}{'p99 us':>9}")
    for name, each in sorted(costs.items(), key=lambda item: -sum(item[1])):
        each.sort()
        mean = sum(each) / len(each) * 1e6
        print(f"{name:<20}{len(each):>9}{mean:>9.1f}{each[int(len(each) * 0.99)] * 1e6:>9.1f}")
    last = max(host.finished_at[meta.info_hash] for host in agents)
    print(f"virtual {last:.2f} s, real {took:.1f} s, messages per host {sum(h.messages for h in agents) / 60:.0f}")


if __name__ == "__main__":
    main()
