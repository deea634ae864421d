"""Sums of a piece: the CRC-32 of the reference, and a strong one that nobody can forge.

The strong one is blake3, cut to 128 bits: who has a piece cannot make another one of the same sum. See
docs/decisions/0007-strong-sums.md.
"""

from __future__ import annotations

from blake3 import blake3
from isal.isal_zlib import crc32

STRONG_BYTES = 16


class PieceSum:
    """The sums of one piece while its bytes pass. Both release the GIL above some KiB, so it may run in a thread.

    Args:
        strong: compute the strong sum as well.
    """

    __slots__ = ("_strong", "crc")

    def __init__(self, *, strong: bool) -> None:
        self.crc = 0
        self._strong = blake3() if strong else None

    def update(self, data: bytes | memoryview) -> None:
        """Add the next bytes."""
        self.crc = crc32(data, self.crc)
        if self._strong is not None:
            self._strong.update(data)

    @property
    def strong(self) -> bytes:
        """The strong sum of what passed; empty when it is not computed."""
        return b"" if self._strong is None else self._strong.digest(length=STRONG_BYTES)

    def __str__(self) -> str:
        return f"{self.crc:08x} {self.strong.hex()}".rstrip()
