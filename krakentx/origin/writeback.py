"""Blobs on their way to the backend: a mark beside the blob, and a task in the queue that outlives the process.

The mark keeps the blob from being evicted. It is set when the blob appears and taken away when the backend has it; a
blob whose namespace has no backend keeps it, since no other copy may exist.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from krakentx.core.digest import Digest
from krakentx.core.errors import Conflict, NotFound
from krakentx.queue.store import TaskStore
from krakentx.queue.task import Task
from krakentx.queue.worker import Worker
from krakentx.storage.files import BlobStore

KIND = "writeback"


class IWritableBackend(Protocol):
    """What is asked of a backend here."""

    async def stat(self, namespace: str, name: str) -> int:
        """Size in bytes. Raises: NotFound, Unavailable."""

    async def upload(self, namespace: str, name: str, path: Path) -> None:
        """Keep the bytes of a file under a name. Raises: Unavailable."""


Find = Callable[[str], IWritableBackend | None]


class WriteBack:
    """An `IWriteBack`. One task for a blob, which names all the namespaces under which it was pushed.

    Args:
        find: the backend of a namespace; None when there is none.
        worker: does the tasks, by `run`; set by who makes it, since the two need each other.
    """

    log = Logger()
    worker: Worker

    def __init__(self, find: Find, store: BlobStore, tasks: TaskStore) -> None:
        self._find = find
        self._store = store
        self._tasks = tasks
        self._adding = DeferredLock()

    def wanted(self, namespace: str) -> bool:
        """Whether there is a backend for this namespace."""
        return self._find(namespace) is not None

    async def add(self, namespace: str, digest: Digest, delay_s: float = 0.0) -> None:
        """Remember durably that the blob is to be written, after a delay. Raises: Busy, OutOfSpace."""
        await self._adding.acquire()
        try:
            known = await self._tasks.get(KIND, str(digest))
            namespaces = sorted({namespace, *(known.payload["namespaces"] if known else ())})
            await self.worker.submit(KIND, str(digest), {"namespaces": namespaces}, delay_s=delay_s)
        finally:
            self._adding.release()

    async def pending(self, digest: Digest) -> bool:
        """Whether a task for it waits."""
        return await self._tasks.get(KIND, str(digest)) is not None

    async def flush(self, digest: Digest) -> None:
        """Write it now.

        Raises:
            Unavailable: the backend did not take it. Conflict: there is no backend for it, so no other copy may exist.
        """
        task = await self._tasks.get(KIND, str(digest))
        if task is None:
            raise Conflict("nothing but this origin has it: there is no backend for its namespace")
        await self.run(task)
        await self._tasks.done(task)

    async def run(self, task: Task) -> None:
        """Do a task. Raises: Unavailable: the backend did not take it."""
        digest = Digest.parse(task.key)
        size = self._store.stat(digest)
        if size is None:
            self.log.warn("{digest} left before it was written to the backend", digest=str(digest))
            return
        written = True
        for namespace in task.payload["namespaces"]:
            written &= await self._write(namespace, digest, size)
        if written:
            try:
                self._store.set_persist(digest, False)
            except NotFound:
                pass

    async def _write(self, namespace: str, digest: Digest, size: int) -> bool:
        backend = self._find(namespace)
        if backend is None:
            self.log.warn(
                "no backend for {namespace} any more: {digest} stays here", namespace=namespace, digest=str(digest)
            )
            return False
        try:
            # Another size is a transfer that was cut short once.
            if await backend.stat(namespace, digest.hex) == size:
                return True
        except NotFound:
            pass
        self._store.pin(digest)
        try:
            await backend.upload(namespace, digest.hex, self._store.path(digest))
        finally:
            self._store.unpin(digest)
        self.log.info("{digest} is in the backend", digest=str(digest), namespace=namespace, size_bytes=size)
        return True
