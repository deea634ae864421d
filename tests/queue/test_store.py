"""Tasks in the file."""

from __future__ import annotations

import pytest
import pytest_twisted

from krakentx.core.errors import Busy, ConfigError


@pytest_twisted.ensureDeferred
async def test_tasks_survive_a_restart(tasks, make_tasks) -> None:
    await tasks.add("writeback", "a", {"namespace": "x", "n": 1})
    await tasks.add("writeback", "b", {}, delay_s=60)
    await tasks.add("replicate", "a", {})
    again = make_tasks()  # the first one never closed its file
    assert [(task.kind, task.key) for task in await again.waiting()] == [
        ("replicate", "a"),
        ("writeback", "a"),
        ("writeback", "b"),
    ]
    task = await again.get("writeback", "a")
    assert task is not None and task.payload == {"namespace": "x", "n": 1} and task.failures == 0
    assert (await again.count(), await again.count(["replicate"])) == (3, 1)
    assert [task.key for task in await again.waiting("writeback", limit=1)] == ["a"]
    await again.close()
    await tasks.close()


@pytest_twisted.ensureDeferred
async def test_upcoming_are_ordered_by_time(tasks, tick_clock) -> None:
    await tasks.add("k", "later", {}, delay_s=10)
    await tasks.add("k", "now", {})
    await tasks.add("other", "now", {})
    assert [task.key for task in await tasks.upcoming(["k"], 10)] == ["now", "later"]
    assert len(await tasks.upcoming(["k", "other"], 2)) == 2


@pytest_twisted.ensureDeferred
async def test_failures_are_noted_with_the_task(tasks, tick_clock) -> None:
    await tasks.add("k", "a", {})
    (task,) = await tasks.upcoming(["k"], 1)
    await tasks.failed(task, "x" * 10_000, tick_clock.seconds() + 5)
    (task,) = await tasks.waiting()
    assert (task.failures, task.next_attempt_at) == (1, tick_clock.seconds() + 5) and len(task.last_error) == 500
    await tasks.done(task)
    assert await tasks.count() == 0 and not await tasks.remove("k", "a") and await tasks.get("k", "a") is None


@pytest_twisted.ensureDeferred
async def test_a_task_that_was_replaced_meanwhile_stays(tasks) -> None:
    await tasks.add("tag", "repo:prod", {"digest": "old"})
    (old,) = await tasks.upcoming(["tag"], 1)
    await tasks.failed(old, "no", 0)
    await tasks.add("tag", "repo:prod", {"digest": "new"})
    await tasks.done(old)
    await tasks.failed(old, "late", 0)
    (task,) = await tasks.waiting()
    assert (task.payload, task.failures, task.last_error) == ({"digest": "new"}, 0, "")
    assert await tasks.remove("tag", "repo:prod")


@pytest_twisted.ensureDeferred
async def test_the_number_of_tasks_is_bounded(make_tasks) -> None:
    tasks = make_tasks(limit=2)
    await tasks.add("k", "a", {})
    await tasks.add("k", "b", {})
    await tasks.add("k", "a", {"replaced": True})
    with pytest.raises(Busy):
        await tasks.add("k", "c", {})


def test_a_file_that_is_no_database_is_told_plainly(tasks, make_tasks) -> None:
    path = tasks.path.with_name("other.db")
    path.write_bytes(b"this is no database, whatever its name" * 100)
    with pytest.raises(ConfigError, match="queue cannot be opened"):
        type(tasks)(path, reactor=None, pool=None, limit=1)
    with pytest.raises(ConfigError):
        type(tasks)(path / "below-a-file" / "queue.db", reactor=None, pool=None, limit=1)
