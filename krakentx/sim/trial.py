"""One small swarm under random faults, and what must hold meanwhile and afterwards.

`python -m krakentx.sim.trial SEED` plays a seed again with a log of every event and effect; `many` plays thousands.
"""

from __future__ import annotations

import sys
import traceback
from itertools import count
from random import Random

from attrs import Factory, define, field, frozen

from krakentx.core.metainfo import MetaInfo
from krakentx.sim.audit import audit
from krakentx.sim.faults import Faults, StrongSums
from krakentx.sim.host import Host
from krakentx.sim.scenario import some_blob
from krakentx.sim.world import World
from krakentx.swarm.config import SwarmConfig

AGENTS = 20
PIECES = 24
PIECE_LENGTH = 1 << 20
LIMIT_S = 120.0  # virtual seconds until every honest agent must have finished
KINDS = (
    "death",
    "origin_death",
    "blackout",
    "restart",
    "stall",
    "reset",
    "mute",
    "unanswered",
    "liar",
    "lie",
    "forger",
    "announce",
    "tracker_outage",
    "fetch",
)
"""Kinds of faults, as a world counts those that came to pass."""

_SETTLE_S = 90.0
_MOST_TURNS = 2_000_000  # things that happen in a trial; some 20,000 are usual
_LOOK_S = 0.1  # between looks at the bounds while somebody downloads
_LATE_LOOK_S = 5.0
_QUEUED = 4  # a peer asks for two pieces; the two before may still wait here while their CANCEL is under way
_RACKS = (0, 0, 2, 4, AGENTS)  # with as many racks as agents each is alone in its own
_UPLINK = 0.3  # of a rack, as a share of the sum of its hosts' rates
_ZONELESS = 0.1  # of the hosts
_CONFIG = SwarmConfig(seeder_tti_s=20.0, conn_tti_s=10.0)


@frozen
class Plan:
    """What goes wrong.

    Args:
        http: agents try HTTP when the swarm gives nothing; with `faults.http_down` they try in vain.
        origin_dies: one of the two origins.
        racks: zones among which hosts are spread, all but a few; 0 for none.
        strong_sums: who can tell which pieces are forged.
    """

    faults: Faults
    http: bool
    origin_dies: bool
    racks: int
    strong_sums: StrongSums

    @classmethod
    def of(cls, seed: int) -> Plan:
        """The plan of a seed."""
        rng = Random(f"faults {seed}")

        def sometimes(value: float) -> float:
            return value if rng.random() < 0.4 else 0.0

        http = rng.random() < 0.7
        faults = Faults(
            host_death=sometimes(0.3),
            stall=sometimes(0.03),
            reset=sometimes(0.03),
            mute=sometimes(0.2),
            liar=sometimes(0.2),
            forger=sometimes(0.15),
            announce_loss=sometimes(0.3),
            tracker_down_s=(rng.random() * 0.3, 0.5 + rng.random() * 3) if rng.random() < 0.4 else (0.0, 0.0),
            blackout=sometimes(0.3),
            restart=sometimes(0.3),
            http_down=http and rng.random() < 0.6,
        )
        dies = rng.random() < 0.4
        return cls(faults, http, dies, rng.choice(_RACKS), rng.choice(list(StrongSums)))


