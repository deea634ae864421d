"""A task that must not be forgotten, and how long to wait after it failed. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from attrs import frozen


@frozen
class Task:
    """Something to do until it succeeds.

    Args:
        kind: says which handler does it.
        key: one task of a kind and key exists; adding another replaces what it says.
        payload: what the handler needs, as JSON can say it.
        next_attempt_at: not before; seconds since the epoch.
        version: grows when the task is replaced.
    """

    kind: str
    key: str
    payload: Mapping[str, Any]
    created_at: float
    next_attempt_at: float
    failures: int = 0
    last_error: str = ""
    version: int = 1


@frozen
class Backoff:
    """Pauses that double, with a part left to chance so that tasks which failed together do not return together."""

    first_s: float
    max_s: float
    jitter: float = 0.2

    def delay_s(self, failures: int, rng: random.Random) -> float:
        """The pause after so many failures in a row."""
        doublings = min(max(0, failures - 1), 32)
        return min(self.max_s, self.first_s * float(1 << doublings)) * rng.uniform(1 - self.jitter, 1 + self.jitter)
