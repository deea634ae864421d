"""What processes cost, read from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import define

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_MIB = 1 << 20


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds that these processes have used since they began, user and system, all threads."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


def peak_rss_mib(pid: int) -> float:
    """The most memory that the process ever held at once (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / _MIB
    raise ValueError(f"no VmHWM of process {pid}")


@define
class Cost:
    """Filled in at the end of a `measured` block."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@contextmanager
def measured(pids: Iterable[int]) -> Iterator[Cost]:
    """Wall time of the block, and what these processes used meanwhile."""
    pids, cost = tuple(pids), Cost()
    used, began = cpu_s(pids), time.monotonic()
    yield cost
    cost.wall_s = time.monotonic() - began
    cost.cpu_s = cpu_s(pids) - used


def wait_idle(pids: Iterable[int], *, for_s: float = 0.5, share: float = 0.04, timeout_s: float = 60.0) -> None:
    """Return when the processes have used less than `share` of a core for a while, or after `timeout_s`."""
    pids, deadline = tuple(pids), time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with measured(pids) as cost:
            time.sleep(for_s)
        if cost.cpu_s < share * for_s + 1.5 / _TICKS_PER_S:
            return
