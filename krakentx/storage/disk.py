"""Small steps on the disk. They block: those which write much or wait for the disk belong in a thread."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from krakentx.core.errors import OutOfSpace

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)


@contextmanager
def space(where: Path) -> Iterator[None]:
    """Turn "no space left", "quota exceeded" and "file too large" into `OutOfSpace`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise OutOfSpace(where) from error
        raise


def write_at(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of it at `offset`: the kernel may take less than it is given when the disk is nearly full.

    Raises:
        OSError: part of it may have been written.
    """
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_new(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file that nobody looks at yet."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o664)
    try:
        write_at(fd, data, 0)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def replace(path: Path, data: bytes, temporary: Path, *, durable: bool = True) -> None:
    """Write a file so that a reader, or the next start after a crash, sees the old or the new bytes, never a mix.

    Args:
        temporary: a fresh name on the same file system; nothing is left there.
        durable: also survive a loss of power. Without it a crash of the process loses nothing either.
    """
    try:
        write_new(temporary, data, durable=durable)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def read_or_none(path: Path) -> bytes | None:
    """A small file, or None when it is not there."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for the same bytes; a copy where the file system cannot do that."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copyfile(source, target)


def remove_tree(folder: Path) -> None:
    """Remove a folder or file of ours; what is gone already does not matter."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        folder.unlink(missing_ok=True)
