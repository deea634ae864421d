"""Who asks an origin for which piece, when several agents want the same blob at once, and which origin.

The line of the origin is the one that all wait for: whatever leaves it twice is lost. Which pieces the others have
asked for nobody says, so agents that know each other divide the pieces by a rule that each of them can work out:
sorted by id, the first of n takes pieces 0, n, 2n, ..., the second 1, n+1, ... It is a preference and no right. Where
agents know different others it does no worse than chance.
"""

from __future__ import annotations

from collections.abc import Iterable

from krakentx.core.peer import PeerID


def share(pieces: int, me: PeerID, others: Iterable[PeerID]) -> int:
    """Mask of the pieces that we should ask an origin for; all of them when there are no others."""
    count, rank = 1, 0
    for other in others:
        count += 1
        rank += other < me
    if count == 1:
        return (1 << pieces) - 1
    rows = -(-pieces // count)
    every = ((1 << count * rows) - 1) // ((1 << count) - 1)  # bits 0, n, 2n, ...
    return every << rank & ((1 << pieces) - 1)
