"""Tasks in an SQLite file. What `add` returned from survives a crash and a loss of power."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import DeferredLock
from twisted.python.threadpool import ThreadPool

from krakentx.core.errors import Busy, ConfigError, OutOfSpace
from krakentx.queue.task import Task
from krakentx.storage.threads import Threads, shielded

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS task (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    payload TEXT NOT NULL,
    created_at REAL NOT NULL,
    next_attempt_at REAL NOT NULL,
    failures INTEGER NOT NULL,
    last_error TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS task_by_time ON task (kind, next_attempt_at);
"""
_COLUMNS = "kind, key, payload, created_at, next_attempt_at, failures, last_error, version"
_BUSY_S = 5.0
_MAX_ERROR = 500  # characters of an error that are kept


class TaskStore:
    """The tasks of one component.

    Args:
        path: of the file; made when it is not there.
        limit: of tasks at one time.

    Raises:
        ConfigError: the file cannot be opened, or is no database.
    """

    def __init__(self, path: Path, *, reactor: Any, pool: ThreadPool, limit: int) -> None:
        self.path = path
        self._limit = limit
        self._threads = Threads(reactor, pool)
        self._turn = DeferredLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # One job at a time uses the connection, though not always in the same thread.
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"the queue cannot be opened ({error}); move the file away to begin anew", path
            ) from error

    async def add(self, kind: str, key: str, payload: Mapping[str, Any], *, delay_s: float = 0.0) -> None:
        """Keep a task. One of that kind and key that waits already is replaced and its failures are forgotten.

        Raises:
            Busy: too many tasks wait. OutOfSpace: the disk is full.
        """
        now = self._threads.now()
        await self._run(self._add, kind, key, json.dumps(dict(payload)), now, now + delay_s)

    async def upcoming(self, kinds: list[str], count: int) -> list[Task]:
        """The tasks of these kinds that are due first, the due and the not yet due."""
        return await self._run(self._upcoming, kinds, count)

    async def done(self, task: Task) -> None:
        """Drop a task, unless it was replaced since it was read."""
        await self._run(self._done, task)

    async def failed(self, task: Task, error: str, next_attempt_at: float) -> None:
        """Note a failure, unless the task was replaced since it was read."""
        await self._run(self._failed, task, error[:_MAX_ERROR], next_attempt_at)

    async def get(self, kind: str, key: str) -> Task | None:
        """One task, or None."""
        return await self._run(self._get, kind, key)

    async def remove(self, kind: str, key: str) -> bool:
        """Forget a task. False when there was none."""
        return await self._run(self._remove, kind, key)

    async def waiting(self, kind: str | None = None, limit: int = 1000) -> list[Task]:
        """What waits, the oldest first."""
        return await self._run(self._waiting, kind, limit)

    async def count(self, kinds: list[str] | None = None) -> int:
        """How many wait, of some kinds or of all."""
        return await self._run(self._count, kinds)

    async def close(self) -> None:
        """Close the file, after what is under way."""
        await self._run(self._db.close)

    async def _run(self, call: Callable[..., T], *args: Any) -> T:
        return await shielded(self._in_turn(call, args))

    async def _in_turn(self, call: Callable[..., T], args: tuple[Any, ...]) -> T:
        await self._turn.acquire()
        try:
            return await self._threads.run(call, *args)
        except sqlite3.OperationalError as error:
            if "disk is full" in str(error):
                raise OutOfSpace(self.path) from error
            raise
        finally:
            self._turn.release()

    # -- in a thread

    def _add(self, kind: str, key: str, payload: str, now: float, at: float) -> None:
        if self._get(kind, key) is None and self._count(None) >= self._limit:
            raise Busy(f"{self._limit} tasks wait already", retry_after_s=30.0)
        self._db.execute(
            f"INSERT INTO task ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, 0, '', 1) ON CONFLICT (kind, key) DO UPDATE SET"
            " payload = excluded.payload, created_at = excluded.created_at,"
            " next_attempt_at = excluded.next_attempt_at, failures = 0, last_error = '', version = version + 1",
            (kind, key, payload, now, at),
        )

    def _upcoming(self, kinds: list[str], count: int) -> list[Task]:
        marks = ", ".join("?" * len(kinds))
        query = f"SELECT {_COLUMNS} FROM task WHERE kind IN ({marks}) ORDER BY next_attempt_at LIMIT ?"
        return [_task(row) for row in self._db.execute(query, (*kinds, count))]

    def _done(self, task: Task) -> None:
        self._db.execute(
            "DELETE FROM task WHERE kind = ? AND key = ? AND version = ?", (task.kind, task.key, task.version)
        )

    def _failed(self, task: Task, error: str, next_attempt_at: float) -> None:
        self._db.execute(
            "UPDATE task SET failures = failures + 1, last_error = ?, next_attempt_at = ?"
            " WHERE kind = ? AND key = ? AND version = ?",
            (error, next_attempt_at, task.kind, task.key, task.version),
        )

    def _get(self, kind: str, key: str) -> Task | None:
        query = f"SELECT {_COLUMNS} FROM task WHERE kind = ? AND key = ?"
        row = self._db.execute(query, (kind, key)).fetchone()
        return _task(row) if row is not None else None

    def _remove(self, kind: str, key: str) -> bool:
        return self._db.execute("DELETE FROM task WHERE kind = ? AND key = ?", (kind, key)).rowcount > 0

    def _waiting(self, kind: str | None, limit: int) -> list[Task]:
        query = f"SELECT {_COLUMNS} FROM task WHERE kind = coalesce(?, kind) ORDER BY created_at, kind, key LIMIT ?"
        return [_task(row) for row in self._db.execute(query, (kind, limit))]

    def _count(self, kinds: list[str] | None) -> int:
        which = "" if kinds is None else f" WHERE kind IN ({', '.join('?' * len(kinds))})"
        return int(self._db.execute(f"SELECT count(*) FROM task{which}", kinds or ()).fetchone()[0])


def _task(row: tuple[Any, ...]) -> Task:
    kind, key, payload, *rest = row
    return Task(kind, key, json.loads(payload), *rest)
