"""`make scale`: a table of simulated swarms, held against the figures of the last time; docs/scale.md tells more.

The same code gives the same figures to the last digit, on any machine. So a figure that has moved was moved by a
change of the code, and one that got worse by more than the margin ends this with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from attrs import Factory, define, field

from krakentx.cli import sim
from krakentx.sim import report as figures_of
from krakentx.sim.scenario import Scenario, run
from tests.bench import report
from tests.bench.scale_rows import FULL, SMALL, Row
from tests.cluster import ROOT

BOUNDS = Path(__file__).with_name("scale_bounds.json")
MARGIN = 1.1
"""A figure is worse when it is more than so many times the recorded one."""
BOUND_KEYS = (
    *("p50_x", "p99_x", "p999_x", "origin_copies", "max_copies_into_rack", "messages_per_host", "announces_per_host"),
)
_SOURCES = ("krakentx/core", "krakentx/wire", "krakentx/swarm", "krakentx/sim")
_POLL_S = 0.5
_BAR = 20
Numbers = Mapping[str, Any]


def scenario_of(row: Row) -> Scenario:
    """What `krakentx sim` would run for it."""
    parser = argparse.ArgumentParser()
    sim.add(parser.add_subparsers())
    return sim.scenario_of(parser.parse_args(["sim", *row.options.split()]))


def play(row: Row, watch: Callable[[float], None] = lambda share: None) -> dict[str, Any]:
    """Run a row in this process, and say what it cost here."""
    began, used = time.monotonic(), time.process_time()
    outcome = run(scenario_of(row), watch=lambda now, share: watch(share))
    figures = figures_of.figures(outcome)
    cpu_s = time.process_time() - used
    announces = sum(figures["announces_per_s"].values()) * figures["virtual_s"] / figures["hosts"]
    return {
        "options": row.options,
        "code": code(),
        "wall_s": round(time.monotonic() - began, 1),
        "cpu_s": round(cpu_s, 1),
        "events_per_cpu_s": round(figures["events"] / cpu_s),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "load_at_end": load(),
        "figures": {**figures, "announces_per_host": round(announces, 2)},
    }


def load() -> float:
    """How many processes want a core of this machine, over the last minute."""
    return float(Path("/proc/loadavg").read_text().split()[0])


def code() -> str:
    """Commit of the code that runs, with a plus when it was changed since; empty outside of a clone."""

    def git(*argv: str) -> str:
        done = subprocess.run(["git", *argv], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", *_SOURCES) else "")


def _child(row: Row, share: Any, results: Connection) -> None:
    def watch(now: float) -> None:
        share.value = now

    try:
        results.send(play(row, watch))
    except Exception:  # the border of this process: the other one tells of it
        results.send({"options": row.options, "failed": traceback.format_exc(limit=-3)})


@define(eq=False)
class _Run:
    """A row that is being played in a process of its own."""

    row: Row
    process: Any = field(init=False)
    began: float = field(factory=time.monotonic)
    _share: Any = field(init=False)
    _results: Connection = field(init=False)

    def __attrs_post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # so that peak memory is that of the row alone
        self._share = context.Value("d", 0.0, lock=False)
        self._results, far = context.Pipe(duplex=False)
        self.process = context.Process(target=_child, args=(self.row, self._share, far), daemon=True)
        self.process.start()
        far.close()

    def result(self) -> dict[str, Any] | None:
        """What came of it; nothing while it runs."""
        if not self._results.poll():
            return None
        try:
            done: dict[str, Any] = self._results.recv()
        except EOFError:
            self.process.join()
            done = {"options": self.row.options, "failed": f"its process ended with code {self.process.exitcode}"}
        self.process.join()
        return done

    def __str__(self) -> str:
        share, took_s = self._share.value, time.monotonic() - self.began
        left = f", {took_s * (1 - share) / share:.0f} s left" if share > 0.01 else ""
        return f"{self.row.name} {share:.0%}{left}"


@define
class Runs:
    """Plays rows, so many at a time, and tells of each as it ends."""

    jobs: int
    done: Callable[[Row, dict[str, Any]], None]
    _active: list[_Run] = Factory(list)
    _count: int = 0

    def play(self, rows: Sequence[Row]) -> None:
        """Returns when all are done."""
        waiting = list(rows)
        try:
            while waiting or self._active:
                while waiting and len(self._active) < self.jobs:
                    self._active.append(_Run(waiting.pop(0)))
                self._draw(len(rows))
                time.sleep(_POLL_S)
                for each in list(self._active):
                    if (result := each.result()) is not None:
                        self._active.remove(each)
                        self._count += 1
                        self._tell(each, result, len(rows))
                        self.done(each.row, result)
        finally:
            for each in self._active:
                each.process.kill()
                each.process.join()

    def _tell(self, each: _Run, result: Numbers, total: int) -> None:
        clear = "\r\x1b[K" if sys.stderr.isatty() else ""
        word = "failed" if "failed" in result else f"{result['wall_s']} s"
        print(f"{clear}[{self._count} of {total}] {each.row.name}: {word}", file=sys.stderr, flush=True)

    def _draw(self, total: int) -> None:
        if sys.stderr.isatty():
            filled = int(_BAR * self._count / total)
            now = "; ".join(map(str, self._active))
            print(f"\r\x1b[K[{'#' * filled}{'.' * (_BAR - filled)}] {now}"[:150], end="", file=sys.stderr, flush=True)


def worse(result: Numbers, recorded: Numbers | None) -> list[str]:
    """What is wrong with a row: it failed, a host did not finish, or figures are worse than recorded."""
    if "failed" in result:
        return [str(result["failed"])]
    figures = result["figures"]
    found = [f"{figures['unfinished']} hosts did not finish"] if figures["unfinished"] else []
    for key, bound in (recorded or {}).items():
        if figures[key] > bound * MARGIN:
            found.append(f"{key} is {figures[key]}, was {bound}")
    return found


def missed(row: Row, figures: Numbers) -> str:
    """Which targets it does not reach, in words."""
    return ", ".join(f"{key} <= {most:g}" for key, most in row.target.items() if figures[key] > most)


def table(rows: Sequence[Row], results: Mapping[str, Numbers]) -> str:
    """All rows in Markdown."""
    lines = [
        "| run | p50 / p99 / p99.9 of ideal | p50 / max, s | copies | messages per host | events/s of CPU | wall "
        "| memory | seed | target missed | `krakentx sim ...` |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        result = results.get(row.name)
        if result is None:
            lines.append(f"| {row.name} | not run yet |" + " |" * 8 + f" `{row.options}` |")
        elif "failed" in result:
            lines.append(f"| {row.name} | failed |" + " |" * 8 + f" `{row.options}` |")
        else:
            lines.append(f"| {row.name} | " + " | ".join(_cells(row, result)) + " |")
    return "\n".join(lines)


def _cells(row: Row, result: Numbers) -> list[str]:
    figures = result["figures"]
    into_rack = f", {figures['max_copies_into_rack']:.1f} into a rack" if figures["racks"] else ""
    return [
        " / ".join(f"{figures[key]:.2f}" for key in ("p50_x", "p99_x", "p999_x")),
        f"{figures['p50_s']:.3f} / {figures['max_s']:.3f}",
        f"{figures['origin_copies']:.1f}{into_rack}",
        f"{figures['messages_per_host']:.0f}",
        f"{result['events_per_cpu_s']}",
        f"{result['wall_s']:.0f} s",
        f"{result['peak_mib']} MiB",
        f"{figures['seed']}",
        missed(row, figures) or "-",
        f"`{row.options}`",
    ]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _write(path: Path, document: Numbers) -> None:
    """At once: a run that is ended in the middle leaves the rows that it had."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(document, indent=1) + "\n")
    new.replace(path)


