"""Work in the storage thread pool, and work that outlives whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from krakentx.core.errors import KrakenError

T = TypeVar("T")
P = ParamSpec("P")


class Threads:
    """The pool in which everything that may block the disk or the processor is done."""

    def __init__(self, reactor: Any, pool: ThreadPool) -> None:
        self.reactor = reactor
        self._pool = pool

    def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call it in a thread; the result comes back to the reactor's thread."""
        return deferToThreadPool(self.reactor, self._pool, call, *args, **kwargs)

    def now(self) -> float:
        """Seconds since the epoch (which is what the clock of a Twisted reactor counts on POSIX)."""
        return float(self.reactor.seconds())


class Shared(Generic[T]):
    """One piece of work for which any number may wait.

    A thread cannot be interrupted, so a request that is cancelled in the midst of a write must not let the next one
    begin beside it: the work runs to its end, and cancelling ends only the waiting.
    """

    log = Logger()

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._waiters: list[Deferred[T]] = []
        self._result: Any = None  # T or a Failure
        self.done = False
        Deferred.fromCoroutine(work).addBoth(self._finished)

    def wait(self) -> Deferred[T]:
        """A Deferred of one's own for the result."""
        waiter: Deferred[T] = Deferred(self._forget)
        if self.done:
            waiter.callback(self._result)  # a Failure starts the error chain
        else:
            self._waiters.append(waiter)
        return waiter

    def _forget(self, waiter: Deferred[T]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _finished(self, result: Any) -> None:
        self.done = True
        self._result = result
        waiters, self._waiters = self._waiters, []
        if isinstance(result, Failure) and not waiters and not isinstance(result.value, KrakenError):
            self.log.failure("work failed after its caller had gone", failure=result)
        for waiter in waiters:
            waiter.callback(result)


def shielded(work: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Start the work; cancelling what is returned does not reach it."""
    return Shared(work).wait()
