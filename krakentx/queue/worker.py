"""The service that does the tasks."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from krakentx.core.errors import KrakenError
from krakentx.queue.config import QueueConfig
from krakentx.queue.store import TaskStore
from krakentx.queue.task import Backoff, Task

Handler = Callable[[Task], Awaitable[None]]

_LONGEST_PAUSE_S = 60.0
_TROUBLE_PAUSE_S = 5.0


class Worker(Service):
    """Does tasks of the given kinds, several at a time; one that fails is tried again, ever more rarely.

    A handler that returns has done its task, also when it found nothing to do. What it raises is noted with the task,
    where `TaskStore.waiting` shows it. Handlers must bear to be run twice for one task: a crash may come between the
    work and its note.
    """

    log = Logger()

    def __init__(
        self,
        store: TaskStore,
        handlers: Mapping[str, Handler],
        config: QueueConfig,
        *,
        reactor: Any,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._handlers = dict(handlers)
        self._config = config
        self._backoff = Backoff(config.retry_interval_s, config.max_retry_interval_s)
        self._reactor = reactor
        self._rng = rng
        self._loop: Deferred[None] | None = None
        self._running: dict[tuple[str, str], Deferred[None]] = {}
        self._pause: Deferred[None] | None = None
        self._woken = False
        self.failures = 0
        """Attempts that failed since the start."""
        self.successes = 0
        """Tasks done since the start."""
        self.waiting = 0
        """Tasks that wait or are at work, as of the last look."""

    async def submit(self, kind: str, key: str, payload: Mapping[str, Any], *, delay_s: float = 0.0) -> None:
        """`TaskStore.add`, and look at once whether it can be begun."""
        await self._store.add(kind, key, payload, delay_s=delay_s)
        self.wake()

    def wake(self) -> None:
        """There may be something to do."""
        self._woken = True
        if self._pause is not None:
            pause, self._pause = self._pause, None
            pause.callback(None)

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._loop = Deferred.fromCoroutine(self._run())
        self._loop.addErrback(lambda failure: failure.trap(CancelledError) and None)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await self._loop
            self._loop = None
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await gatherResults(tasks)

    async def _run(self) -> None:
        while True:
            try:
                delay_s = await self._begin_what_is_due()
            except CancelledError:
                raise
            except Exception:  # the file may be locked or the disk full for a while: the queue must live on
                self.log.failure("the queue {path} is in trouble", path=str(self._store.path))
                delay_s = _TROUBLE_PAUSE_S
            await self._sleep(delay_s)

    async def _begin_what_is_due(self) -> float:
        """Returns for how many seconds there is nothing to begin."""
        self._woken = False
        self.waiting = await self._store.count(list(self._handlers))
        free = self._config.workers - len(self._running)
        if free <= 0:
            return _LONGEST_PAUSE_S
        tasks = await self._store.upcoming(list(self._handlers), self._config.workers + 1)
        for task in tasks:
            if (task.kind, task.key) in self._running:
                continue
            wait_s = task.next_attempt_at - float(self._reactor.seconds())
            if wait_s > 0:
                return min(wait_s, _LONGEST_PAUSE_S)
            if not free:
                break
            free -= 1
            self._begin(task)
        return _LONGEST_PAUSE_S

    def _begin(self, task: Task) -> None:
        name = (task.kind, task.key)
        self._running[name] = attempt = Deferred.fromCoroutine(self._attempt(task))

        def ended(_result: None) -> None:
            self._running.pop(name, None)
            self.wake()

        attempt.addCallback(ended)

    async def _attempt(self, task: Task) -> None:
        work: Deferred[None] = Deferred.fromCoroutine(_call(self._handlers[task.kind], task))
        work.addTimeout(self._config.deadline_s, self._reactor)
        try:
            try:
                await work
            except CancelledError:
                return  # we are stopping: it is not the task's fault
            except Exception as error:
                await self._note_failure(task, error)
            else:
                self.successes += 1
                await self._store.done(task)
        except CancelledError:
            pass  # only the waiting for the note ended
        except Exception:  # of the file: the task stays in it and is tried again
            self.log.failure("the end of {kind} {key} could not be noted", kind=task.kind, key=task.key)

    async def _note_failure(self, task: Task, error: Exception) -> None:
        self.failures += 1
        pause_s = self._backoff.delay_s(task.failures + 1, self._rng)
        reason = f"took longer than {self._config.deadline_s:g} s" if isinstance(error, TimeoutError) else str(error)
        self.log.warn(
            "{kind} {key} failed {count} times, next attempt in {pause_s:.1f} s: {reason}",
            kind=task.kind,
            key=task.key,
            count=task.failures + 1,
            pause_s=pause_s,
            reason=reason or repr(error),
        )
        if not isinstance(error, (KrakenError, TimeoutError)):
            self.log.failure("unexpected error in {kind} {key}", kind=task.kind, key=task.key)
        await self._store.failed(task, reason or repr(error), float(self._reactor.seconds()) + pause_s)

    async def _sleep(self, delay_s: float) -> None:
        if self._woken:
            return
        pause: Deferred[None] = Deferred()
        self._pause = pause
        call: IDelayedCall = self._reactor.callLater(delay_s, self.wake)
        try:
            await pause
        finally:
            self._pause = None
            if call.active():
                call.cancel()


async def _call(handler: Handler, task: Task) -> None:
    await handler(task)
