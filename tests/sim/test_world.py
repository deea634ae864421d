"""Cases that broke other systems, played in the model with the real Engine."""

from __future__ import annotations

import pytest

from krakentx.core.metainfo import MetaInfo
from krakentx.origin.config import BlobServerConfig
from krakentx.sim import scenario
from krakentx.sim.audit import audit
from krakentx.sim.faults import Faults
from krakentx.sim.host import Host
from krakentx.sim.network import Network
from krakentx.sim.world import World
from krakentx.swarm.config import BandwidthConfig, ConnConfig, ConnStateConfig, SwarmConfig

MIB = 1 << 20


def some_blob(pieces: int, piece_length: int = MIB) -> MetaInfo:
    return scenario.some_blob(0, pieces * piece_length, piece_length)


def swarm(world: World, meta: MetaInfo, agents: int, *, within_s: float, fallback: bool = False) -> list[Host]:
    """One origin, and agents that begin within some time."""
    world.seed_blob(world.add_host("origin", origin=True), meta)
    hosts = [world.add_host(f"agent{number}", fallback=fallback) for number in range(agents)]
    for host in hosts:
        world.want(host, [meta], world.rng.random() * within_s)
    return hosts


def finishes(world: World, within_s: float) -> bool:
    return world.clock.run(within_s, lambda: not world.unfinished)


def passes(world: World, until_s: float) -> None:
    world.clock.run(until_s, lambda: False)


@pytest.mark.parametrize("seed", [1, 2])
def test_s01_a_hundred_agents_at_once_with_a_slow_tracker(seed: int) -> None:
    network = Network(rate=300e6, tracker_delay_s=0.35)
    world = World(seed, network=network, config=SwarmConfig(connstate=ConnStateConfig(max_open_conn=10)))
    meta = some_blob(50, 4 * MIB)
    swarm(world, meta, 100, within_s=1.0)
    assert finishes(world, 15.0)
    assert world.sent["origin"] < 8 * meta.length
    audit(world)


def test_s13_dead_hosts_in_the_hand_out_cost_a_few_seconds_at_most() -> None:
    meta = some_blob(50, 4 * MIB)
    times = []
    for dead in (0, 8):
        world = World(3, network=Network(rate=300e6))
        seeders = [world.add_host(f"seeder{number}", fallback=False) for number in range(10)]
        for host in seeders:
            world.seed_blob(host, meta)
        passes(world, 1.0)
        for host in seeders[:dead]:
            world.kill(host)
        world.want(world.add_host("late", fallback=False), [meta])
        assert finishes(world, 60.0)
        times.append(world.clock.now - 1.0)
    assert times[1] < times[0] + 3.0


def test_s13_hosts_that_die_while_they_give_cost_a_few_seconds_at_most() -> None:
    meta = some_blob(100, 4 * MIB)
    world = World(4, network=Network(rate=100e6))
    seeders = [world.add_host(f"seeder{number}", fallback=False) for number in range(10)]
    for host in seeders:
        world.seed_blob(host, meta)
    passes(world, 1.0)
    world.want(world.add_host("late", fallback=False), [meta])
    for host in seeders[:8]:
        world.clock.at(1.0, world.kill, host)
    assert finishes(world, 60.0)
    assert world.clock.now < 1.0 + meta.length / 100e6 + 8.0


@pytest.mark.parametrize("http_down", [False, True])
def test_http_alone_takes_at_most_twice_a_direct_pull(http_down: bool) -> None:
    """No peer answers: the first piece within five seconds, the whole within twice the time of the line."""
    world = World(5, network=Network(rate=100e6), faults=Faults(http_down=http_down))
    meta = some_blob(256, 4 * MIB)
    origin = world.add_host("origin", origin=True)
    origin.blocked = True
    world.seed_blob(origin, meta)
    host = world.add_host("alone")
    world.want(host, [meta])
    passes(world, 2.0)
    assert bool(host.received["http"]) is not http_down
    assert finishes(world, 400.0) is not http_down
    if http_down:
        assert host.failed[meta.info_hash] == "torrent timed out"
    else:
        assert world.clock.now < 2 * meta.length / 100e6


def test_the_origin_of_the_model_serves_http_as_a_real_one_does() -> None:
    real, model = BlobServerConfig(), Network()
    assert (model.fetches, model.fetch_wait_s) == (real.fetches, real.fetch_wait_s)


