"""Which peers the tracker names."""

from __future__ import annotations

from random import Random

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
