"""MetaInfo: how a blob is cut into pieces, and the sum of each."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from attrs import field, frozen

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput
from krakentx.core.peer import InfoHash
from krakentx.core.sums import STRONG_BYTES, PieceSum

MAX_PIECES = 250_000
"""A blob of more pieces is refused: its bitfield would not fit the frame of a handshake beside the rest of it."""


MAX_LENGTH = (1 << 63) - 1
"""What the offset of a file can say, and the Go integers of the reference."""

_STRONG_KEY = "Blake3Sums"  # another kind of strong sum would have another key


@frozen(slots=False)
class MetaInfo:
    """Piece length and sums of one blob.

    Piece i covers bytes [i * piece_length, min((i + 1) * piece_length, length)); a blob of zero bytes has no piece.

    Args:
        piece_sums: a CRC-32 for each piece.
        strong_sums: `STRONG_BYTES` for each piece; empty when whoever made this knew of none, as the reference does.
    """

    digest: Digest
    length: int
    piece_length: int = field()
    piece_sums: tuple[int, ...] = field(repr=False)
    strong_sums: bytes = field(default=b"", repr=False)

    @piece_sums.validator
    def _check(self, _attribute: object, value: tuple[int, ...]) -> None:
        if not 0 <= self.length <= MAX_LENGTH or not 0 < self.piece_length <= MAX_LENGTH:
            raise InvalidInput("metainfo", f"length {self.length}, piece length {self.piece_length}")
        expected = -(-self.length // self.piece_length)
        if len(value) != expected or expected > MAX_PIECES:
            raise InvalidInput("metainfo", f"{len(value)} piece sums for {expected} pieces")

    @strong_sums.validator
    def _check_strong(self, _attribute: object, value: bytes) -> None:
        if len(value) not in (0, STRONG_BYTES * len(self.piece_sums)):
            raise InvalidInput("metainfo", f"{len(value)} bytes of strong sums for {len(self.piece_sums)} pieces")

    @cached_property
    def info_hash(self) -> InfoHash:
        """SHA-1 of the bencoded dictionary of Length, Name, PieceLength, PieceSums; strong sums change nothing."""
        name = self.digest.hex
        sums = "".join(f"i{n}e" for n in self.piece_sums)
        bencoded = (
            f"d6:Lengthi{self.length}e4:Name{len(name)}:{name}11:PieceLengthi{self.piece_length}e9:PieceSumsl{sums}ee"
        )
        return InfoHash(hashlib.sha1(bencoded.encode(), usedforsecurity=False).digest())

    @property
    def piece_count(self) -> int:
        """Number of pieces; zero for an empty blob."""
        return len(self.piece_sums)

    def piece_size(self, piece: int) -> int:
        """Bytes of one piece; zero for an index out of range."""
        last = len(self.piece_sums) - 1
        if 0 <= piece < last:
            return self.piece_length
        return self.length - last * self.piece_length if piece == last >= 0 else 0

    def new_sum(self) -> PieceSum:
        """For the bytes of a piece; what passed is then shown to `fits`."""
        return PieceSum(strong=bool(self.strong_sums))

    def fits(self, piece: int, passed: PieceSum) -> bool:
        """Whether the sums of what passed are those of the piece: the strong one too when it is known."""
        strong = self.strong_sums[piece * STRONG_BYTES : (piece + 1) * STRONG_BYTES]
        return passed.crc == self.piece_sums[piece] and passed.strong == strong

    def offset(self, piece: int) -> int:
        """Where a piece begins in the blob."""
        return piece * self.piece_length

    def pieces_of(self, start: int, stop: int) -> range:
        """The pieces that cover bytes [start, stop)."""
        stop = min(stop, self.length)
        if stop <= start:
            return range(0)
        return range(start // self.piece_length, -(-stop // self.piece_length))

    @classmethod
    def from_json(cls, data: bytes) -> MetaInfo:
        """Read the metainfo JSON; unknown keys are ignored, `PieceSums` may be null, strong sums may be missing.

        Raises:
            InvalidInput: not JSON, a key missing or of another type, sums that do not fit the length.
        """
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InvalidInput("metainfo", f"not JSON: {error}") from error
        folded = _fold(value)
        info = _fold(folded.get("info"))
        sums = info.get("piecesums") or []
        numbers = (info.get("length"), info.get("piecelength"))
        if not isinstance(sums, list) or not all(type(n) is int and 0 <= n < 1 << 32 for n in sums):
            raise InvalidInput("metainfo", "PieceSums must be an array of 32-bit sums")
        if not all(type(n) is int for n in numbers) or not isinstance(info.get("name"), str):
            raise InvalidInput("metainfo", "Info needs Length, PieceLength and Name")
        strong = _from_base64(folded.get(_STRONG_KEY.lower()) or "")
        return cls(Digest.from_hex(info["name"]), info["length"], info["piecelength"], tuple(sums), strong)

    def to_json(self) -> bytes:
        """The compact form of the reference, keys in its order, no newline; our strong sums beside its `Info`."""
        info = {
            "PieceLength": self.piece_length,
            "PieceSums": list(self.piece_sums) or None,
            "Name": self.digest.hex,
            "Length": self.length,
        }
        ours = {_STRONG_KEY: base64.b64encode(self.strong_sums).decode()} if self.strong_sums else {}
        return json.dumps({"Info": info} | ours, separators=(",", ":")).encode()


def _fold(value: object) -> dict[str, Any]:
    """Lower-case the keys: the reference matches them without regard to case."""
    if not isinstance(value, Mapping):
        raise InvalidInput("metainfo", "expected an object with Info")
    return {str(key).lower(): item for key, item in value.items()}


def _from_base64(value: object) -> bytes:
    if not isinstance(value, str):
        raise InvalidInput("metainfo", f"{_STRONG_KEY} must be a text in base64")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:  # binascii.Error, or letters beyond ASCII
        raise InvalidInput("metainfo", f"{_STRONG_KEY} is not base64: {error}") from error


def _ascending(pairs: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted(pairs))


@frozen
class PieceLengths:
    """The `piece_lengths` map: blobs of at least `size` bytes get pieces of `piece_length` bytes.

    A blob below the smallest size uses the smallest entry. All origins of one ring must share the map, since a
    different piece length makes a different swarm.
    """

    table: tuple[tuple[int, int], ...] = field(converter=_ascending)

    @table.validator
    def _check(self, _attribute: object, value: Sequence[tuple[int, int]]) -> None:
        if not value:
            raise InvalidInput("piece_lengths", "the map is empty")
        if any(size < 0 or length <= 0 for size, length in value):
            raise InvalidInput("piece_lengths", "sizes must not be negative and piece lengths must be positive")

    def choose(self, size_bytes: int) -> int:
        """The piece length for a blob of that size."""
        chosen = self.table[0][1]
        for threshold, length in self.table:
            if threshold > size_bytes:
                break
            chosen = length
        return chosen


class _Sums:
    """Sums of pieces of one length, while bytes pass."""

    def __init__(self, piece_length: int) -> None:
        self._piece_length = piece_length
        self._crcs: list[int] = []
        self._strong = bytearray()
        self._sum = PieceSum(strong=True)
        self._filled = 0

    def update(self, view: memoryview) -> None:
        while view:
            part = view[: self._piece_length - self._filled]
            self._sum.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == self._piece_length:
                self._end_piece()

    def _end_piece(self) -> None:
        self._crcs.append(self._sum.crc)
        self._strong += self._sum.strong
        self._sum = PieceSum(strong=True)
        self._filled = 0

    def finish(self) -> tuple[tuple[int, ...], bytes]:
        """CRC-32 and strong sums."""
        if self._filled:
            self._end_piece()
        return tuple(self._crcs), bytes(self._strong)


DEFAULT_PIECE_LENGTHS = PieceLengths(((0, 4 << 20),))
"""What the reference ships: pieces of 4 MiB whatever the size of the blob."""


class SumBuilder:
    """Computes piece sums while bytes pass, before anyone knows how many will come.

    The piece length depends on the size of the blob, which an upload tells only at its end: so sums are kept for each
    length that it may turn out to be. The map has two or three of them, and each costs a quarter of the sha256.
    """

    def __init__(self, lengths: PieceLengths) -> None:
        self._lengths = lengths
        self._sums = {length: _Sums(length) for _, length in lengths.table}
        self.length = 0

    def update(self, data: bytes | memoryview) -> None:
        """Add the next bytes."""
        view = memoryview(data)
        self.length += len(view)
        for sums in self._sums.values():
            sums.update(view)

    def finish(self, digest: Digest) -> MetaInfo:
        """The metainfo of all bytes that passed."""
        piece_length = self._lengths.choose(self.length)
        return MetaInfo(digest, self.length, piece_length, *self._sums[piece_length].finish())
