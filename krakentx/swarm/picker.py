"""Which piece next: rarest first, ties by chance. Knows neither peers nor time.

A set of pieces is one integer (bit i = piece i), and rarity is kept as one such mask per level, so that nothing here
walks over the pieces of a torrent: a have costs a few operations on integers, a choice as well.
"""

from __future__ import annotations

from random import Random

_TRIES = 4
_FEW = 6


class Rarity:
    """How many of the peers around us hold each piece.

    Only peers that lack something are counted. One that has everything would raise every piece by one and change no
    order; leaving it out makes level 0 mean "no agent around us has it yet".
    """

    def __init__(self, pieces: int) -> None:
        self.levels = [(1 << pieces) - 1]  # levels[n]: pieces that exactly n peers hold

    def add(self, mask: int) -> None:
        """Count one more holder of each of these pieces."""
        levels = self.levels
        if mask & levels[-1]:
            levels.append(0)
        for n in range(len(levels) - 2, -1, -1):
            moved = levels[n] & mask
            if moved:
                levels[n] ^= moved
                levels[n + 1] |= moved

    def add_one(self, bit: int) -> None:
        """The same for a single piece."""
        levels = self.levels
        for n, level in enumerate(levels):
            if level & bit:
                levels[n] = level ^ bit
                if n + 1 == len(levels):
                    levels.append(bit)
                else:
                    levels[n + 1] |= bit
                return

    def remove(self, mask: int) -> None:
        """Count one holder less of each of these pieces."""
        levels = self.levels
        for n in range(1, len(levels)):
            moved = levels[n] & mask
            if moved:
                levels[n] ^= moved
                levels[n - 1] |= moved
        while len(levels) > 1 and not levels[-1]:
            levels.pop()

    def rarest(self, wanted: int) -> int:
        """Those of `wanted` that fewest peers hold; 0 when `wanted` is."""
        for level in self.levels:
            found = level & wanted
            if found:
                return found
        return 0


def lowest(mask: int) -> int:
    """The lowest piece of a set that is not empty."""
    return (mask & -mask).bit_length() - 1


def any_of(mask: int, rng: Random) -> int:
    """A piece of a set that is not empty, each with the same probability.

    Chance is no ornament here: hosts that start together see the same rarities, and if they broke ties alike they
    would all ask the same holder for the same piece.
    """
    length = mask.bit_length()
    for _ in range(_TRIES):  # cheap and exact while the set is dense
        piece = int(rng.random() * length)
        if mask >> piece & 1:
            return piece
    rank = int(rng.random() * mask.bit_count())
    low = 0
    while length > 1:  # halve until the piece of that rank is alone
        if rank < _FEW:
            for _ in range(rank):
                mask &= mask - 1
            return low + lowest(mask)
        half = length >> 1
        part = mask & ((1 << half) - 1)
        below = part.bit_count()
        if rank < below:
            mask, length = part, half
        else:
            rank -= below
            mask >>= half
            low += half
            length -= half
    return low
