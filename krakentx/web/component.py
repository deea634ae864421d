"""The service of a component: its parts, and what must outlive them."""

# mypy: allow-untyped-calls
# twisted.application has no types.

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

STORAGE_THREADS = 8


class Component(MultiService):
    """Starts its parts in the order in which they were added, and stops them all.

    What `around` was told begins before the parts and ends after them, the last one first: thread pools, clients,
    stores.
    """

    log = Logger()

    def __init__(self) -> None:
        super().__init__()
        self._begin: list[Callable[[], object]] = []
        self._end: list[Callable[[], Awaitable[object] | None]] = []
        self._tasks: set[Deferred[None]] = set()

    def around(
        self,
        begin: Callable[[], object] | None = None,
        end: Callable[[], Awaitable[object] | None] | None = None,
    ) -> None:
        """Call `begin` before the parts start and `end` after they stopped."""
        if begin is not None:
            self._begin.append(begin)
        if end is not None:
            self._end.append(end)

    def storage_pool(self, reactor: Any) -> ThreadPool:
        """A thread pool for disk and hashing, which lives around the parts.

        Apart from the reactor's own pool, whose threads resolve names.
        """
        pool = ThreadPool(0, STORAGE_THREADS, name="storage")
        self.around(pool.start, pool.stop)
        return pool

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Let it run by itself; stopping cancels it, and waits for that."""
        task = Deferred.fromCoroutine(work)
        self._tasks.add(task)
        task.addErrback(self._failed).addBoth(lambda _result: self._tasks.discard(task))

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("a task failed", failure=failure)

    def startService(self) -> None:
        """Begin."""
        for begin in self._begin:
            begin()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """End all of it, whatever fails on the way."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await maybeDeferred(super().stopService)
        for task in list(self._tasks):
            task.cancel()
        for end in reversed(self._end):
            try:
                waiting = end()
                if waiting is not None:
                    await waiting
            except Exception:  # the others must end as well
                self.log.failure("could not stop in good order")
