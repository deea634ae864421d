"""Tags on their way to the backend and to other clusters, in a queue that outlives the process."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from twisted.logger import Logger

from krakentx.backend.interfaces import IBackend
from krakentx.buildindex.store import TagStore
from krakentx.clients.buildindex import BuildIndexClient
from krakentx.clients.cluster import OriginCluster
from krakentx.core.digest import Digest
from krakentx.core.errors import NotFound
from krakentx.queue.store import TaskStore
from krakentx.queue.task import Task
from krakentx.queue.worker import Worker

WRITE_BACK = "tag-writeback"
REPLICATE = "tag-replication"


class TagQueue:
    """An `ITagQueue`.

    Args:
        find: the backend of a namespace; None when there is none.
        remote: the client of another cluster's build-index, by its address.
        remotes: address -> expressions for the tags that it gets.
        writer, replicator: do the tasks, by `write` and `send`; set by who makes them, since each needs the other.
    """

    log = Logger()
    writer: Worker
    replicator: Worker

    def __init__(
        self,
        *,
        store: TagStore,
        tasks: TaskStore,
        find: Callable[[str], IBackend | None],
        origins: OriginCluster,
        remote: Callable[[str], BuildIndexClient],
        remotes: Mapping[str, Sequence[str]],
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._find = find
        self._origins = origins
        self._remote = remote
        self._remotes = {address: [re.compile(each) for each in patterns] for address, patterns in remotes.items()}

    async def write_back(self, tag: str, delay_s: float = 0.0) -> None:
        """Remember durably that the tag is to be written to the backend. Raises: Busy, OutOfSpace."""
        await self.writer.submit(WRITE_BACK, tag, {}, delay_s=delay_s)

    async def waits(self, tag: str) -> bool:
        """Whether it is still to be written."""
        return await self._tasks.get(WRITE_BACK, tag) is not None

    async def write_now(self, tag: str) -> None:
        """Write it to the backend. Raises: Unavailable."""
        task = await self._tasks.get(WRITE_BACK, tag)
        if task is not None:
            await self.write(task)
            await self._tasks.done(task)

    async def write(self, task: Task) -> None:
        """Write what the tag points at now; a put that comes meanwhile has replaced the task. Raises: Unavailable."""
        tag = task.key
        backend = self._find(tag)
        if backend is None:
            self.log.warn("no backend for {tag} any more: it stays here", tag=tag)
            return
        await backend.upload(tag, tag, self._store.path(tag))
        self.log.info("tag {tag} is in the backend", tag=tag)

    async def replicate(self, tag: str, digest: Digest, dependencies: Sequence[Digest], delay_s: float = 0.0) -> bool:
        """Remember durably to give it to every cluster that is to have it. False when there is none."""
        payload = {"tag": tag, "digest": str(digest), "dependencies": [str(each) for each in dependencies]}
        addresses = [
            address for address, patterns in self._remotes.items() if any(each.search(tag) for each in patterns)
        ]
        for address in addresses:
            await self.replicator.submit(REPLICATE, f"{tag} {address}", {**payload, "remote": address}, delay_s=delay_s)
        return bool(addresses)

    async def send(self, task: Task) -> None:
        """Give a tag and all it depends on to another cluster, the tag last. Raises: Unavailable."""
        tag, address = str(task.payload["tag"]), str(task.payload["remote"])
        digest = Digest.parse(task.payload["digest"])
        if address not in self._remotes:
            return
        remote = self._remote(address)
        try:
            if await remote.get(tag) == digest:
                return
        except NotFound:
            pass
        origins = await remote.origin()
        for each in task.payload["dependencies"]:
            await self._origins.replicate(tag, Digest.parse(each), origins)
        await remote.put(tag, digest, replicate=True)
        self.log.info("tag {tag} is with {remote}", tag=tag, remote=address)
