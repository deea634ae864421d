"""Transfers: a piece on its way out of a file, or into one."""

from __future__ import annotations

import os
from collections.abc import Callable

from attrs import define

from krakentx.core.sums import PieceSum


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
    """A frame, and the bytes of a file that follow it.

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
    begun: bool = False


@define(eq=False)
class Sink:
    """Takes exactly `remaining` bytes from the socket.

    Args:
        fd: where to write them from `offset` on; None = they are dropped.
        on_end: called exactly once: True when all bytes came, False when the connection was lost before. The file must
            stay open until then.
        passed: sums what comes.
        on_progress: some bytes came.
    """

    fd: int | None
    offset: int
    remaining: int
    on_end: Callable[[bool], None]
    passed: PieceSum | None = None
    on_progress: Callable[[], None] = lambda: None
    error: OSError | None = None  # the disk refused: what still comes is dropped, and the owner of the sink decides

    def take(self, data: memoryview) -> None:
        """The next bytes."""
        self.remaining -= len(data)
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
