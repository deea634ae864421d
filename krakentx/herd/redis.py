"""A redis-server as a child of the herd."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from krakentx.core.errors import ConfigError
from krakentx.herd.config import RedisConfig

_MAX_RETRY_S = 60.0
_GOOD_AFTER_S = 10.0
_STOP_S = 3.0


class RedisServer(Service):
    """Runs it, and runs it again when it dies.

    Nothing of it is kept on disk: peers announce themselves anew within seconds.

    Args:
        folder: its working folder.

    Raises:
        ConfigError: there is no such program.
    """

    log = Logger()

    def __init__(self, config: RedisConfig, folder: Path, *, reactor: Any) -> None:
        program = shutil.which(config.binary)
        if program is None:
            raise ConfigError(f"redis.spawn needs the program {config.binary}; install it, or leave redis.spawn out")
        folder.mkdir(parents=True, exist_ok=True)
        self._argv = [program, "--port", str(config.port), "--bind", config.bind, "--dir", str(folder)]
        self._argv += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        self._config = config
        self._reactor = reactor
        self._pause_s = config.retry_s
        self._child: _Child | None = None
        self._again: IDelayedCall | None = None

    def startService(self) -> None:
        """Start it; whoever needs it waits by itself until it answers."""
        super().startService()  # type: ignore[no-untyped-call]
        self._run()

    def stopService(self) -> Deferred[None]:
        """End it."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._again is not None and self._again.active():
            self._again.cancel()
        child, self._child = self._child, None
        for signal in ("TERM", "KILL"):
            if child is None or child.ended:
                return
            child.signal(signal)
            try:
                await child.wait().addTimeout(_STOP_S, self._reactor)
            except TimeoutError:
                continue

    def _run(self) -> None:
        began = self._reactor.seconds()
        self._child = _Child(lambda how: self._died(how, began))
        self._reactor.spawnProcess(self._child, self._argv[0], self._argv, env=None)
        self.log.info("redis-server listens on port {port}", port=self._config.port)

    def _died(self, how: str, began: float) -> None:
        if not self.running:
            return
        if self._reactor.seconds() - began > _GOOD_AFTER_S:
            self._pause_s = self._config.retry_s
        self.log.warn("redis-server ended with {how}; again in {pause_s:.0f} s", how=how, pause_s=self._pause_s)
        self._again = self._reactor.callLater(self._pause_s, self._run)
        self._pause_s = min(_MAX_RETRY_S, self._pause_s * 2)


class _Child(ProcessProtocol):
    """One run; its output is of no interest."""

    def __init__(self, died: Callable[[str], None]) -> None:
        self.ended = False
        self._died = died
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> Deferred[None]:
        """Fires when it has ended."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        return waiter

    def signal(self, name: str) -> None:
        """Send it a signal, unless it has ended."""
        try:
            if self.transport is not None:
                self.transport.signalProcess(name)
        except ProcessExitedAlready:
            pass

    def processEnded(self, reason: Failure) -> None:
        """Called by Twisted."""
        status: Any = reason.value
        self.ended = True
        for waiter in self._waiting:
            if not waiter.called:
                waiter.callback(None)
        self._died(f"signal {status.signal}" if status.signal else f"exit code {status.exitCode}")
