"""Which peers the tracker names."""

from __future__ import annotations

from random import Random

from attrs import evolve

from krakentx.core.peer import PeerID, PeerInfo
from krakentx.swarm.handout import hand_out


def peer(number: int, *, origin: bool = False, complete: bool = False) -> PeerInfo:
    return PeerInfo(PeerID(number.to_bytes(20, "big")), "10.0.0.1", 1000 + number, origin, complete)


AGENTS = [peer(n, complete=n % 2 == 0) for n in range(1, 101)]
ORIGINS = [peer(200 + n, origin=True, complete=True) for n in range(3)]


def test_never_oneself_at_most_the_limit_and_all_origins() -> None:
    for seed in range(20):
        named = hand_out(peer(1).peer_id, AGENTS, ORIGINS, limit=50, policy="completeness", rng=Random(seed))
        assert peer(1).peer_id not in {one.peer_id for one in named}
        assert len(named) == 53
        assert {one for one in named if one.origin} == set(ORIGINS)


def test_complete_agents_then_origins_then_the_rest_in_random_order() -> None:
    named = hand_out(peer(999).peer_id, AGENTS, ORIGINS, limit=50, policy="completeness", rng=Random(1))
    ranks = [1 if one.origin else 0 if one.complete else 2 for one in named]
    assert ranks == sorted(ranks)
    numbers = [one.port for one in named if one.complete and not one.origin]
    assert numbers != sorted(numbers)


def test_default_mixes_all() -> None:
    named = hand_out(peer(999).peer_id, AGENTS, ORIGINS, limit=50, policy="default", rng=Random(1))
    ranks = [1 if one.origin else 0 if one.complete else 2 for one in named]
    assert ranks != sorted(ranks)


def test_nobody_is_named_twice() -> None:
    named = hand_out(peer(999).peer_id, [*AGENTS[:3], *ORIGINS], ORIGINS, limit=50, policy="default", rng=Random(1))
    assert len(named) == len({one.peer_id for one in named}) == 6


def racks(sizes: dict[str, int]) -> list[PeerInfo]:
    zones = [zone for zone, size in sizes.items() for _ in range(size)]
    return [evolve(peer(number), zone=zone) for number, zone in enumerate(zones, 1)]


def zones_named(sizes: dict[str, int], zone: str) -> list[int]:
    """How many of the zone that asks are named, and how many others."""
    agents = racks(sizes)
    asking = next(agent for agent in agents if agent.zone == zone)
    named = hand_out(asking.peer_id, agents, ORIGINS, limit=50, policy="completeness", rng=Random(1), zone=zone)
    near = sum(one.zone == zone and not one.origin for one in named)
    return [near, len(named) - len(ORIGINS) - near]


def test_four_of_five_stand_in_the_zone_of_the_one_who_asks() -> None:
    assert zones_named({"a": 65, "b": 65, "c": 65}, "a") == [40, 10]


def test_a_small_zone_is_filled_up_with_others_and_others_with_the_zone() -> None:
    assert zones_named({"a": 11, "b": 65, "c": 65}, "a") == [10, 40]
    assert zones_named({"a": 65, "b": 3}, "a") == [47, 3]
    assert zones_named({"a": 1, "b": 65}, "a") == [0, 50]
    assert zones_named({"a": 30, "b": 10}, "a") == [29, 10]


def test_without_a_zone_all_are_alike() -> None:
    near, far = zones_named({"": 65, "b": 650}, "")
    assert near < 15 < far
