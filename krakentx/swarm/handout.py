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


def hand_out(
    asking: PeerID,
    agents: Iterable[PeerInfo],
    origins: Iterable[PeerInfo],
    *,
    limit: int,
    policy: Policy,
    rng: Random,
) -> tuple[PeerInfo, ...]:
    """Choose the answer of an announce.

    Args:
        asking: who announced; never part of its own answer.
        agents: who announced the torrent before, each peer once.
        origins: who holds it for good; all of them are named, beyond `limit`.
        limit: agents to name at most, chosen by chance so that every part of a swarm knows of the others.
        policy: the order. `completeness`: complete agents, then origins, then the rest, as agents of the reference
            expect, which dial from the top; `default`: all mixed. Ties are random, so that not all dial the same.
    """
    others = [peer for peer in agents if peer.peer_id != asking]
    chosen = rng.sample(others, limit) if limit < len(others) else others
    named = {peer.peer_id for peer in chosen}
    chosen += [peer for peer in origins if peer.peer_id != asking and peer.peer_id not in named]
    rng.shuffle(chosen)
    if policy == "completeness":
        chosen.sort(key=_rank)
    return tuple(chosen)
