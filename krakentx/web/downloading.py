"""What the client needs to receive bodies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from krakentx.web.uploading import StallTimer

Receive = Callable[[bytes], Awaitable[None] | None]
"""Gets each run of bytes; when it returns an awaitable, the connection is paused until that is done."""


class Sink(Protocol):
    """Hands the body of an answer on, and minds the time."""

    transport: Any

    def __init__(self, receive: Receive, reactor: Any, stall_s: float | None) -> None:
        self.done: Deferred[None] = Deferred(lambda _done: self._end())
        self._receive = receive
        self._stall_s = stall_s
        self._timer = StallTimer(reactor, self._stalled)
        self._queue: list[bytes] = []
        self._using: Deferred[None] | None = None
        self._lost: Failure | None = None

    def connectionMade(self) -> None:
        self._mind()

    def dataReceived(self, data: bytes) -> None:
        if self._using is not None:
            self._queue.append(data)  # of the same read: a pause holds only the next one back
        elif not self.done.called:
            self._hand_on(data)

    def _hand_on(self, data: bytes) -> None:
        try:
            using = self._receive(data)
        except BaseException:
            self._fail(Failure())
            return
        if using is None:
            self._mind()
            return
        self._timer.stop()  # the silence is ours
        self.transport.pauseProducing()
        self._using = Deferred.fromCoroutine(_awaited(using))
        self._using.addCallbacks(self._used, self._fail)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._timer.stop()
        if self._using is not None:
            self._lost = reason
        elif not self.done.called:
            self._finish(reason)

    def _used(self, _result: None) -> None:
        self._using = None
        if self._queue:
            data = b"".join(self._queue)
            self._queue.clear()
            self._hand_on(data)
        if self._using is not None or self.done.called:
            return
        if self._lost is not None:
            self._finish(self._lost)
        else:
            self._mind()
            self.transport.resumeProducing()

    def _finish(self, reason: Failure) -> None:
        if reason.check(ResponseDone):
            self.done.callback(None)
        else:
            self.done.errback(reason)

    def _mind(self) -> None:
        if self._stall_s is not None:
            self._timer.start(self._stall_s)

    def _stalled(self) -> None:
        self._fail(Failure(TimeoutError()))

    def _fail(self, reason: Failure) -> None:
        self._using = None
        if not self.done.called:
            self.done.errback(reason)
        self._end()

    def _end(self) -> None:
        self._timer.stop()
        if self._using is not None:
            self._using.cancel()
        self.transport.loseConnection()


async def _awaited(value: Awaitable[None]) -> None:
    await value
