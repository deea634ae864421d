"""Starts daemons quickly: a process that has imported everything, and forks one for each command line.

What a child runs is the real `twistd`. Only the reactor, which one of the imports made, is not its own: twistd makes
another one there.

Run as a program it reads one JSON list of arguments per line on stdin, and writes the pid of the child.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import twisted.internet
from twisted.scripts.twistd import run

ROOT = Path(__file__).parents[2]


class Launcher:
    """The forking process, from outside."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self._line() == "ready"
        self.pids: set[int] = set()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def start(self, *argv: str) -> int:
        """`twistd -n ARGV`; returns its pid. What it says goes to `<pid>.log` of the folder."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(argv) + "\n")
        self._process.stdin.flush()
        pid = int(self._line())
        self.pids.add(pid)
        return pid

    def kill(self, pid: int, how: int = signal.SIGKILL) -> None:
        """Send it a signal, kill -9 by default, and wait until it is gone."""
        os.kill(pid, how)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(pid) + "\n")
        self._process.stdin.flush()
        assert self._line() == str(pid)
        self.pids.discard(pid)

    def log(self, pid: int) -> str:
        """What a child has said."""
        return (self._folder / f"{pid}.log").read_text()

    def close(self) -> None:
        """End all of them."""
        for pid in list(self.pids):
            self.kill(pid)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def main(folder: Path) -> None:
    import krakentx.agent.tap
    import krakentx.herd.tap  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        command: Any = json.loads(line)
        if isinstance(command, int):
            os.waitpid(command, 0)
            print(command, flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _become(folder, command)
        print(pid, flush=True)


def _become(folder: Path, argv: list[str]) -> None:
    log = os.open(folder / f"{os.getpid()}.log", os.O_WRONLY | os.O_CREAT, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((null, 0), (log, 1), (log, 2)):
        os.dup2(old, new)
    sys.argv = ["twistd", "-n", *argv]
    sys.modules.pop("twisted.internet.reactor", None)
    vars(twisted.internet).pop("reactor", None)
    try:
        run()
    finally:
        os._exit(1)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(Path(sys.argv[1]))