def main(argv: Sequence[str]) -> int:
    """Run, print, write; returns 1 when a row is worse than recorded."""
    parser = argparse.ArgumentParser(prog="make scale ARGS=...", description=__doc__)
    option = parser.add_argument
    option("--full", action="store_true", help="the rows at their full size; those that are in the file are kept")
    option("--only", action="append", metavar="TEXT", help="rows whose name has this in it; may be repeated")
    option("--again", action="store_true", help="run rows that are in the file once more")
    option("--jobs", type=int, default=2, help="how many rows at a time (2)")
    option("--json", type=Path, help="where the figures go (scale.json, with --full scale-full.json)")
    option("--record", action="store_true", help="keep the figures of this run as those to hold to from now on")
    options = parser.parse_args(argv)
    rows = FULL if options.full else SMALL
    if options.only:
        rows = tuple(row for row in rows if any(text in row.name for text in options.only))
    path = options.json or ROOT / ("scale-full.json" if options.full else "scale.json")
    document = {"margin": MARGIN, "rows": {}, **_read(path), "machine": report.machine()}
    results: dict[str, Numbers] = document["rows"]

    def kept(row: Row) -> bool:
        old = results.get(row.name, {})
        return options.full and not options.again and old.get("options") == row.options and "figures" in old

    def done(row: Row, result: dict[str, Any]) -> None:
        results[row.name] = result
        _write(path, document)

    Runs(max(1, options.jobs), done).play([row for row in rows if not kept(row)])
    print(table(rows, results))
    codes = sorted({str(results[row.name].get("code", "")) for row in rows})
    print(f"\nwritten to {path}; code: {', '.join(codes)}")
    return judge(rows, results, "full" if options.full else "small", record=options.record)


def judge(rows: Sequence[Row], results: Mapping[str, Numbers], size: str, *, record: bool) -> int:
    """Hold results against what was recorded of that size, or record them."""
    bounds = _read(BOUNDS)
    recorded = bounds.setdefault(size, {})
    code = 0
    for row in rows:
        result = results[row.name]
        if not record and row.name not in recorded:
            print(f"new: {row.name}: nothing to hold it to; `make scale ARGS=--record` keeps these figures")
        for problem in worse(result, None if record else recorded.get(row.name)):
            print(f"WORSE: {row.name}: {problem}")
            code = 1
        if record and "figures" in result:
            recorded[row.name] = {key: result["figures"][key] for key in BOUND_KEYS}
    if record:
        _write(BOUNDS, bounds)
        print(f"recorded in {BOUNDS.relative_to(ROOT)}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
