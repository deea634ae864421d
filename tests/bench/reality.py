"""`make reality`: real agents beside the simulator with the same figures; docs/scale.md tells more.

A herd and eight agents stand in network namespaces, the link of each capped in both directions. A blob is pushed, some
agents are asked for its first byte at once, and each has it when the file stands in its cache: all bytes there, their
sha256 right. That is what the simulator measures too: it has no client to which the bytes are streamed. With --stream
each host pulls the whole blob through its agent instead, as docker does, until the last byte is there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from attrs import asdict, define, fields, frozen

import krakentx
from krakentx.core.digest import Hasher
from krakentx.sim.report import figures
from krakentx.sim.scenario import run
from krakentx.storage.hashing import hash_range
from tests.bench import client, report, scale
from tests.bench.blobs import Blob, changed, make
from tests.bench.progress import Progress
from tests.bench.scale_rows import Row
from tests.cluster import ROOT
from tests.testbed import daemons
from tests.testbed.daemons import AGENT_MANAGEMENT, ORIGIN, PROXY, REGISTRY, HostDaemon
from tests.testbed.hosts import Host, Hosts, NoTestbed
from tests.testbed.pulls import NAMESPACE, blob_path, pull

_FEW_MB = 50
_MOST = 8
_MB = 1_000_000
_PAYLOAD = 1448 / 1514
"""Of the bytes of a full packet, those of TCP's payload. The cap counts whole packets: 14 of Ethernet, 20 of IP, 32 of
TCP with its timestamp."""
_ALLOWED = 0.15
_SEEDS = (1, 2, 3, 4, 5)
_TIMES = ("p50_s", "max_s")
_HASHED = 64 << 20
_MEMORY = Path("/dev/shm")
_ROOM = 16 << 30
_POLL_S = 0.005
_PATIENCE = 6.0  # times the ideal, and so many seconds more
_PATIENCE_S = 30.0


class NeverCame(Exception):
    """A blob did not reach a host in time."""


@frozen
class Cell:
    """One comparison: so many agents at once, a blob of so many MB (10^6), links of so many Mbit/s (10^6)."""

    agents: int
    mb: int
    mbit: int

    def __str__(self) -> str:
        return f"{self.agents} x {self.mb} MB at {self.mbit} Mbit/s"

    @property
    def rate(self) -> int:
        """Bytes of payload per second that a link carries."""
        return int(self.mbit * 1e6 / 8 * _PAYLOAD)

    @property
    def ideal_s(self) -> float:
        """How long a full link takes for the blob."""
        return self.mb * _MB / self.rate

    @property
    def rounds(self) -> int:
        """How often it is played, unless asked: a dozen pieces among several agents are a matter of chance."""
        return 3 if self.agents > 1 and self.mb <= _FEW_MB else 1

    def options(self, latency: str, hash_rate: float) -> str:
        """Of `krakentx sim` for the same swarm."""
        return (
            f"--hosts {self.agents} --origins 1 --blobs 1 --blob-size {self.mb * _MB} --rate {self.rate} "
            f"--arrival 0 --latency {latency} --hash-rate {hash_rate:.0f}"
        )


CELLS = tuple(Cell(*each) for each in product((1, _MOST), (50, 500), (50, 200)))


@frozen
class Pulled:
    """What came of one swarm, a real or a modelled one.

    Args:
        p50_s: when half of the hosts had the blob, in seconds from the request of each.
        max_s: when the last one had it.
        copies: bytes that the origin sent, per byte of the blob.
        twice: bytes that came and were not needed any more, per byte that all hosts wanted.
    """

    p50_s: float
    max_s: float
    copies: float
    twice: float

    @classmethod
    def median(cls, each: Sequence[Pulled]) -> Pulled:
        """Of each figure by itself."""
        return cls(*(median(getattr(one, name.name) for one in each) for name in fields(cls)))


def model(cell: Cell, options: str) -> list[Pulled]:
    """What the simulator says, for each of a few seeds."""
    each = []
    for seed in _SEEDS:
        values = figures(run(scale.scenario_of(Row("", f"{options} --seed {seed}"))))
        names = ("p50_s", "max_s", "origin_copies", "duplicate_share")
        each.append(Pulled(*(values[name] for name in names)))
    return each


@define
class Site:
    """What stands where; every host but the herd's has an agent."""

    herd: Host
    agents: list[HostDaemon]
    blob: Blob
    stream: bool

    def new_blob(self, path: Path, size: int) -> None:
        """Let another blob be there, of which no agent has a byte, and forget the last one."""
        old = self.blob
        self.blob = changed(old) if old.size == size else make(path, size)
        for agent in self.agents:
            with agent.host.inside(), contextlib.suppress(client.Refused):  # not every agent had it
                client.ask(AGENT_MANAGEMENT, "DELETE", f"/blobs/{old.digest}")
        with self.herd.inside():
            if old.size:
                client.ask(ORIGIN, "DELETE", f"/internal/blobs/{old.digest}")
            client.push(PROXY, NAMESPACE, self.blob.path, self.blob.digest)
        time.sleep(1.0 + size / 5e8)  # the herd writes it to its backend meanwhile

    def pull(self, cell: Cell, progress: Progress, expected_s: float) -> Pulled:
        """Have the first agents fetch the blob at once.

        Raises:
            NeverCame
        """
        sent, skipped = self._sent(), self._skipped()
        took_s = sorted(self._stream(cell) if self.stream else self._pull(cell, progress, expected_s))
        copies = (self._sent() - sent) / self.blob.size
        twice = (self._skipped() - skipped) / self.blob.size / cell.agents
        return Pulled(took_s[ceil(len(took_s) / 2) - 1], took_s[-1], copies, twice)  # nearest rank, as the model's

    def _sent(self) -> float:
        """Bytes of pieces that have left the origin so far."""
        with self.herd.inside():
            numbers = client.numbers(ORIGIN)
        return sum(
            numbers[f"kraken_origin_{name}_bytes"] for name in ("peer_sent_sendfile", "peer_sent_copy", "http_sent")
        )

    def _skipped(self) -> float:
        """Bytes that came to agents and were thrown away so far."""
        total = 0.0
        for agent in self.agents:
            with agent.host.inside():
                total += client.numbers(AGENT_MANAGEMENT)["kraken_agent_peer_skipped_bytes"]
        return total

    def hash_rate(self, hosts: int) -> float:
        """Bytes of the blob per second that so many threads hash each, when all do: hosts here share the cores."""
        size = min(self.blob.size, _HASHED)
        with self.blob.path.open("rb") as file, ThreadPoolExecutor(hosts) as pool:
            began = time.monotonic()
            for done in [pool.submit(hash_range, file.fileno(), Hasher("sha256"), 0, size) for _ in range(hosts)]:
                done.result()
        return size / (time.monotonic() - began)

    def _stream(self, cell: Cell) -> list[float]:
        limit_s = _PATIENCE * cell.ideal_s + _PATIENCE_S
        pulls = [pull(agent.host, self.blob) for agent in self.agents[: cell.agents]]
        return [each.right(self.blob, limit_s).total_s for each in pulls]

    def _pull(self, cell: Cell, progress: Progress, expected_s: float) -> list[float]:
        waiting: dict[Path, float] = {}
        took_s = []
        with contextlib.ExitStack() as held:
            began = time.monotonic()
            for agent in self.agents[: cell.agents]:
                with agent.host.inside():
                    waiting[_cached(agent, self.blob)] = time.monotonic()
                    asked = held.enter_context(client.ask_first_byte(REGISTRY, blob_path(self.blob)))
                held.callback(client.check_first_byte, asked)
            while waiting:
                time.sleep(_POLL_S)
                now = time.monotonic()
                for path in [path for path in waiting if path.exists()]:
                    took_s.append(now - waiting.pop(path))
                progress.part((now - began) / expected_s)
                if now - began > _PATIENCE * cell.ideal_s + _PATIENCE_S:
                    raise NeverCame(f"{cell}: {len(waiting)} hosts were not done after {now - began:.0f} s")
        return took_s


