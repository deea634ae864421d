"""A redis-server as a child of the herd."""

from __future__ import annotations

import os
import shutil
import signal
import time
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
_ORPHAN_S = 2.0


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
        pidfile = folder / "redis.pid"
        end_orphan(pidfile)
        self.minRestartDelay = config.retry_s  # type: ignore[assignment]  # any number of seconds does
        self._timer = reactor
        self._port = config.port
        argv = [
            program,
            "--port",
            str(config.port),
            "--bind",
            config.bind,
            "--dir",
            str(folder),
            "--pidfile",
            str(pidfile),
        ]
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


def end_orphan(pidfile: Path) -> None:
    """End the redis-server of a herd that was killed: it lives on, and holds the port.

    A number in a file may be anybody's by now; ours is the process that works in the folder of the file.
    """
    try:
        pid = int(pidfile.read_text())
        if not Path(f"/proc/{pid}/cwd").samefile(pidfile.parent):
            return
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        return  # no file, no such process, or not ours to see
    deadline = time.monotonic() + _ORPHAN_S
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(_POLL_S)  # before the reactor runs
