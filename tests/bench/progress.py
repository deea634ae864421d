"""A bar on stderr, so that long work is seen to go on; plain lines when stderr is no terminal."""

from __future__ import annotations

import sys
import time

from attrs import define, field

_WIDTH = 28


@define
class Progress:
    """Args: steps: how many calls of `step` are to come; more are no error."""

    steps: int
    _done: int = 0
    _began: float = field(factory=time.monotonic)

    def step(self, text: str) -> None:
        """The next piece of work begins."""
        part = min(1.0, self._done / self.steps)
        self._done += 1
        bar = "#" * int(part * _WIDTH)
        line = f"[{bar:<{_WIDTH}}] {time.monotonic() - self._began:4.0f} s  {text}"
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """All is done: take the bar away."""
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
