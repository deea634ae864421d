"""Turns: events go through the Engine one after another, and their effects are carried out in order.

An effect may cause another event at once (a closed connection is a lost one). It waits in the queue until the effects
of the first are done, so nothing is ever handled in the midst of something else. A turn of the reactor handles what is
there for at most `SLICE_S`; the rest waits for the next turn, and connections stop reading when much waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from krakentx.swarm.effects import Effect
from krakentx.swarm.events import Event, Tick

SLICE_S = 0.005
CONGESTED = 256


class IEngine(Protocol):
    """What decides."""

    def handle(self, event: Event, now: float) -> list[Effect]:
        """The effects of an event, in order."""


class Turns:
    """Runs the Engine.

    Args:
        execute: carries out one effect.
        handled: all effects of an event were carried out.
        failed: the Engine or an effect raised: our bug, already logged; whatever the event was about must not linger.
        sent: bytes of pieces that have left so far.
    """

    log = Logger()

    def __init__(
        self,
        engine: IEngine,
        clock: IReactorTime,
        execute: Callable[[Effect], None],
        handled: Callable[[Event], None],
        failed: Callable[[Event], None],
        sent: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._execute = execute
        self._handled = handled
        self._failed = failed
        self._sent = sent
        self._queue: deque[Event] = deque()
        self._running = False
        self._continue: IDelayedCall | None = None
        self._wake: IDelayedCall | None = None
        self._wake_at = 0.0
        self._stopped = False
        self._now = 0.0

    @property
    def congested(self) -> bool:
        """Events come faster than they are handled."""
        return len(self._queue) > CONGESTED

    def feed(self, event: Event) -> None:
        """Handle an event now, or after those that came before it."""
        if self._stopped:
            return
        self._queue.append(event)
        if not self._running and self._continue is None:
            self._run()

    def wake_at(self, when: float) -> None:
        """Feed a `Tick` at that time; replaces an earlier wish."""
        if self._stopped:
            return
        self._wake_at = when
        # A timer that fires too early looks again: moving it for each event would cost more.
        if self._wake is None or self._wake.getTime() > when:
            self._cancel_wake()
            self._wake = self._clock.callLater(max(0.0, when - self._clock.seconds()), self._tick)

    def stop(self) -> None:
        """Handle nothing more."""
        self._stopped = True
        self._queue.clear()
        self._cancel_wake()
        if self._continue is not None:
            self._continue.cancel()
            self._continue = None

    def _cancel_wake(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None

    def _tick(self) -> None:
        self._wake = None
        left = self._wake_at - self._clock.seconds()
        if left > 0:
            self._wake = self._clock.callLater(left, self._tick)
        else:
            self.feed(Tick(self._sent()))

    def _next_turn(self) -> None:
        self._continue = None
        self._run()

    def _run(self) -> None:
        self._running = True
        ends_at = self._clock.seconds() + SLICE_S
        try:
            while self._queue:
                self._handle(self._queue.popleft())
                if self._queue and self._clock.seconds() >= ends_at:
                    self._continue = self._clock.callLater(0, self._next_turn)
                    break
        finally:
            self._running = False

    def _handle(self, event: Event) -> None:
        try:
            # The reactor's clock is the wall clock, which may be set back; the Engine's never goes back.
            self._now = max(self._now, self._clock.seconds())
            for effect in self._engine.handle(event, self._now):
                self._execute(effect)
            self._handled(event)
        except Exception:
            self.log.failure("handling {event} failed", event=event)
            self._failed(event)
