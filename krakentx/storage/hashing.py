"""Hash the beginning of a file while the rest of it arrives.

The whole must pass its sha256 before it is called complete. Hashing costs more than receiving, so it is begun with the
first piece instead of the last: on a host with an idle core little is left to do when the last piece comes.
"""

from __future__ import annotations

import errno
import os

from twisted.internet.defer import Deferred

from krakentx.core.digest import Digest, Hasher
from krakentx.storage.threads import Shared, Threads

CHUNK = 1 << 20  # bytes in memory for one hasher
SLICE = 32 << 20  # bytes for one job of the pool: about 16 ms, so that no one waits long for a thread


def hash_range(fd: int, hasher: Hasher, start: int, stop: int) -> int:
    """Feed bytes [start, stop) of a file to the hasher. Blocks.

    Returns:
        Where it ended: before `stop` only when the file is shorter.
    """
    buffer = memoryview(bytearray(min(CHUNK, max(0, stop - start))))
    while start < stop:
        count = os.preadv(fd, [buffer[: stop - start]], start)
        if not count:
            break
        hasher.update(buffer[:count])
        start += count
    return start


class PrefixHasher:
    """Hashes a growing prefix of an open file, one pool job at a time."""

    def __init__(self, fd: int, algorithm: str, threads: Threads) -> None:
        self._fd = fd
        self._hasher = Hasher(algorithm)
        self._threads = threads
        self._hashed = 0
        self._target = 0
        self._running: Shared[None] | None = None

    def extend(self, stop: int) -> None:
        """Bytes below `stop` are final now: hash them when there is time."""
        self._target = max(self._target, stop)
        if not self._busy and self._hashed < self._target:
            self._running = Shared(self._run())

    async def digest(self, length: int) -> Digest:
        """The digest of the first `length` bytes, all of which must be final."""
        self.extend(length)
        if self._running is not None:
            await self._running.wait()
        return self._hasher.digest()

    @property
    def _busy(self) -> bool:
        return self._running is not None and not self._running.done

    def stop(self) -> Deferred[None] | None:
        """Begin no further job. None when the file may be closed now, else what fires when it may be."""
        self._target = self._hashed
        return self._running.wait() if self._running is not None and not self._running.done else None

    async def _run(self) -> None:
        while self._hashed < self._target:
            stop = min(self._target, self._hashed + SLICE)
            ended = await self._threads.run(hash_range, self._fd, self._hasher, self._hashed, stop)
            if ended < stop:
                raise OSError(errno.EIO, f"file ends at {ended}, expected at least {stop} bytes")
            self._hashed = ended