@define
class Trial:
    """A swarm of two origins and 20 agents that want one blob."""

    seed: int
    trace: bool = False
    log: list[str] = Factory(list)
    meta: MetaInfo = Factory(lambda: some_blob(0, PIECES * PIECE_LENGTH, PIECE_LENGTH))
    origins: list[Host] = Factory(list)
    agents: list[Host] = Factory(list)
    plan: Plan = field(init=False)
    world: World = field(init=False)
    kinds: frozenset[str] = frozenset()  # of faults that came to pass
    _problems: list[str] = Factory(list)

    def __attrs_post_init__(self) -> None:
        self.plan = Plan.of(self.seed)
        log = self.log.append if self.trace else None
        self.world = World(
            self.seed,
            faults=self.plan.faults,
            config=_CONFIG,
            strong_sums=self.plan.strong_sums,
            record=log,
            listen=log,
        )

    def run(self) -> list[str]:
        """Play it. Returns what is wrong; an empty list is the hoped-for result."""
        world = self.world
        self._build()
        self._look()
        self._pass(LIMIT_S, while_unfinished=True)
        self._problems += [f"{host.name} did not finish: {host.failed}" for host in world.unfinished]
        self.kinds = frozenset(kind for kind in KINDS if world.fault_counts[kind])
        if not self._problems:
            self._traffic()
            self._left_behind()
        audit(world)
        return self._problems

    def _build(self) -> None:
        world, meta = self.world, self.meta
        for number in range(2):
            origin = world.add_host(f"origin{number}", origin=True)
            world.seed_blob(origin, meta)
            self.origins.append(origin)
        if self.plan.origin_dies:
            world.clock.at(world.rng.random() * world.faults.window_s, world.kill, origin)
        size = AGENTS / max(1, self.plan.racks)
        rate = _UPLINK * size * world.network.rate
        racks = [world.add_rack(f"rack{number}", max(rate, world.network.rate)) for number in range(self.plan.racks)]
        for number in range(AGENTS):
            rack = racks[number % len(racks)] if racks and world.rng.random() > _ZONELESS else None
            host = world.add_host(f"agent{number}", fallback=self.plan.http, rack=rack)
            self.agents.append(host)
            world.want(host, [meta], world.rng.random() * 0.2)

    def _pass(self, until_s: float, *, while_unfinished: bool) -> None:
        """Let time pass, but not stand still: hosts that answer each other for ever are a fault."""
        turns = count()

        def over() -> bool:
            assert next(turns) < _MOST_TURNS, "no end in sight"
            return while_unfinished and not self.world.unfinished

        self.world.clock.run(until_s, over)

    # ---- meanwhile

    def _look(self) -> None:
        """See again and again that nothing outgrows its bound."""
        world = self.world
        for host in world.hosts.values():
            load = host.engine.load()
            for kind, most in self._bounds(host, load["connections"]).items():
                if load[kind] > most:
                    self._problems.append(f"{host.name} has {load[kind]} {kind}, at most {most} allowed")
        if not self._problems:
            world.clock.at(_LOOK_S if world.unfinished else _LATE_LOOK_S, self._look)

    def _bounds(self, host: Host, connections: int) -> dict[str, int]:
        """What the Engine may hold at most, with so many connections of its one torrent."""
        others = len(self.world.hosts) - 1
        pipeline = max(_CONFIG.dispatch.pipeline_limit, _CONFIG.dispatch.origin_pipeline_limit)
        return {
            "torrents": 1,
            "connections": _CONFIG.connstate.max_open_conn,
            "handshakes": 2 * others,  # one may have come back, and its old socket is not known to be dead
            "requests": pipeline * connections,
            "fetches": _CONFIG.fallback.parallel if self.plan.http else 0,
            "writing": connections,
            "candidates": others,
            "uploads": _QUEUED * connections,
            "active_uploads": connections,
            "blacklist": others,
            "alarms": 2 + connections,  # its torrent, its uploads
        }

    # ---- afterwards

    def _traffic(self) -> None:
        """Nobody was flooded: bounds that are wide, since every fault costs copies."""
        honest = [host for host in self.agents if host.honest]
        copies = self.world.sent["origin"] / self.meta.length
        skipped = sum(host.received["skipped"] for host in honest) / (max(1, len(honest)) * self.meta.length)
        # A mute host takes and gives nothing. An agent whose blob was forged takes a whole copy from the origins then.
        counts = self.world.fault_counts
        if copies > (AGENTS + counts["mute"]) / 3 + 1.5 * counts["corrupt_blob"]:
            self._problems.append(f"the origins sent {copies:.1f} copies")
        if skipped > 0.25:
            self._problems.append(f"{skipped:.0%} of the bytes came twice")

    def _left_behind(self) -> None:
        """Let the dust settle with the honest alone: all bytes are right, and nothing is held any more."""
        world = self.world
        for host in self.agents:
            if not host.honest:
                world.kill(host)
        self._pass(world.clock.now + _SETTLE_S, while_unfinished=False)
        for host in [*self.origins, *self.agents]:
            if host.honest:
                self._problems += self._remains(host)

    def _remains(self, host: Host) -> list[str]:
        problems = []
        right = sum(host.blobs[self.meta.info_hash].values())
        if right != PIECES:
            problems.append(f"{host.name} has {right} of {PIECES} pieces right")
        load = host.engine.load()
        del load["blacklist"]  # kept for a while, and bounded
        left = {kind: count for kind, count in load.items() if count}
        left |= {"sockets": len(host.ends)} if host.ends else {}
        left |= {"writers": len(host.writing)} if host.writing else {}
        if left:
            problems.append(f"{host.name} holds on to {left}")
        return problems


@frozen
class Played:
    """What came of a seed.

    Args:
        lasted_s: virtual seconds.
        kinds: faults that came to pass.
    """

    seed: int
    problems: tuple[str, ...]
    lasted_s: float
    kinds: frozenset[str]


def play(seed: int) -> Played:
    """Play a seed; what is raised by anything in it is a problem too."""
    trial = Trial(seed)
    try:
        problems = trial.run()
    except Exception:
        problems = [traceback.format_exc()]
    return Played(seed, tuple(problems), trial.world.clock.now, trial.kinds)


def main(argv: list[str]) -> int:
    """Play the seeds on the command line again, each with its log; 1 at the first that fails."""
    for text in argv:
        trial = Trial(int(text), trace=True)
        try:
            problems = trial.run()
        finally:
            print("\n".join(trial.log))
            print(f"seed {text}: {trial.plan}")
        print("\n".join(problems) or "passed")
        if problems:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
