"""Cases that broke other systems, played in the model with the real Engine."""

from __future__ import annotations

import pytest

from krakentx.core.bitfield import Bitfield
from krakentx.core.metainfo import MetaInfo
from krakentx.sim.trial import some_blob
from krakentx.sim.world import Faults, Host, Network, World
from krakentx.swarm.config import ConnStateConfig, SwarmConfig

MIB = 1 << 20


def swarm(world: World, meta: MetaInfo, agents: int, *, within_s: float, fallback: bool = False) -> list[Host]:
    """One origin, and agents that begin within some time."""
    origin = world.add_host("origin", origin=True)
    world.add_blob(origin, meta, have=Bitfield.full(meta.piece_count), wanted=False)
    hosts = [world.add_host(f"agent{number}", fallback=fallback) for number in range(agents)]
    for host in hosts:
        world.at(world.rng.random() * within_s, lambda host=host: world.add_blob(host, meta))  # type: ignore[misc]
    return hosts


def finished(hosts: list[Host], meta: MetaInfo) -> bool:
    return all(meta.info_hash in host.finished_at for host in hosts)


@pytest.mark.parametrize("seed", [1, 2])
def test_s01_a_hundred_agents_at_once_with_a_slow_tracker(seed: int) -> None:
    network = Network(rate=300e6, tracker_delay_s=0.35)
    world = World(seed, network=network, config=SwarmConfig(connstate=ConnStateConfig(max_open_conn=10)))
    meta = some_blob(50, 4 * MIB)
    hosts = swarm(world, meta, 100, within_s=1.0)
    assert world.run(15.0, lambda: finished(hosts, meta))
    assert world.sent["origin"] < 8 * meta.length


def test_s13_dead_hosts_in_the_hand_out_cost_a_few_seconds_at_most() -> None:
    meta = some_blob(50, 4 * MIB)
    times = []
    for dead in (0, 8):
        world = World(3, network=Network(rate=300e6))
        seeders = [world.add_host(f"seeder{number}", fallback=False) for number in range(10)]
        for host in seeders:
            world.add_blob(host, meta, have=Bitfield.full(50), wanted=False)
        world.run(1.0, lambda: False)
        for host in seeders[:dead]:
            world.kill(host)
        late = world.add_host("late", fallback=False)
        world.add_blob(late, meta)
        assert world.run(60.0, lambda late=late: finished([late], meta))
        times.append(world.now - 1.0)
    assert times[1] < times[0] + 3.0


def test_s13_hosts_that_die_while_they_give_cost_a_few_seconds_at_most() -> None:
    meta = some_blob(100, 4 * MIB)
    world = World(4, network=Network(rate=100e6))
    seeders = [world.add_host(f"seeder{number}", fallback=False) for number in range(10)]
    for host in seeders:
        world.add_blob(host, meta, have=Bitfield.full(100), wanted=False)
    world.run(1.0, lambda: False)
    late = world.add_host("late", fallback=False)
    world.add_blob(late, meta)
    world.at(1.0, lambda: [world.kill(host) for host in seeders[:8]] and None)
    assert world.run(60.0, lambda: finished([late], meta))
    assert world.now < 1.0 + meta.length / 100e6 + 8.0


@pytest.mark.parametrize("http_down", [False, True])
def test_http_alone_takes_at_most_twice_a_direct_pull(http_down: bool) -> None:
    """No peer answers: the first piece within five seconds, the whole within twice the time of the line."""
    world = World(5, network=Network(http_rate=100e6), faults=Faults(http_down=http_down))
    meta = some_blob(256, 4 * MIB)
    host = world.add_host("alone")
    ghost = world.add_host("ghost", origin=True)
    world.add_blob(ghost, meta, have=Bitfield.full(256), wanted=False)
    world.kill(ghost)
    first: list[float] = []

    def done() -> bool:
        if host.received["http"] and not first:
            first.append(world.now)
        return finished([host], meta)

    world.add_blob(host, meta)
    assert world.run(400.0, done) is not http_down
    if http_down:
        assert host.failed[meta.info_hash] == "torrent timed out"
    else:
        assert first[0] < 2.0
        assert world.now < 2 * meta.length / 100e6


def test_the_swarm_takes_over_from_http_when_it_comes_back() -> None:
    world = World(6, network=Network(rate=200e6, http_rate=20e6))
    meta = some_blob(128, 4 * MIB)
    host = world.add_host("agent")
    world.add_blob(host, meta)
    world.run(5.0, lambda: False)
    assert host.received["http"] > 0
    origin = world.add_host("origin", origin=True)
    world.add_blob(origin, meta, have=Bitfield.full(128), wanted=False)
    assert world.run(60.0, lambda: finished([host], meta))
    assert host.received["origin"] > meta.length / 2
    assert world.now < 20.0


@pytest.mark.parametrize(("pieces", "copies"), [(1, 9.0), (3, 7.0), (40, 3.0)])
def test_traffic_stays_near_what_is_needed(pieces: int, copies: float) -> None:
    world = World(7)
    meta = some_blob(pieces)
    hosts = swarm(world, meta, 20, within_s=0.2)
    assert world.run(30.0, lambda: finished(hosts, meta))
    assert world.sent["origin"] < copies * meta.length
    assert sum(host.received["skipped"] for host in hosts) < 0.1 * 20 * meta.length


def test_four_agents_cost_the_origin_little_more_than_one_copy() -> None:
    world = World(8, network=Network(rate=300e6))
    meta = some_blob(256, 4 * MIB)
    hosts = swarm(world, meta, 4, within_s=0.05)
    assert world.run(60.0, lambda: finished(hosts, meta))
    assert world.sent["origin"] < 1.3 * meta.length
