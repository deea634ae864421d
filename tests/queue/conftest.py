"""A queue in a fresh file, on a clock of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.threadpool import ThreadPool

from krakentx.queue.store import TaskStore


class ThreadClock(Clock):
    """Time of the test; threads come back through the real reactor."""

    def callFromThread(self, *args: Any) -> None:
        reactor.callFromThread(*args)


@pytest.fixture
def tick_clock() -> ThreadClock:
    clock = ThreadClock()
    clock.advance(1_000_000)
    return clock


@pytest.fixture(scope="session")
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool(1, 2, "queue")
    pool.start()
    yield pool
    pool.stop()


@pytest.fixture
def make_tasks(tmp_path: Path, pool: ThreadPool, tick_clock: ThreadClock) -> Callable[..., TaskStore]:
    def make(limit: int = 100) -> TaskStore:
        return TaskStore(tmp_path / "sub" / "queue.db", reactor=tick_clock, pool=pool, limit=limit)

    return make


@pytest.fixture
def tasks(make_tasks: Callable[..., TaskStore]) -> TaskStore:
    return make_tasks()


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Any]:
    async def wait(condition: Callable[[], object]) -> None:
        for _ in range(500):
            if condition():
                return
            tick: Deferred[None] = Deferred()
            reactor.callLater(0.01, tick.callback, None)
            await tick
        raise AssertionError("it did not come to pass")

    return wait
