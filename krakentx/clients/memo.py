"""Answers that are kept for a while, and asked for once however many wait for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from krakentx.core.errors import KrakenError
from krakentx.storage.threads import Shared

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@frozen
class _Kept(Generic[V]):
    value: V | KrakenError
    expires: float
    size: int


class Memo(Generic[K, V]):
    """A bounded cache in front of something slow.

    Args:
        ttl_s: how long a value is kept.
        error_ttl_s: how long an error is kept; 0 = not at all.
        size: of a value, in the unit of `limit`.
        limit: sum of sizes above which the values unused for longest go.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        ttl_s: float,
        error_ttl_s: float = 0.0,
        limit: int = 10_000,
        size: Callable[[V], int] = lambda _value: 1,
    ) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._error_ttl_s = error_ttl_s
        self._limit = limit
        self._size = size
        self._kept: OrderedDict[K, _Kept[V]] = OrderedDict()
        self._total = 0
        self._running: dict[K, Shared[V]] = {}

    async def get(self, key: K, load: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """The value of `key`: kept, or being loaded for somebody else, or loaded now.

        Raises:
            whatever `load` raises.
        """
        kept = self._kept.get(key)
        if kept is not None:
            if self._clock.seconds() < kept.expires:
                self._kept.move_to_end(key)
                if isinstance(kept.value, KrakenError):
                    raise kept.value
                return kept.value
            self._drop(key)
        running = self._running.get(key)
        if running is None:
            running = Shared(self._load(key, load))
            if not running.done:
                self._running[key] = running
        return await running.wait()

    async def _load(self, key: K, load: Callable[[], Coroutine[Any, Any, V]]) -> V:
        try:
            value = await load()
        except KrakenError as error:
            if self._error_ttl_s:
                self._keep(key, error, self._error_ttl_s, 1)
            raise
        finally:
            self._running.pop(key, None)
        self._keep(key, value, self._ttl_s, self._size(value))
        return value

    def _keep(self, key: K, value: V | KrakenError, ttl_s: float, size: int) -> None:
        if key in self._kept:
            self._drop(key)
        self._kept[key] = _Kept(value, self._clock.seconds() + ttl_s, size)
        self._total += size
        while self._total > self._limit and self._kept:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: K) -> None:
        self._total -= self._kept.pop(key).size
