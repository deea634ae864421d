"""A blob on its way from the origins: written here while clients already read it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from attrs import define, field
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from krakentx.core.digest import Digest, Hasher
from krakentx.core.errors import Corrupt, KrakenError, Unavailable
from krakentx.storage import disk
from krakentx.storage.files import BlobStore
from krakentx.storage.threads import Threads
from krakentx.web.client import Receive

HOLD_BACK_BYTES = 64 << 10
"""The end of a blob that nobody gets before the whole has passed its hash."""

_STALL_S = 60.0

Download = Callable[[Receive], Awaitable[None]]
"""Hands on every byte of a blob, in order. Raises: NotFound, Unavailable."""


@define(eq=False)
class Fetch:
    """One download into the store, for any number of readers; it goes on when they leave.

    Args:
        temporary: a fresh name on the file system of the store; nothing is left there.
    """

    digest: Digest
    size: int
    store: BlobStore
    temporary: Path
    threads: Threads
    clock: IReactorTime
    received: int = field(default=0, init=False)
    verified: bool = field(default=False, init=False)
    error: KrakenError | None = field(default=None, init=False)
    fd: int = field(default=-1, init=False)
    _users: int = field(default=1, init=False)  # the download itself is one
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    def begin(self) -> None:
        """Make the file. Raises: OutOfSpace."""
        with disk.space(self.temporary.parent):
            self.fd = os.open(self.temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)

    async def run(self, download: Download) -> None:
        """Bring all of it and put it into the store; afterwards `verified` or `error` is set. Raises nothing."""
        hasher = Hasher(self.digest.algorithm)

        async def receive(data: bytes) -> None:
            if self.received + len(data) > self.size:
                raise Corrupt(f"{self.size} bytes", "more")
            await self.threads.run(self._append, data, hasher)
            self.received += len(data)
            self._wake()

        try:
            await download(receive)
            got = await self.threads.run(hasher.digest)
            if self.received != self.size or got != self.digest:
                raise Corrupt(self.digest, got)
            self.verified = True
            self._wake()
            await self.store.commit(self.temporary, self.digest, None)
        except KrakenError as error:
            self.error = error
        except BaseException:
            self.error = Unavailable("the origins", "the transfer was given up")
            raise
        finally:
            self.temporary.unlink(missing_ok=True)
            self._wake()
            self.release()

    def _append(self, data: bytes, hasher: Hasher) -> None:
        with disk.space(self.temporary.parent):
            disk.write_at(self.fd, data, self.received)
        hasher.update(data)

    def hold(self) -> None:
        """One more uses the file."""
        self._users += 1

    def release(self) -> None:
        """One uses the file no more; the last one closes it."""
        self._users -= 1
        if self._users == 0:
            os.close(self.fd)

    def released(self, offset: int, stop: int) -> int:
        """End of the run from `offset` that may be served now, at most `stop`."""
        end = self.size if self.verified else min(self.received, self.size - HOLD_BACK_BYTES)
        return max(offset, min(end, stop))

    async def changed(self) -> None:
        """Wait until more may be served, or an error came. Raises: Unavailable: nothing did for a minute."""
        waiter: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        try:
            await waiter.addTimeout(_STALL_S, self.clock)
        except TimeoutError as error:
            raise Unavailable("the origins", f"sent nothing for {_STALL_S:.0f} s") from error

    def _wake(self) -> None:
        waiters, self._waiting = self._waiting, []
        for waiter in list(waiters):
            if not waiter.called:
                waiter.callback(None)


@define(eq=False)
class FetchReader:
    """An `IBlobReader` over a `Fetch`."""

    _fetch: Fetch
    digest: Digest = field(init=False)
    size: int = field(init=False)
    _open: bool = field(default=True, init=False)

    def __attrs_post_init__(self) -> None:
        self.digest, self.size = self._fetch.digest, self._fetch.size
        self._fetch.hold()

    def fileno(self) -> int:
        """The file that is being written."""
        return self._fetch.fd

    async def wait(self, offset: int, stop: int) -> int:
        """See `IBlobReader`."""
        while True:
            end = self._fetch.released(offset, min(stop, self.size))
            if end > offset or offset >= stop:
                return end
            if self._fetch.error is not None:
                raise self._fetch.error
            await self._fetch.changed()

    def close(self) -> None:
        """See `IBlobReader`."""
        if self._open:
            self._open = False
            self._fetch.release()
