"""Who of a rack fetches which piece from outside, when a zone is named and its uplink is thin.

What comes into a rack should come once. Its members that know each other divide the pieces by a rule that each of them
can work out: of all members it knows, and itself, a piece belongs to the one with the highest score for it. Who knows
fewer takes more pieces for its own, so that some come twice; but the one with the highest score of all always knows
itself, so that no piece belongs to nobody. It is a preference, held until nothing comes any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zlib import crc32

from krakentx.core.peer import PeerID

_CLASSES = 1024
"""Pieces are divided by their number modulo this: what a share costs does not grow with the blob."""


class RackShare:
    """The pieces of one torrent that we fetch for our rack.

    Args:
        pieces: of the torrent.
    """

    def __init__(self, pieces: int, me: PeerID) -> None:
        self._pieces = pieces
        self._size = min(pieces, _CLASSES)
        self._me = crc32(me)
        self._others: frozenset[PeerID] = frozenset()
        self._ours: Sequence[int] = range(self._size)
        self.mask = (1 << pieces) - 1

    def divide(self, others: Iterable[PeerID]) -> int:
        """Mask of the pieces that are ours among these; all of them when there are none."""
        known = frozenset(others)
        if known == self._others:
            return self.mask
        added = known - self._others
        if not self._others <= known:
            added, self._ours = known, range(self._size)
        for other in added:
            key = crc32(other)
            self._ours = [piece for piece in self._ours if _score(self._me, piece) > _score(key, piece)]
        self._others = known
        row = sum(1 << piece for piece in self._ours)
        rows = -(-self._pieces // self._size) if self._size else 0
        every = ((1 << rows * self._size) - 1) // ((1 << self._size) - 1) if self._size else 0
        self.mask = row * every & ((1 << self._pieces) - 1)
        return self.mask


def _score(key: int, piece: int) -> int:
    """A number that looks like chance, the same everywhere."""
    mixed = (key ^ piece * 0x9E3779B1) * 0x85EBCA6B & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 15) * 0xC2B2AE35 & 0xFFFFFFFF
    return mixed ^ mixed >> 13
