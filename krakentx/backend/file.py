"""A folder as a backend: a second disk, or a mounted share."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.python.threadpool import ThreadPool

from krakentx.backend.interfaces import Sink
from krakentx.backend.paths import NamePaths
from krakentx.core.errors import NotFound, Unavailable
from krakentx.storage import disk
from krakentx.storage.threads import Threads

_CHUNK = 1 << 20
_UPLOADS = ".uploads"


class FileBackend:
    """See `IBackend`.

    Args:
        root: the folder; made when the first file comes. Several hosts may share it.
    """

    def __init__(self, root: Path, paths: NamePaths, *, reactor: Any, pool: ThreadPool) -> None:
        self._root = root
        self._paths = paths
        self._threads = Threads(reactor, pool)

    async def stat(self, namespace: str, name: str) -> int:
        """Size in bytes."""
        return await self._threads.run(self._stat, name)

    def _stat(self, name: str) -> int:
        path = self._file(name)
        with self._trouble(name):
            if not path.is_file():
                raise NotFound("file", name)
            return path.stat().st_size

    async def download(self, namespace: str, name: str, sink: Sink) -> None:
        """Read in a thread, at the pace of the sink."""
        path = self._file(name)
        with self._trouble(name):
            file = await self._threads.run(open, path, "rb", 0)
        offset = 0
        with file:
            while True:
                with self._trouble(name):
                    data = await self._threads.run(os.pread, file.fileno(), _CHUNK, offset)
                if not data:
                    break
                offset += len(data)
                await sink(data)

    async def upload(self, namespace: str, name: str, path: Path) -> None:
        """Copy, make durable, rename."""
        await self._threads.run(self._upload, name, path)

    def _upload(self, name: str, source: Path) -> None:
        target = self._file(name)
        temporary = self._root / _UPLOADS / uuid.uuid4().hex
        with self._trouble(name), disk.space(self._root):
            temporary.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(source, temporary)
                disk.sync_file(temporary)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.rename(temporary, target)
                disk.sync_folder(target.parent)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def _walk(self, folder: str) -> list[str]:
        names = []
        with self._trouble(folder or "/"):
            for place, folders, files in os.walk(self._root / folder.lstrip("/")):
                if place == str(self._root):
                    folders[:] = [name for name in folders if name != _UPLOADS]
                below = os.path.relpath(place, self._root)
                names += [self._paths.name(os.path.normpath(os.path.join(below, file))) for file in files]
        return sorted(name for name in names if name is not None)

    async def list(self, prefix: str) -> list[str]:
        """Walk the folder in a thread."""
        return await self._threads.run(self._walk, self._paths.folder(prefix))

    def _file(self, name: str) -> Path:
        return self._root / self._paths.path(name).lstrip("/")

    @contextmanager
    def _trouble(self, name: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFound("file", name) from error
        except OSError as error:
            raise Unavailable(str(self._root), error.strerror or str(error)) from error
