"""The tracker's side of the swarm: which peers to name to whom. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Literal

from krakentx.core.peer import PeerID, PeerInfo

Policy = Literal["completeness", "default"]
POLICIES: tuple[Policy, ...] = ("completeness", "default")


def _rank(peer: PeerInfo) -> int:
    if peer.origin:
        return 1
    return 0 if peer.complete else 2


def near_quota(limit: int) -> int:
    """How many of `limit` peers should be of the zone of the one that asks; the others keep the zones connected."""
    return limit * 4 // 5


def hand_out(
    asking: PeerID,
    agents: Iterable[PeerInfo],
    origins: Iterable[PeerInfo],
    *,
    limit: int,
    policy: Policy,
    rng: Random,
    zone: str = "",
) -> tuple[PeerInfo, ...]:
    """Choose the answer of an announce.

    Args:
        asking: who announced; never part of its own answer.
        agents: who announced the torrent before, each peer once.
        origins: who holds it for good; all of them are named, beyond `limit`.
        limit: agents to name at most, chosen by chance so that every part of a swarm knows of the others.
        policy: the order. `completeness`: complete agents, then origins, then the rest, as agents of the reference
            expect, which dial from the top; `default`: all mixed. Ties are random, so that not all dial the same.
        zone: where it stands, if that is known: its neighbours come first, but leave room for others.
    """
    others = [peer for peer in agents if peer.peer_id != asking]
    chosen = _choose(others, limit, zone, rng) if limit < len(others) else others
    named = {peer.peer_id for peer in chosen}
    chosen += [peer for peer in origins if peer.peer_id != asking and peer.peer_id not in named]
    rng.shuffle(chosen)
    if policy == "completeness":
        chosen.sort(key=_rank)
    return tuple(chosen)


def _choose(others: list[PeerInfo], limit: int, zone: str, rng: Random) -> list[PeerInfo]:
    near = [peer for peer in others if peer.zone == zone] if zone else []
    if not near:
        return rng.sample(others, limit)
    far = [peer for peer in others if peer.zone != zone]
    count = min(len(near), max(near_quota(limit), limit - len(far)))
    return rng.sample(near, count) + rng.sample(far, limit - count)
