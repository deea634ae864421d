"""Targets, the table, and bench.json."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

import krakentx

Rows = Mapping[str, Any]
"""Name of a row -> its numbers by name, or the one number that it has."""


@frozen
class Target:
    """What a number should be: at least `low`, or below `high`. `key` is empty for a row of one number."""

    row: str
    key: str = ""
    low: float | None = None
    high: float | None = None

    def met(self, value: float) -> bool:
        """Whether it is."""
        return (self.low is None or value >= self.low) and (self.high is None or value < self.high)

    def __str__(self) -> str:
        return f">= {self.low:g}" if self.low is not None else f"< {self.high:g}"


TARGETS = (
    Target("swarm_1", "ratio_raw_cpu", low=0.6),
    Target("swarm_1", "rss_mib_max", high=120),
    Target("swarm_4", "rss_mib_max", high=120),
    Target("cold_pull", "first_byte_s", high=1),
    Target("cold_pull", "rss_mib_max", high=120),
    Target("egress_copies_4", high=1.3),
    Target("health_p99_ms", high=100),
    Target("sendfile_percent", low=95),
    Target("fallback_dropped_port", "first_byte_s", high=5),
    Target("fallback_dropped_port", "ratio", high=2),
    Target("engine_turn", "p99_us", high=200),
)


def verdict(row: str, key: str, value: Any) -> tuple[str, str]:
    """Target in words and `ok` or `missed`; twice nothing when there is no target."""
    for target in TARGETS:
        if (target.row, target.key) == (row, key):
            return str(target), "ok" if target.met(value) else "missed"
    return "", ""


def table(rows: Rows) -> str:
    """All numbers, one in a line."""
    lines = [f"{'row':<24}{'number':<18}{'value':>12}   {'target':<10}"]
    lines.append("-" * 74)
    for row, values in rows.items():
        shown_row = row
        for key, value in _numbers(values).items():
            shown = value if isinstance(value, str) else number(value)
            target, word = verdict(row, key, value)
            lines.append(f"{shown_row:<24}{key:<18}{shown:>12}   {target:<10}{word}".rstrip())
            shown_row = ""
    return "\n".join(lines)


def _numbers(values: Any) -> Mapping[str, Any]:
    return values if isinstance(values, Mapping) else {"": values}


def number(value: float) -> str:
    """Three digits that say something; whole numbers whole."""
    if isinstance(value, int) or value >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.1f}"


def write(path: Path, rows: Rows, size: int, rounds: int) -> None:
    """Write bench.json."""
    missed = [
        f"{row}.{key}".rstrip(".")
        for row, values in rows.items()
        for key, value in _numbers(values).items()
        if verdict(row, key, value)[1] == "missed"
    ]
    document = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": krakentx.__version__,
        "machine": machine(),
        "blob_bytes": size,
        "rounds": rounds,
        "results": rows,
        "missed": missed,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What it ran on."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory = next((int(line.split()[1]) >> 20 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cpu": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
