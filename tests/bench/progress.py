"""A bar on stderr, so that long work is seen to go on; plain lines when stderr is no terminal."""

from __future__ import annotations

import sys
import time

from attrs import define, field

_WIDTH = 28
_REDRAW_S = 0.5


@define
class Progress:
    """Args: steps: how many calls of `step` are to come; more are no error."""

    steps: int
    _done: int = 0
    _text: str = ""
    _began: float = field(factory=time.monotonic)
    _drawn: float = 0.0

    def step(self, text: str) -> None:
        """The next piece of work begins."""
        self._text = text
        self._done += 1
        self._draw(0.0)

    def part(self, share: float) -> None:
        """So much of it is done; drawn twice a second, where somebody looks."""
        if sys.stderr.isatty() and time.monotonic() - self._drawn > _REDRAW_S:
            self._draw(min(1.0, share))

    def _draw(self, share: float) -> None:
        self._drawn = time.monotonic()
        bar = "#" * int(min(1.0, (self._done - 1 + share) / self.steps) * _WIDTH)
        line = f"[{bar:<{_WIDTH}}] {self._drawn - self._began:4.0f} s  {self._text}"
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """All is done: take the bar away."""
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
