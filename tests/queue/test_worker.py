"""The service that does the tasks."""

from __future__ import annotations

import random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from krakentx.core.errors import Unavailable
from krakentx.queue.config import QueueConfig
from krakentx.queue.task import Task
from krakentx.queue.worker import Worker


class Handler:
    """Notes what it is given; the test says how each task ends."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.payloads: list[Any] = []
        self.open: dict[str, Deferred[None]] = {}
        self.failing: set[str] = set()
        self.hold = False

    async def __call__(self, task: Task) -> None:
        self.begun.append(task.key)
        self.payloads.append(dict(task.payload))
        if task.key in self.failing:
            raise Unavailable("backend:80", "down")
        if self.hold:
            self.open[task.key] = waiting = Deferred()
            await waiting


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def make_worker(tasks: Any, tick_clock: Any, handler: Handler) -> Any:
    def make(**changes: Any) -> Worker:
        config = QueueConfig(**{"workers": 2, "retry_interval_s": 10.0, "deadline_s": 100.0} | changes)
        return Worker(tasks, {"k": handler}, config, reactor=tick_clock, rng=random.Random(1))

    return make


@pytest_twisted.ensureDeferred
async def test_tasks_are_done_and_forgotten(tasks, make_worker, handler, until) -> None:
    worker = make_worker()
    await tasks.add("k", "before the start", {})
    await tasks.add("of another worker", "x", {})
    worker.startService()
    await until(lambda: worker.successes == 1)
    await worker.submit("k", "after it", {"n": 1})
    await until(lambda: worker.successes == 2 and not worker._running)
    assert handler.begun == ["before the start", "after it"]
    await worker.stopService()
    assert [task.key for task in await tasks.waiting()] == ["x"]


@pytest_twisted.ensureDeferred
async def test_a_failed_task_is_tried_again_ever_more_rarely(
    tasks, make_worker, handler, until, tick_clock, logs
) -> None:
    worker = make_worker()
    handler.failing.add("a")
    worker.startService()
    await worker.submit("k", "a", {})
    for failures, pause_s in ((1, 10), (2, 20), (3, 40)):
        await until(lambda failures=failures: worker.failures == failures and not worker._running and worker._pause)
        (task,) = await tasks.waiting()
        assert task.failures == failures and "down" in task.last_error
        left_s = task.next_attempt_at - tick_clock.seconds()
        assert 0.8 * pause_s <= left_s <= 1.2 * pause_s
        assert len(handler.begun) == failures
        tick_clock.advance(left_s + 0.01)
    handler.failing.clear()
    await until(lambda: worker.successes == 1 and not worker._running)
    await worker.stopService()
    assert await tasks.count() == 0


@pytest_twisted.ensureDeferred
async def test_several_at_a_time_and_no_more(tasks, make_worker, handler, until) -> None:
    worker = make_worker(workers=3)
    handler.hold = True
    for number in range(7):
        await tasks.add("k", str(number), {})
    worker.startService()
    await until(lambda: len(handler.open) == 3)
    for finished in range(7):
        await until(lambda finished=finished: len(handler.begun) == min(7, finished + 3))
        assert len(worker._running) <= 3
        handler.open.pop(next(iter(handler.open))).callback(None)
    await until(lambda: worker.successes == 7 and not worker._running)
    await worker.stopService()


@pytest_twisted.ensureDeferred
async def test_a_task_that_takes_too_long_is_stopped(tasks, make_worker, handler, until, tick_clock, logs) -> None:
    worker = make_worker()
    handler.hold = True
    worker.startService()
    await worker.submit("k", "a", {})
    await until(lambda: handler.open)
    tick_clock.advance(101)
    await until(lambda: worker.failures == 1 and not worker._running)
    (task,) = await tasks.waiting()
    assert "longer than 100 s" in task.last_error
    await worker.stopService()


@pytest_twisted.ensureDeferred
async def test_stopping_stops_the_tasks_and_keeps_them(tasks, make_worker, handler, until, tick_clock, logs) -> None:
    worker = make_worker()
    handler.hold = True
    worker.startService()
    await worker.submit("k", "a", {})
    await until(lambda: handler.open)
    await worker.stopService()
    (task,) = await tasks.waiting()
    assert (task.failures, worker.failures) == (0, 0)
    assert tick_clock.getDelayedCalls() == []
    handler.hold = False
    worker.startService()
    await until(lambda: worker.successes == 1 and not worker._running)
    await worker.stopService()


@pytest_twisted.ensureDeferred
async def test_a_task_replaced_while_it_runs_runs_again(tasks, make_worker, handler, until) -> None:
    worker = make_worker()
    handler.hold = True
    worker.startService()
    await worker.submit("k", "tag", {"digest": "old"})
    await until(lambda: handler.open)
    await worker.submit("k", "tag", {"digest": "new"})
    handler.hold = False
    handler.open["tag"].callback(None)
    await until(lambda: worker.successes == 2 and not worker._running)
    assert handler.payloads == [{"digest": "old"}, {"digest": "new"}]
    await worker.stopService()
    assert await tasks.count() == 0


@pytest_twisted.ensureDeferred
async def test_delayed_tasks_wait(tasks, make_worker, handler, until, tick_clock) -> None:
    worker = make_worker()
    worker.startService()
    await worker.submit("k", "later", {}, delay_s=1800)
    for _ in range(31):
        await until(lambda: worker._pause)
        assert handler.begun == []
        tick_clock.advance(58)
    await until(lambda: worker._pause)
    tick_clock.advance(10)
    await until(lambda: worker.successes == 1 and not worker._running)
    await worker.stopService()
