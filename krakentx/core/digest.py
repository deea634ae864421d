"""Digest: the name of a blob, which is the hash of its bytes."""

from __future__ import annotations

import hashlib
import re

from attrs import field, frozen

from krakentx.core.errors import InvalidInput

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_ALGORITHM_OF_LENGTH = {length: name for name, length in _HEX_LENGTH.items()}
_HEX = re.compile(r"[0-9a-f]+")


@frozen(order=True)
class Digest:
    """`algorithm:hex`, lower case. Two digests are equal when their text is."""

    algorithm: str
    hex: str = field()

    @hex.validator
    def _check(self, _attribute: object, value: str) -> None:
        length = _HEX_LENGTH.get(self.algorithm)
        if length is None:
            raise InvalidInput("digest", f"algorithm {self.algorithm!r} is not one of {', '.join(_HEX_LENGTH)}")
        if len(value) != length or not _HEX.fullmatch(value):
            raise InvalidInput("digest", f"{self.algorithm} needs {length} hex characters, got {value[:140]!r}")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `sha256:<64 hex>` or `sha512:<128 hex>`; capitals are folded.

        Raises:
            InvalidInput: anything else.
        """
        algorithm, colon, hex_ = text.partition(":")
        if not colon:
            raise InvalidInput("digest", f"{text[:140]!r} has no algorithm; write sha256:<64 hex characters>")
        return cls(algorithm, hex_.lower())

    @classmethod
    def from_hex(cls, text: str) -> Digest:
        """Read bare hex; its length tells the algorithm, as in metainfo and on the peer wire.

        Raises:
            InvalidInput: anything else.
        """
        algorithm = _ALGORITHM_OF_LENGTH.get(len(text))
        if algorithm is None:
            raise InvalidInput("digest", f"{len(text)} hex characters are no digest")
        return cls(algorithm, text.lower())

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of bytes in memory."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    @property
    def shard(self) -> str:
        """First four hex characters: the key of the hash ring (docs/wire.md, "Choosing a tracker")."""
        return self.hex[:4]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


class Hasher:
    """Computes a digest while bytes pass. Releases the GIL above 2 KiB, so it may run in a thread."""

    def __init__(self, algorithm: str = "sha256") -> None:
        if algorithm not in _HEX_LENGTH:
            raise InvalidInput("digest", f"algorithm {algorithm!r} is not one of {', '.join(_HEX_LENGTH)}")
        self.algorithm = algorithm
        self._hash = hashlib.new(algorithm)

    def update(self, data: bytes | memoryview) -> None:
        """Add the next bytes."""
        self._hash.update(data)

    def digest(self) -> Digest:
        """The digest of what passed so far; more may follow."""
        return Digest(self.algorithm, self._hash.hexdigest())
