"""Files below one folder, each replaced as a whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from attrs import define, field

from krakentx.core.digest import Digest
from krakentx.core.errors import Conflict, InvalidInput, NotFound
from krakentx.storage import disk
from krakentx.storage.threads import Threads

# What Linux takes, the closing zero byte of a path left out.
_MAX_PART = 255
_MAX_PATH = 4095


@define(eq=False)
class OpenFile:
    """An open file, in the shape of an `IBlobReader`; a later upload of the same name does not disturb it."""

    digest: Digest  # names this version of the file; it is not the hash of its bytes
    size: int
    _fd: int
    _open: bool = field(default=True, init=False)

    def fileno(self) -> int:
        """The open file."""
        return self._fd

    async def wait(self, offset: int, stop: int) -> int:
        """At once: `stop`."""
        return stop

    def close(self) -> None:
        """Close it. May be called twice."""
        if self._open:
            self._open = False
            os.close(self._fd)


class Files:
    """A tree of files.

    Names are paths with `/`; a `:` counts as `/`, as in the reference, so that `repo:tag` is a file in a folder.
    Uploads are written beside the tree and renamed into it.

    Args:
        root: holds `files` and `uploads`; what an earlier run left in `uploads` is dropped.
    """

    def __init__(self, root: Path, threads: Threads) -> None:
        self._files = root / "files"
        self._uploads = root / "uploads"
        self._threads = threads
        disk.remove_tree(self._uploads)
        for folder in (self._files, self._uploads):
            folder.mkdir(parents=True, exist_ok=True)

    def _path(self, name: str) -> Path:
        parts = [part for part in name.replace(":", "/").split("/") if part]
        path = self._files.joinpath(*parts)
        unusable = any(part in (".", "..") or "\0" in part or len(part.encode()) > _MAX_PART for part in parts)
        if unusable or len(os.fsencode(path)) > _MAX_PATH:
            raise InvalidInput("name", f"{name[:140]!r} is no path below the root")
        return path

    def _file(self, name: str) -> Path:
        path = self._path(name)
        if path == self._files:
            raise InvalidInput("name", "the name is empty")
        return path

    def stat(self, name: str) -> int:
        """Size in bytes.

        Raises:
            NotFound: there is no such file.
        """
        path = self._file(name)
        if not path.is_file():
            raise NotFound("file", name)
        return path.stat().st_size

    def open(self, name: str) -> OpenFile:
        """Open for reading.

        Raises:
            NotFound: there is no such file.
        """
        path = self._file(name)
        try:
            fd = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound("file", name) from error
        info = os.fstat(fd)
        if not path.is_file():
            os.close(fd)
            raise NotFound("file", name)
        version = Digest.of(f"{info.st_ino} {info.st_size} {info.st_mtime_ns}".encode())
        return OpenFile(version, info.st_size, fd)

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> int:
        """Write or replace a file. Returns its size in bytes; when `chunks` raises nothing has changed.

        Raises:
            Conflict: the name is a folder, or a file stands where it needs a folder. OutOfSpace.
        """
        path = self._file(name)
        temporary = self._uploads / uuid.uuid4().hex
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o664)
        size = 0
        try:
            try:
                with disk.space(self._files):
                    async for data in chunks:
                        await self._threads.run(disk.write_at, fd, data, size)
                        size += len(data)
                    await self._threads.run(os.fsync, fd)
            finally:
                os.close(fd)
            await self._threads.run(_place, temporary, path, name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return size

    async def delete(self, name: str) -> None:
        """Remove a file.

        Raises:
            NotFound: there is no such file.
        """
        path = self._file(name)
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
            raise NotFound("file", name) from error

    async def list(self, folder: str) -> list[str]:
        """All files below a folder, as paths from the root, sorted by bytes; empty when there is no such folder."""
        return await self._threads.run(_walk, self._files, self._path(folder))


def _place(temporary: Path, path: Path, name: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.rename(temporary, path)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise Conflict(f"{name}: a file and a folder cannot have one name") from error
    disk.sync_folder(path.parent)


def _walk(root: Path, folder: Path) -> list[str]:
    found = []
    for where, _, names in os.walk(folder):
        below = os.path.relpath(where, root)
        found += [name if below == "." else f"{below}/{name}" for name in names]
    return sorted(found)
