"""The line of agents that fetch pieces by HTTP, because their peers gave them nothing.

When hundreds of agents wait for the first piece of a blob, all of them may come at once. Served together they would
get a trickle each, for minutes, and the peer port of this origin, which shares its card with them, nothing: no piece
would ever get into the swarm. So a few are served at a time, and quickly; the others wait for a moment and are sent
away then, to another origin, or to come again later. The longer they would wait, the likelier a peer has it meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import Factory, define
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from krakentx.core.errors import Busy


@define
class Line:
    """First come, first served.

    Args:
        at_once: fetches that are served at a time.
        wait_s: how long another may wait for its turn; well below the time after which an agent gives up.
        longest: how many may wait; who comes then is sent away at once.
    """

    clock: IReactorTime
    at_once: int
    wait_s: float
    longest: int
    _active: int = 0
    _waiting: deque[Deferred[None]] = Factory(deque)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Be served inside.

        Raises:
            Busy: it is not our turn in time.
        """
        await self._enter()
        try:
            yield
        finally:
            self._active -= 1
            if self._waiting:
                self._active += 1
                self._waiting.popleft().callback(None)

    async def _enter(self) -> None:
        if self._active < self.at_once:
            self._active += 1
            return
        if len(self._waiting) >= self.longest:
            raise Busy(f"{self._active} agents fetch pieces here and {len(self._waiting)} wait for it")
        turn: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(turn)
        try:
            await turn.addTimeout(self.wait_s, self.clock)
        except TimeoutError as error:
            raise Busy(f"{self._active} agents fetch pieces here; no turn within {self.wait_s:g} s") from error
