"""One run of a swarm: what it is made of, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import ceil
from random import Random

from attrs import Factory, define, evolve, frozen

from krakentx.core.digest import Digest
from krakentx.core.metainfo import MetaInfo
from krakentx.sim.audit import audit
from krakentx.sim.faults import Faults, StrongSums
from krakentx.sim.host import Host, MakeMind
from krakentx.sim.network import Network
from krakentx.sim.pipe import Rack
from krakentx.sim.reference import ReferenceMind
from krakentx.sim.world import World
from krakentx.swarm.config import BandwidthConfig, SwarmConfig
from krakentx.swarm.engine import Engine

POLICIES: dict[str, MakeMind] = {"ours": Engine, "reference": ReferenceMind}

_STEPS = 50  # of the series, in the time of the ideal
_LIMIT = 40.0  # times the ideal, after the last arrival
_LIMIT_S = 120.0  # and so much more


@frozen
class Scenario:
    """What is simulated. Sizes in bytes, rates in bytes per second of each card, times in seconds.

    Args:
        uplink: of a rack, as a share of the sum of its hosts' rates.
        latency_s: there and back.
        arrival_s: hosts arrive by chance within so long, each at its own moment.
        bandwidth: what the configuration of every host allows it, beside its card.
        hash_rate: bytes per second of the sha256 of one blob on a host, which runs while the blob arrives; 0 = no time.
        strong_sums: of pieces, who knows them; hosts of the reference never do.
    """

    hosts: int
    origins: int
    trackers: int
    blobs: int
    blob_size: int
    rate: int
    piece_length: int
    racks: int
    uplink: float
    latency_s: float
    arrival_s: float
    seed: int
    policy: str
    strong_sums: StrongSums = StrongSums.ALWAYS
    faults: Faults = Factory(Faults)
    bandwidth: BandwidthConfig = Factory(BandwidthConfig)
    hash_rate: int = 0

    @property
    def total(self) -> int:
        """Bytes that each host wants."""
        return self.blobs * self.blob_size

    @property
    def ideal_s(self) -> float:
        """How long a host takes that receives all it may from its arrival on."""
        return self.total / min(self.rate, self.bandwidth.ingress_bytes_s or self.rate)

    @property
    def slowest_s(self) -> float:
        """How long a host takes that receives no more than one may send."""
        return max(self.ideal_s, self.total / min(self.rate, self.bandwidth.egress_bytes_s or self.rate))


@define
class Series:
    """What left hosts, in steps of time."""

    step_s: float
    all_bytes: Counter[int] = Factory(Counter)
    origin_bytes: Counter[int] = Factory(Counter)

    def add(self, now: float, size: int, origin: bool) -> None:
        """A piece began to leave."""
        step = int(now / self.step_s)
        self.all_bytes[step] += size
        if origin:
            self.origin_bytes[step] += size


@frozen
class Outcome:
    """What came of a run.

    Args:
        took: seconds from its own arrival until it had all, for every honest host that lived; ascending.
        ends: when those were done.
        unfinished: honest hosts that were not done when the time was up.
        origin_bytes: by the peer wire and by HTTP.
        into_racks: bytes that came into each rack from outside.
        announces: by tracker.
    """

    scenario: Scenario
    took: tuple[float, ...]
    ends: tuple[float, ...]
    unfinished: int
    lasted_s: float
    origin_bytes: int
    received: Counter[str]
    across: int
    into_racks: tuple[float, ...]
    messages: int
    connections: int
    events: int
    announces: dict[str, int]
    faults: Counter[str]
    series: Series

    def percentile(self, share: float) -> float:
        """The time within which this share of the hosts was done; nearest rank, 0 when none was."""
        return self.took[max(0, ceil(share * len(self.took)) - 1)] if self.took else 0.0


def some_blob(number: int, size: int, piece_length: int) -> MetaInfo:
    """Metainfo of a blob that nobody has to have: the model carries no bytes, only whether they are right."""
    name = Digest.of(f"blob {number} of {size} bytes in pieces of {piece_length}".encode())
    return MetaInfo(name, size, piece_length, tuple(range(-(-size // piece_length))))


def run(
    scenario: Scenario,
    *,
    config: SwarmConfig | None = None,
    record: Callable[[str], None] | None = None,
    watch: Callable[[float, float], None] = lambda now, share: None,
) -> Outcome:
    """Simulate.

    Args:
        record: takes a line for each effect.
        watch: told the virtual time and the share of all bytes that arrived, a few hundred times.
    """
    config = config or SwarmConfig()
    if scenario.bandwidth.enable:
        config = evolve(config, conn=evolve(config.conn, bandwidth=scenario.bandwidth))
    network = Network(
        rate=scenario.rate,
        latency_s=scenario.latency_s / 2,
        trackers=scenario.trackers,
        hash_rate=scenario.hash_rate,
    )
    world = World(
        scenario.seed,
        network=network,
        faults=scenario.faults,
        config=config,
        strong_sums=scenario.strong_sums if scenario.policy == "ours" else StrongSums.NEVER,
        make=POLICIES[scenario.policy],
        record=record,
    )
    series = Series(scenario.ideal_s / _STEPS)
    world.on_bytes = lambda size, origin: series.add(world.clock.now, size, origin)
    agents = _people(scenario, world)
    whole = scenario.total * len(agents)

    def look() -> None:
        here = sum(sum(host.received.values()) for host in agents)
        watch(world.clock.now, min(1.0, here / whole))
        world.clock.at(series.step_s, look)

    look()
    world.clock.run(scenario.arrival_s + _LIMIT * scenario.slowest_s + _LIMIT_S, lambda: not world.unfinished)
    outcome = _outcome(scenario, world, agents, series)
    audit(world)
    return outcome


def _people(scenario: Scenario, world: World) -> list[Host]:
    """Build the hosts; returns those that download."""
    racks: Sequence[Rack | None] = [None]
    if scenario.racks:
        each = ceil(scenario.hosts / scenario.racks)
        rate = scenario.uplink * each * scenario.rate
        racks = [world.add_rack(f"rack{number}", rate) for number in range(scenario.racks)]
    piece_length = scenario.piece_length
    metas = [some_blob(number, scenario.blob_size, piece_length) for number in range(scenario.blobs)]
    for number in range(scenario.origins):
        origin = world.add_host(f"origin{number}", origin=True)  # beside the racks, as the core of a network
        for meta in metas:
            world.seed_blob(origin, meta)
    agents = [world.add_host(f"host{number}", rack=racks[number % len(racks)]) for number in range(scenario.hosts)]
    arrivals = Random(f"arrivals {scenario.seed}")  # of its own, so that both policies see the same
    for host in agents:
        arrival = arrivals.random() * scenario.arrival_s
        world.want(host, metas, arrival, world.tracker_delay())  # metainfo first
    return agents


def _outcome(scenario: Scenario, world: World, agents: list[Host], series: Series) -> Outcome:
    done = [host for host in agents if host.honest and host.done]
    ends = sorted((max(host.finished_at.values()), host.arrived_at) for host in done)
    received: Counter[str] = Counter()
    for host in agents:
        received.update(host.received)
    racks = {id(host.rack): host.rack for host in agents if host.rack is not None}
    return Outcome(
        scenario=scenario,
        took=tuple(sorted(end - arrival for end, arrival in ends)),
        ends=tuple(end for end, _ in ends),
        unfinished=len(world.unfinished),
        lasted_s=world.clock.now,
        origin_bytes=world.sent["origin"] + world.sent["http"],
        received=received,
        across=sum(host.across for host in agents),
        into_racks=tuple(rack.down.carried for rack in racks.values()),
        messages=sum(host.messages for host in agents),
        connections=sum(host.connections for host in agents),
        events=sum(host.events for host in world.hosts.values()),
        announces={name: world.trackers.announces[name] for name in world.trackers.names},
        faults=+world.fault_counts,
        series=series,
    )
