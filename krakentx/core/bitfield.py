"""Bitfield: a set of piece indices, kept as one integer (bit i = piece i)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import field, frozen

from krakentx.core.errors import InvalidInput

_WORD = 8
_HEADER = 8


def indices(mask: int) -> Iterator[int]:
    """The positions of the bits that are set, ascending."""
    text = bin(mask)[:1:-1]
    at = text.find("1")
    while at >= 0:
        yield at
        at = text.find("1", at + 1)


@frozen
class Bitfield:
    """Which of `size` pieces are held. Immutable; `mask` has no bit at or above `size`."""

    size: int
    mask: int = field(default=0)

    @mask.validator
    def _check(self, _attribute: object, value: int) -> None:
        if self.size < 0 or value < 0 or value >> self.size:
            raise InvalidInput("bitfield", f"bits beyond the {self.size} pieces")

    @classmethod
    def full(cls, size: int) -> Bitfield:
        """All `size` pieces."""
        return cls(size, (1 << size) - 1)

    @classmethod
    def of(cls, size: int, pieces: Iterable[int]) -> Bitfield:
        """Just these pieces."""
        mask = 0
        for piece in pieces:
            mask |= 1 << piece
        return cls(size, mask)

    @classmethod
    def from_wire(cls, data: bytes, max_size: int) -> Bitfield:
        """Read the bitset of the wire: 8 bytes of bit count, then big-endian 64-bit words, word 0 first.

        The count is compared with `max_size` before anything is allocated; bytes past the last word are ignored,
        as the reference does.

        Raises:
            InvalidInput: short input, a count above `max_size`, or bits set above the count.

        Source: docs/wire.md, "Bitset".
        """
        if len(data) < _HEADER:
            raise InvalidInput("bitfield", f"{len(data)} bytes are too short for a bitset")
        size = int.from_bytes(data[:_HEADER], "big")
        if size > max_size:
            raise InvalidInput("bitfield", f"{size} bits, at most {max_size} allowed")
        body = data[_HEADER : _HEADER + _WORD * -(-size // 64)]
        if len(body) < _WORD * -(-size // 64):
            raise InvalidInput("bitfield", f"bitset of {size} bits ends early")
        # Word 0 comes first yet each word is big-endian: reverse the words, then read one big number.
        words = [body[i : i + _WORD] for i in range(0, len(body), _WORD)]
        return cls(size, int.from_bytes(b"".join(reversed(words)), "big"))

    def to_wire(self) -> bytes:
        """The inverse of `from_wire`."""
        count = -(-self.size // 64)
        body = self.mask.to_bytes(_WORD * count, "big")
        words = [body[i : i + _WORD] for i in range(0, len(body), _WORD)]
        return self.size.to_bytes(_HEADER, "big") + b"".join(reversed(words))

    def with_(self, piece: int) -> Bitfield:
        """A copy that also holds `piece`."""
        return Bitfield(self.size, self.mask | 1 << piece)

    def without(self, piece: int) -> Bitfield:
        """A copy that lacks `piece`."""
        return Bitfield(self.size, self.mask & ~(1 << piece))

    def __contains__(self, piece: int) -> bool:
        return piece >= 0 and self.mask >> piece & 1 == 1

    def __iter__(self) -> Iterator[int]:
        return indices(self.mask)

    def __len__(self) -> int:
        """How many pieces are held."""
        return self.mask.bit_count()

    @property
    def complete(self) -> bool:
        """Every piece is held; true for a blob of zero pieces."""
        return len(self) == self.size
