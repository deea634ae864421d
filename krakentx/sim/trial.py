"""One small swarm under random faults, and what must hold afterwards.

`python -m krakentx.sim.trial SEED` plays a seed again with a log of every effect.
"""

from __future__ import annotations

import sys
from random import Random

from attrs import Factory, define, field

from krakentx.core.metainfo import MetaInfo
from krakentx.sim.audit import audit
from krakentx.sim.faults import Faults
from krakentx.sim.host import Host
from krakentx.sim.scenario import some_blob
from krakentx.sim.world import World
from krakentx.swarm.config import SwarmConfig

AGENTS = 20
PIECES = 24
PIECE_LENGTH = 1 << 20
LIMIT_S = 120.0  # virtual seconds until every honest agent must have finished
_SETTLE_S = 90.0
_CONFIG = SwarmConfig(seeder_tti_s=20.0, conn_tti_s=10.0)


def some_faults(seed: int) -> tuple[Faults, bool]:
    """What goes wrong under this seed, and whether pieces can be had by HTTP.

    Forged pieces fit their sum: without strong sums nobody can tell who forged.
    """
    rng = Random(f"faults {seed}")

    def sometimes(value: float) -> float:
        return value if rng.random() < 0.4 else 0.0

    http = rng.random() < 0.5
    down = (rng.random() * 0.5, 0.5 + rng.random() * 3) if rng.random() < 0.4 else (0.0, 0.0)
    faults = Faults(
        host_death=sometimes(0.3),
        stall=sometimes(0.03),
        reset=sometimes(0.03),
        mute=sometimes(0.2),
        liar=sometimes(0.2),
        forger=sometimes(0.15),
        announce_loss=sometimes(0.3),
        tracker_down_s=down,
        blackout=sometimes(0.3),
        restart=sometimes(0.3),
    )
    return faults, http


@define
class Trial:
    """A swarm of one origin and 20 agents that want one blob."""

    seed: int
    trace: bool = False
    log: list[str] = Factory(list)
    meta: MetaInfo = Factory(lambda: some_blob(0, PIECES * PIECE_LENGTH, PIECE_LENGTH))
    agents: list[Host] = Factory(list)
    world: World = field(init=False)
    http: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        faults, self.http = some_faults(self.seed)
        self.world = World(self.seed, faults=faults, config=_CONFIG, record=self.log.append if self.trace else None)

    def run(self) -> list[str]:
        """Play it. Returns what is wrong; an empty list is the hoped-for result."""
        world, meta = self.world, self.meta
        origin = world.add_host("origin", origin=True)
        world.seed_blob(origin, meta)
        for number in range(AGENTS):
            host = world.add_host(f"agent{number}", fallback=self.http)
            self.agents.append(host)
            world.want(host, [meta], world.rng.random() * 0.2)
        world.clock.run(LIMIT_S, lambda: not world.unfinished)
        problems = [f"{host.name} did not finish: {host.failed}" for host in world.unfinished]
        problems = problems or self._traffic() + self._left_behind(origin)
        audit(world)
        return problems

    def _traffic(self) -> list[str]:
        """Nobody was flooded: bounds that are wide, since every fault costs copies."""
        problems = []
        honest = [host for host in self.agents if host.honest]
        copies = self.world.sent["origin"] / self.meta.length
        skipped = sum(host.received["skipped"] for host in honest) / (len(honest) * self.meta.length)
        # An agent whose blob was forged takes a whole copy from the origin the next time.
        if copies > AGENTS / 3 + 1.5 * self.world.fault_counts["corrupt_blob"]:
            problems.append(f"the origin sent {copies:.1f} copies")
        if skipped > 0.25:
            problems.append(f"{skipped:.0%} of the bytes came twice")
        return problems

    def _left_behind(self, origin: Host) -> list[str]:
        """Let the dust settle with the honest alone: nothing may be left, and nothing may have grown."""
        world = self.world
        for host in self.agents:
            if not host.honest:
                world.kill(host)
        world.clock.run(world.clock.now + _SETTLE_S, lambda: False)
        problems = []
        for host in [origin, *self.agents]:
            if not host.honest:
                continue
            load = host.engine.load()
            if load.pop("blacklist") > len(world.hosts):
                problems.append(f"{host.name}: blacklist of strangers")
            left = {kind: count for kind, count in load.items() if count}
            if left:
                problems.append(f"{host.name} holds on to {left}")
        return problems


def main(argv: list[str]) -> int:
    """Play the seeds on the command line again; the log of the first comes out."""
    for text in argv:
        trial = Trial(int(text), trace=True)
        try:
            problems = trial.run()
        finally:
            print("\n".join(trial.log))
        print(f"seed {text}: {trial.world.faults}\n{problems or 'passed'}")
        if problems:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
