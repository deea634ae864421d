"""What the client needs to send bodies: producers, and a timer for silence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IDelayedCall
from twisted.web.iweb import IBodyProducer
from typing_extensions import Self
from zope.interface import implementer

_CHUNK = 1 << 16


class StallTimer:
    """Calls `expire` once when it is not started again in time.

    Args:
        reactor: IReactorTime.
    """

    def __init__(self, reactor: Any, expire: Callable[[], object]) -> None:
        self.expired = False
        self._reactor = reactor
        self._expire = expire
        self._call: IDelayedCall | None = None

    def start(self, seconds: float) -> None:
        """Count from now."""
        if self._call is not None and self._call.active():
            self._call.reset(seconds)
        elif not self.expired:
            self._call = self._reactor.callLater(seconds, self._fire)

    def stop(self) -> None:
        """Count no more."""
        if self._call is not None and self._call.active():
            self._call.cancel()

    def _fire(self) -> None:
        self.expired = True
        self._expire()


@implementer(IBodyProducer)
class BytesBody:
    """A body in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Called by the agent: write all of it."""
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing is left to hold back."""

    def resumeProducing(self) -> None:
        """Nothing is left to write."""

    def stopProducing(self) -> None:
        """Nothing is left to stop."""


@implementer(IBodyProducer)
class FileBody:
    """A part of a file, written as fast as the other side takes it.

    Args:
        source: a path (opened here, closed by the `with`) or an open file, whose position is not used.
        length: bytes from `offset`; None means to the end of the file.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, source: Path | int, offset: int, length: int | None) -> None:
        self._own = not isinstance(source, int)
        self._fd = source if isinstance(source, int) else os.open(source, os.O_RDONLY)
        self._offset = offset
        self.length = max(0, os.fstat(self._fd).st_size - offset) if length is None else length
        self.left = self.length
        self.moved: Callable[[], None] = lambda: None
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] = Deferred()
        self._paused = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer = None
        if self._own:
            os.close(self._fd)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Called by the agent."""
        self._consumer = consumer
        self._produce()
        return self._done

    def pauseProducing(self) -> None:
        """The other side is behind."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The other side has taken what was written."""
        self._paused = False
        self.moved()
        self._produce()

    def stopProducing(self) -> None:
        """Write no more."""
        self._consumer = None

    def _produce(self) -> None:
        while self._consumer is not None and not self._paused and self.left:
            data = os.pread(self._fd, min(_CHUNK, self.left), self._offset)
            if not data:
                self._fail(f"the file ends {self.left} bytes early")
                return
            self._offset += len(data)
            self.left -= len(data)
            self._consumer.write(data)
        if self._consumer is not None and not self.left:
            self._consumer = None
            self.moved()
            self._done.callback(None)

    def _fail(self, problem: str) -> None:
        self._consumer = None
        self._done.errback(OSError(problem))