def _cached(agent: HostDaemon, blob: Blob) -> Path:
    """The file that is there once the agent has the whole blob and its sha256 has passed."""
    return agent.folder / "data" / "cache" / blob.hex[:2] / blob.hex[2:4] / blob.hex / "data"


@contextlib.contextmanager
def site(folder: Path, agents: int, stream: bool) -> Iterator[Site]:
    """Herd and agents on hosts of their own."""
    with Hosts.up(1 + agents) as hosts:
        herd, *others = hosts
        started = [daemons.agent(host, folder / host.name, herd.ip) for host in others]
        with daemons.running(daemons.herd(herd, folder / "herd"), *started):
            yield Site(herd, started, Blob(folder / "none", 0, ""), stream)


@frozen
class Found:
    """What came of a cell, in each round and with each seed."""

    cell: Cell
    options: str
    real: list[Pulled]
    modelled: list[Pulled]
    load: float

    def error(self, name: str) -> float:
        """By how much the median of the model is above that of what was measured."""
        measured, modelled = (getattr(Pulled.median(each), name) for each in (self.real, self.modelled))
        return float(modelled / measured - 1)

    @property
    def good(self) -> bool:
        """Whether both times are near enough."""
        return all(abs(self.error(name)) <= _ALLOWED for name in _TIMES)

    def line(self) -> str:
        """A row of the table in Markdown."""
        real, modelled = Pulled.median(self.real), Pulled.median(self.modelled)
        cells = [
            str(self.cell),
            f"{self.cell.ideal_s:.2f}",
            *(
                f"{_spread(self.real, name)} | {_spread(self.modelled, name)} | {self.error(name):+.0%}"
                for name in _TIMES
            ),
            f"{real.copies:.2f} | {modelled.copies:.2f}",
            f"{real.twice:.1%} | {modelled.twice:.1%}",
            f"{self.load:.1f}",
        ]
        return f"| {' | '.join(cells)} |"

    def as_json(self) -> dict[str, Any]:
        """Everything, for the file."""
        return {**asdict(self), **{f"error_{name[:-2]}": round(self.error(name), 4) for name in _TIMES}}


