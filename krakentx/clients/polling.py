"""Asking again while the other side is at work (202 on the wire)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from krakentx.core.errors import Pending, Unavailable

T = TypeVar("T")

_FIRST_S, _FACTOR, _MOST_S = 0.1, 1.5, 5.0


def _pauses() -> Iterator[float]:
    pause = _FIRST_S
    while True:
        yield pause
        pause = min(pause * _FACTOR, _MOST_S)


async def poll(ask: Callable[[], Awaitable[T]], *, clock: IReactorTime, host: str, limit_s: float) -> T:
    """Ask until the answer is more than `Pending`, pausing 0.1 s at first and 5 s in the end.

    Raises:
        Unavailable: still pending after `limit_s`. Whatever else `ask` raises, at once.
    """
    began = clock.seconds()
    for pause in _pauses():
        try:
            return await ask()
        except Pending:
            if clock.seconds() + pause - began > limit_s:
                break
            await deferLater(clock, pause)
    raise Unavailable(host, f"still fetching it after {limit_s:.0f} s")
