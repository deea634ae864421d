"""Plays many seeds of `krakentx.sim.trial`: `python -m krakentx.cli.faults 10000`. The last line says how many passed.

A seed that fails prints what is wrong and the command that plays it again.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

from attrs import Factory, define

from krakentx.sim.trial import AGENTS, KINDS, Played, play

_BAR = 30
_REDRAW_S = 0.5
_CHUNK = 4  # seeds that a process takes at once
_SEED_S = 60  # of real time, for a seed that takes a tenth of a second
_SHOWN = 2000  # characters of what is wrong with a seed


@define
class Tally:
    """What came of the seeds so far.

    Args:
        seeds: how many will be played.
    """

    seeds: int
    passed: int = 0
    failed: int = 0
    virtual_s: float = 0.0
    kinds: Counter[str] = Factory(Counter)
    began: float = Factory(time.monotonic)
    _drawn: float = 0.0

    def add(self, played: Played) -> None:
        """Count a seed; tell of it when it failed."""
        self.virtual_s += played.lasted_s
        self.kinds.update(played.kinds)
        if not played.problems:
            self.passed += 1
            return
        self.failed += 1
        self.clear()
        print(f"seed {played.seed} failed; this plays it again: python -m krakentx.sim.trial {played.seed}")
        print("\n".join(played.problems)[-_SHOWN:], flush=True)

    def draw(self) -> None:
        """Seeds done and seconds left, on standard error when people look at it."""
        now = time.monotonic()
        if not sys.stderr.isatty() or now - self._drawn < _REDRAW_S:
            return
        self._drawn = now
        done = self.passed + self.failed
        filled = done * _BAR // self.seeds
        left = (now - self.began) / done * (self.seeds - done)
        bar = "#" * filled + "." * (_BAR - filled)
        print(f"\r[{bar}] {done} of {self.seeds} seeds  {left:.0f} s left   ", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the bar away."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def tell(self) -> None:
        """The figures; how many passed comes last."""
        self.clear()
        done = self.passed + self.failed
        hours = self.virtual_s / 3600
        print(f"{hours:.1f} swarm-hours ({AGENTS} agents, 2 origins) in {time.monotonic() - self.began:.0f} s")
        print("share of the seeds in which a fault came to pass:")
        for kind in KINDS:
            print(f"  {kind:<15} {self.kinds[kind] / max(1, done):4.0%}")
        print(f"{self.passed} passed, {self.failed} failed")


def _number(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number, at least 1")
    return int(text)


def _prepare() -> None:
    """A process that plays. An interrupt is the first one's to handle, which ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, _too_long)


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"no end after {_SEED_S} s")


def _play(seed: int) -> Played:
    """Play a seed; an Engine that never comes back from an event is a fault like others."""
    signal.alarm(_SEED_S)
    try:
        return play(seed)
    finally:
        signal.alarm(0)


def _play_all(seeds: Iterable[int], jobs: int, tally: Tally) -> None:
    with ProcessPoolExecutor(jobs, initializer=_prepare) as pool:
        for played in pool.map(_play, seeds, chunksize=_CHUNK):
            tally.add(played)
            tally.draw()


def main(argv: list[str] | None = None) -> int:
    """Play. Returns 1 when a seed failed, 130 when interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m krakentx.cli.faults",
        description="Play small swarms under random faults, each fixed by its seed, and check what must hold.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("seeds", type=_number, nargs="?", default=1000, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=_number, default=os.cpu_count() or 1, help="processes")
    args = parser.parse_args(argv)
    tally = Tally(args.seeds)
    try:
        _play_all(range(args.first, args.first + args.seeds), args.jobs, tally)
    except KeyboardInterrupt:
        tally.tell()
        return 130
    tally.tell()
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