def _spread(each: Sequence[Pulled], name: str) -> str:
    """The median, and between which it was."""
    values = [getattr(one, name) for one in each]
    more = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{median(values):.2f}{more}"


HEAD = (
    "| agents, blob, link | ideal, s | p50, s | model | error | max, s | model | error | copies | model "
    "| came twice | model | load |\n|---" + "|---" * 12 + "|"
)


def measure(
    cells: Sequence[Cell], rounds: int | None, latency: str, progress: Progress, folder: Path, *, stream: bool = False
) -> list[Found]:
    """All cells; the model after each."""
    found = []
    progress.step("hosts, herd and agents")
    with site(folder, max(cell.agents for cell in cells), stream) as where:
        for cell in cells:
            for host in (where.herd, *(agent.host for agent in where.agents)):
                host.limit(f"{cell.mbit}mbit")
            real, hash_rates = [], []
            for _ in range(rounds or cell.rounds):
                where.new_blob(folder / "blob", cell.mb * _MB)
                hash_rates.append(where.hash_rate(cell.agents))
                progress.step(f"{cell}, {cell.ideal_s:.0f} s at least")
                real.append(where.pull(cell, progress, cell.ideal_s))
            options = cell.options(latency, median(hash_rates))
            found.append(Found(cell, options, real, model(cell, options), scale.load()))
    return found


def place() -> str | None:
    """Where the data goes: in memory where there is room, since nine hosts here would share one disk."""
    if chosen := os.environ.get("KRAKEN_BENCH_DIR"):
        return chosen
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    return str(_MEMORY) if _MEMORY.is_dir() and free > _ROOM else None


def main(argv: Sequence[str]) -> int:
    """Measure, print, write; returns 1 when the model is off by more than 15 %."""
    parser = argparse.ArgumentParser(prog="make reality ARGS=...", description=__doc__)
    option = parser.add_argument
    option("--only", action="append", metavar="TEXT", help="cells whose name has this in it, like '8 x 50 MB'")
    option("--rounds", type=int, help="how often each cell; medians count (1, but 3 of several agents with 50 MB)")
    option("--stream", action="store_true", help="pull the whole blob through each agent, as docker does")
    option("--latency", default="500us", help="for the model, there and back (500us)")
    option("--json", type=Path, default=ROOT / "reality.json", help="where the figures go (reality.json)")
    options = parser.parse_args(argv)
    cells = [cell for cell in CELLS if not options.only or any(text in str(cell) for text in options.only)]
    with contextlib.suppress(PermissionError):
        os.nice(-5)  # what else this machine does is no part of the comparison
    progress = Progress(1 + sum(options.rounds or cell.rounds for cell in cells))
    try:
        with tempfile.TemporaryDirectory(prefix="kraken-reality-", dir=place()) as folder:
            found = measure(cells, options.rounds, options.latency, progress, Path(folder), stream=options.stream)
    except NoTestbed as error:
        sys.exit(f"error: {error}")
    progress.end()
    machine = report.machine()
    print(f"{machine['cores']} x {machine['cpu']}, python {machine['python']}; seeds {_SEEDS[0]} to {_SEEDS[-1]}\n")
    print("\n".join([HEAD, *(each.line() for each in found)]))
    document = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": krakentx.__version__,
        "code": scale.code(),
        "machine": machine,
        "command": shlex.join(["make", "reality", *([f"ARGS={shlex.join(argv)}"] if argv else [])]),
        "seeds": _SEEDS,
        "cells": [each.as_json() for each in found],
    }
    options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\nwritten to {options.json}")
    return 0 if all(each.good for each in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
