"""A redis-server as a child of the herd."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.runner.procmon import ProcessMonitor

from krakentx.core.errors import ConfigError
from krakentx.herd.config import RedisConfig

_NAME = "redis-server"
_POLL_S = 0.05


class RedisServer(ProcessMonitor):
    """Runs it, and runs it again when it dies.

    Nothing of it is kept on disk: peers announce themselves anew within seconds.

    Args:
        folder: its working folder.

    Raises:
        ConfigError: there is no such program.
    """

    log = Logger()
    killTime = 3
    maxRestartDelay = 60

    def __init__(self, config: RedisConfig, folder: Path, *, reactor: Any) -> None:
        super().__init__(reactor)
        program = shutil.which(config.binary)
        if program is None:
            raise ConfigError(f"redis.spawn needs the program {config.binary}; install it, or leave redis.spawn out")
        folder.mkdir(parents=True, exist_ok=True)
        self.minRestartDelay = config.retry_s  # type: ignore[assignment]  # any number of seconds does
        self._timer = reactor
        self._port = config.port
        argv = [program, "--port", str(config.port), "--bind", config.bind, "--dir", str(folder)]
        argv += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"]
        self.addProcess(_NAME, argv, env=dict(os.environ), cwd=str(folder))

    def startProcess(self, name: str) -> None:
        """Called by Twisted, for the first time and after every death."""
        self.log.info("starting {name} on port {port}", name=name, port=self._port)
        super().startProcess(name)

    def stopService(self) -> Deferred[None]:  # type: ignore[override]  # a service may well take its time
        """End it, and wait until it has ended."""
        super().stopService()
        return Deferred.fromCoroutine(self._ended())

    async def _ended(self) -> None:
        while self.protocols:  # not for ever: after `killTime` it is killed
            await deferLater(self._timer, _POLL_S)
