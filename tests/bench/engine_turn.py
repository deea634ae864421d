"""What a turn of the Engine costs (`python -m tests.bench.engine_turn` tells by event), and the simulator's speed.

The turns are those of agents that pull 716 pieces of 4 MiB (3 GB) at 300 MB/s from some 20 neighbours each, in the
model, so that no socket and no disk is in them. Every call of `Engine.handle` is timed by the wall clock.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from statistics import median
from typing import Any

from attrs import Factory, define

from krakentx.sim.host import Mind
from krakentx.sim.network import Network
from krakentx.sim.scenario import some_blob
from krakentx.sim.world import World
from krakentx.swarm.effects import Effect
from krakentx.swarm.engine import Engine
from krakentx.swarm.events import ConnID, Event, MessageReceived
from tests.bench.progress import Progress

_AGENTS = 24
_PIECE = 4 << 20
_PIECES = 716
_RATE = 300e6
_LIMIT_S = 120.0


@define
class Turns:
    """Seconds that turns took, by kind of event; a message by its own kind."""

    took: dict[str, list[float]] = Factory(lambda: defaultdict(list))

    def engine(self, **settings: Any) -> Mind:
        """An Engine whose turns are timed."""
        return _Timed(Engine(**settings), self)


@define
class _Timed:
    engine: Engine
    turns: Turns

    def new_conn(self) -> ConnID:
        return self.engine.new_conn()

    def load(self) -> dict[str, int]:
        return self.engine.load()

    def handle(self, event: Event, now: float) -> list[Effect]:
        began = time.perf_counter()
        effects = self.engine.handle(event, now)
        took = time.perf_counter() - began
        kind = type(event.message if isinstance(event, MessageReceived) else event)
        self.turns.took[kind.__name__].append(took)
        return effects


def turns() -> Turns:
    """Let a swarm pull a blob."""
    timed = Turns()
    world = World(1, network=Network(rate=_RATE), make=timed.engine)
    meta = some_blob(0, _PIECES * _PIECE, _PIECE)
    world.seed_blob(world.add_host("origin", origin=True), meta)
    for number in range(_AGENTS):
        world.want(world.add_host(f"agent{number}", fallback=False), [meta], world.rng.random() * 0.2)
    assert world.clock.run(_LIMIT_S, lambda: not world.unfinished), "the swarm did not finish"
    return timed


def events_per_s() -> int:
    """What `krakentx sim` says of itself: events that its Engines handle in a second."""
    command = [sys.executable, "-m", "krakentx.cli.main", "sim", "--hosts=60", "--origins=5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=True)
    return int(done.stderr.split()[-3])


def measure(rounds: int, progress: Progress) -> dict[str, Any]:
    """The rows `engine_turn` and `simulator`."""
    progress.step("turns of the Engine")
    took = sorted(seconds for each in turns().took.values() for seconds in each)
    speeds = []
    for number in range(rounds):
        progress.step(f"simulator, round {number + 1} of {rounds}")
        speeds.append(events_per_s())
    return {
        "engine_turn": {"turns": len(took), "p50_us": _us(took, 0.5), "p99_us": _us(took, 0.99)},
        "simulator": {"events_per_s": median(speeds)},
    }


def _us(ascending: list[float], share: float) -> float:
    return ascending[int(share * (len(ascending) - 1))] * 1e6


def main() -> None:
    """Print a table: turns, and microseconds of one."""
    took = turns().took
    rows = [*took.items(), ("all", [seconds for each in took.values() for seconds in each])]
    print(f"{'event':<20}{'turns':>9}{'mean us':>9}{'p50 us':>9}{'p99 us':>9}")
    for name, each in sorted(rows, key=lambda row: -sum(row[1])):
        each.sort()
        figures = (sum(each) / len(each) * 1e6, _us(each, 0.5), _us(each, 0.99))
        print(f"{name:<20}{len(each):>9}" + "".join(f"{figure:>9.1f}" for figure in figures))


if __name__ == "__main__":
    main()