@pytest.mark.parametrize(("served", "quick"), [(8, True), (10_000, False)])
def test_slow_cards_and_many_hosts_do_not_end_in_a_crush_for_http(served: int, quick: bool) -> None:
    """The first piece of an origin takes a third of a second here, and most hosts get none before they look to HTTP.

    Held with an origin that serves them all at once, too: that does end in one, so the world shows what it should.
    """
    world = World(5, network=Network(rate=12.5e6, fetches=served))
    meta = some_blob(12, 4 * MIB)
    hosts = swarm(world, meta, 200, within_s=0.2, fallback=True)
    assert finishes(world, 40.0) == quick
    assert all(host.done for host in hosts) == quick
    assert world.sent["http"] < 2 * meta.length
    audit(world)


def test_the_swarm_takes_over_from_http_when_it_comes_back() -> None:
    world = World(6, network=Network(rate=200e6))
    meta = some_blob(128, 4 * MIB)
    slow = world.add_host("slow", origin=True, rate=20e6)
    slow.blocked = True
    world.seed_blob(slow, meta)
    host = world.add_host("agent")
    world.want(host, [meta])
    passes(world, 5.0)
    assert host.received["http"] > 0
    world.seed_blob(world.add_host("quick", origin=True), meta)
    assert finishes(world, 60.0)
    assert host.received["origin"] > meta.length / 2
    assert world.clock.now < 20.0


@pytest.mark.parametrize(("pieces", "copies"), [(1, 9.0), (3, 7.0), (40, 3.0)])
def test_traffic_stays_near_what_is_needed(pieces: int, copies: float) -> None:
    world = World(7)
    meta = some_blob(pieces)
    hosts = swarm(world, meta, 20, within_s=0.2)
    assert finishes(world, 30.0)
    assert world.sent["origin"] < copies * meta.length
    assert sum(host.received["skipped"] for host in hosts) < 0.1 * 20 * meta.length


def test_four_agents_cost_the_origin_little_more_than_one_copy() -> None:
    world = World(8, network=Network(rate=300e6))
    meta = some_blob(256, 4 * MIB)
    swarm(world, meta, 4, within_s=0.05)
    assert finishes(world, 60.0)
    assert world.sent["origin"] < 1.3 * meta.length


def test_a_host_whose_network_was_away_goes_on_where_it_was() -> None:
    world = World(9, faults=Faults(blackout_s=1.0))
    meta = some_blob(100, 4 * MIB)
    late = swarm(world, meta, 4, within_s=0.0)[0]
    world.clock.at(2.0, world.darken, late)
    assert finishes(world, 60.0)
    # Others give up on it after two seconds, so within one nothing is lost but the time.
    assert world.clock.now < 1.5 * meta.length / 100e6 + 1.0
    audit(world)


def test_a_process_that_comes_back_keeps_its_pieces() -> None:
    world = World(10, faults=Faults(restart_s=1.0))
    meta = some_blob(100, 4 * MIB)
    again = swarm(world, meta, 4, within_s=0.0)[0]
    world.clock.at(3.0, world.restart, again)
    assert finishes(world, 60.0)
    assert sum(again.received.values()) < 1.1 * meta.length
    audit(world)


@pytest.mark.parametrize("forgotten", [False, True])
def test_the_audit_holds_the_limits_of_the_configuration(forgotten: bool) -> None:
    limits = BandwidthConfig(enable=True, egress_bits_per_sec=80_000_000, ingress_bits_per_sec=160_000_000)
    limited = SwarmConfig(conn=ConnConfig(bandwidth=limits))
    world = World(5, config=SwarmConfig() if forgotten else limited)
    meta = some_blob(16)
    swarm(world, meta, 4, within_s=0.0)
    capacity = (100e6, 100e6) if forgotten else (10e6, 20e6)
    assert {(host.up.capacity, host.down.capacity) for host in world.hosts.values()} == {capacity}
    world.config = limited
    assert finishes(world, 30.0)
    if forgotten:
        with pytest.raises(AssertionError, match="carried"):
            audit(world)
    else:
        audit(world)


def test_a_blob_comes_into_a_rack_about_twice() -> None:
    world = World(11)
    meta = some_blob(100)
    world.seed_blob(world.add_host("origin", origin=True), meta)
    racks = [world.add_rack(f"rack{number}", 2 * world.network.rate) for number in range(3)]
    for number in range(30):
        world.want(world.add_host(f"agent{number}", rack=racks[number % 3]), [meta], world.rng.random() * 0.1)
    assert finishes(world, 30.0)
    assert max(rack.down.carried for rack in racks) < 3.5 * meta.length
    assert world.clock.now < 2.5 * meta.length / world.network.rate
    audit(world)
