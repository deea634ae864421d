"""Where a blob lies: `<root>/<hex[0:2]>/<hex[2:4]>/<hex>/data`, with its side files beside `data`.

The names and the contents are those of the reference, so that its disk can be taken over. A folder is put in place, and
taken away, by one rename; until then and from then on it lies as `<root>/<hex[0:2]>/.<something>`: on the same file
system even when that shard is a link to another volume, and easy to find again after a crash.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput
from krakentx.storage.disk import remove_tree, sync_folder

DATA = "data"
META = "_torrentmeta"
STATUS = "_status"
ACCESS = "_last_access_time"
PERSIST = "_persist"

_GONE = (errno.ENOENT, errno.ENOTDIR)


class Shards:
    """The folders of the blobs below one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def folder(self, digest: Digest) -> Path:
        """The folder of a blob, whether it is there or not."""
        return self.root / digest.hex[:2] / digest.hex[2:4] / digest.hex

    def hidden(self, digest: Digest) -> Path:
        """A fresh name on the file system of that blob; its parent exists."""
        path = self._hidden(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def place(self, digest: Digest, folder: Path) -> bool:
        """Rename a finished folder to its place. False when a folder stands there already."""
        target = self.folder(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(folder, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        return True

    def take_away(self, digest: Digest) -> Path | None:
        """Rename the folder of a blob out of sight; the caller then removes it, in a thread. None: it was not there."""
        hidden = self._hidden(digest)
        try:
            os.rename(self.folder(digest), hidden)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise
        return hidden

    def sync(self, digest: Digest) -> None:
        """Make the name of a blob's folder durable, up to the root."""
        folder = self.folder(digest).parent
        sync_folder(folder)
        sync_folder(folder.parent)
        sync_folder(self.root)

    def sweep(self) -> int:
        """Remove what a crash left half made or half removed. For the start, before anyone else works here.

        Returns:
            How many leftovers there were.
        """
        leftovers = [path for shard in self._below(self.root) for path in _children(shard) if path.name[0] == "."]
        for path in leftovers:
            remove_tree(path)
        return len(leftovers)

    def __iter__(self) -> Iterator[tuple[Digest, Path]]:
        """All blob folders; whatever else lies there is not ours and not seen."""
        for shard in self._below(self.root):
            for half in self._below(shard):
                for folder in _children(half):
                    try:
                        digest = Digest.from_hex(folder.name)
                    except InvalidInput:
                        continue
                    if folder == self.folder(digest):
                        yield digest, folder

    def _hidden(self, digest: Digest) -> Path:
        return self.root / digest.hex[:2] / f".{uuid.uuid4().hex}"

    @staticmethod
    def _below(folder: Path) -> list[Path]:
        return [path for path in _children(folder) if len(path.name) == 2]


def _children(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder)]
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise


def encode_time(seconds: float) -> bytes:
    """Content of `_last_access_time`: Unix seconds as a zig-zag varint, padded with zeros to 8 bytes."""
    value = max(0, int(seconds)) << 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out).ljust(8, b"\0")


def decode_time(data: bytes) -> float | None:
    """The inverse of `encode_time`; None when the bytes are torn."""
    value = 0
    for at, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * at
        if byte < 0x80:
            return float(value >> 1 if not value & 1 else -(value >> 1) - 1)
    return None
