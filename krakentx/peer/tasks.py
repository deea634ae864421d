"""Tasks: what runs in the background has an owner, who cancels it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure


class Tasks:
    """Coroutines that nobody waits for."""

    log = Logger()

    def __init__(self) -> None:
        self._running: set[Deferred[None]] = set()

    def own(self, work: Coroutine[Any, Any, None]) -> Deferred[None]:
        """Run something until it is done, or until `stop`. An error that it lets out is our bug, and is logged."""
        task = Deferred.fromCoroutine(work)
        self._running.add(task)

        def done(result: Failure | None) -> None:
            self._running.discard(task)
            if isinstance(result, Failure) and not result.check(CancelledError):
                self.log.failure("a task in the background failed", failure=result)

        task.addBoth(done)
        return task

    def stop(self) -> None:
        """Cancel all of them."""
        for task in list(self._running):
            task.cancel()
