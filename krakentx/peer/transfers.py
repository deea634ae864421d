"""Transfers: a piece on its way out of a file, or into one.

Between two of our own peers it goes in chunks, each behind a frame of its own, and other frames may pass in between.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from attrs import define, field

from krakentx.core.sums import PieceSum

CHUNK = 256 << 10
"""Bytes of a piece that hold up the frames behind them (docs/decisions/0008)."""


def write_fully(fd: int, data: memoryview, offset: int) -> None:
    """`pwrite` until all is written.

    Raises:
        OSError: the disk is full, or failed.
    """
    while data:
        written = os.pwrite(fd, data, offset)
        offset += written
        data = data[written:]


@define(eq=False)
class FileRun:
    """A frame, and the bytes of a file that follow it, at once or in chunks.

    Args:
        header: the frame; a run without one could not be told from the frames around it, so it is never empty.
        on_begin: the first byte left.
        on_end: called exactly once: True when the last byte was given to the kernel, False when the run was dropped.
            The file must stay open until then.
    """

    header: bytes
    fd: int
    offset: int
    remaining: int
    on_begin: Callable[[], None]
    on_end: Callable[[bool], None]
    due: int = field(init=False)  # bytes that follow before another frame may
    begun: bool = False
    torn: bool = False  # something of the frame or of the bytes due has left, and not all: nothing may come in between
    _more: Callable[[int], bytes] | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.due = self.remaining

    def cut(self, more: Callable[[int], bytes]) -> None:
        """Go in chunks, of which `more` gives the frame of each but the first. Call it before anything leaves."""
        self.due = min(self.remaining, CHUNK)
        self._more = more

    def moved(self, count: int) -> None:
        """So many bytes have left."""
        self.offset += count
        self.remaining -= count
        self.due -= count
        if self.due:
            return
        self.torn = False
        if self.remaining:
            assert self._more is not None
            self.due = min(self.remaining, CHUNK)
            self.header = self._more(self.due)


@define(eq=False)
class Sink:
    """Takes exactly `remaining` bytes from the socket, of which the next `due` come before another frame does.

    Args:
        fd: where to write them from `offset` on; None = they are dropped.
        on_end: called exactly once: True when all bytes came, False when the connection was lost before. The file must
            stay open until then.
        passed: sums what comes.
        on_progress: some bytes came.
        on_chunk: all that were due came, and not all that remained.
    """

    fd: int | None
    offset: int
    remaining: int
    on_end: Callable[[bool], None]
    passed: PieceSum | None = None
    on_progress: Callable[[], None] = lambda: None
    on_chunk: Callable[[], None] = lambda: None
    due: int = field(init=False)
    error: OSError | None = None  # the disk refused: what still comes is dropped, and the owner of the sink decides

    def __attrs_post_init__(self) -> None:
        self.due = self.remaining

    def take(self, data: memoryview) -> None:
        """The next bytes."""
        self.remaining -= len(data)
        self.due -= len(data)
        if self.fd is None:
            return
        if self.passed is not None:
            self.passed.update(data)
        try:
            write_fully(self.fd, data, self.offset)
        except OSError as error:
            self.error = error
            self.fd = None
        self.offset += len(data)
