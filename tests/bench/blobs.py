"""The blob that travels."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from attrs import frozen

_BLOCK = 16 << 20


@frozen
class Blob:
    """A file, and its name."""

    path: Path
    size: int
    hex: str

    @property
    def digest(self) -> str:
        """As `sha256:<hex>`."""
        return f"sha256:{self.hex}"

    @property
    def gib(self) -> float:
        """Its size."""
        return self.size / (1 << 30)


def make(path: Path, size: int) -> Blob:
    """Write a file of random bytes; a block of them over and over, each time with other bytes in front."""
    block, hasher = bytearray(os.urandom(_BLOCK)), hashlib.sha256()
    with path.open("wb") as file:
        for at in range(0, size, _BLOCK):
            block[:16] = os.urandom(16)
            part = memoryview(block)[: min(_BLOCK, size - at)]
            file.write(part)
            hasher.update(part)
    return Blob(path, size, hasher.hexdigest())


def changed(blob: Blob) -> Blob:
    """The same file with other bytes in front: another blob without writing all of it again."""
    hasher = hashlib.sha256()
    with blob.path.open("r+b") as file:
        file.write(os.urandom(16))
        file.seek(0)
        while data := file.read(_BLOCK):
            hasher.update(data)
    return Blob(blob.path, blob.size, hasher.hexdigest())
