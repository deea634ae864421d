"""`make bench`: real processes on loopback, measured in one run; docs/benchmark.md tells how to read it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from attrs import define

from tests.bench import announce, blobs, client, engine_turn, procs, pulls, report, swarm, tls
from tests.bench.blobs import Blob
from tests.bench.progress import Progress
from tests.cluster import ROOT, Cluster

_AGENTS = 4
_GIB = 1 << 30
_ROOM = 8  # blobs on disk at most: source, raw copy, herd's store and testfs, four agents
_ROOM_OF_A_PUSH = 2  # each pushed blob stays in the proxy's store and in testfs
Rows = dict[str, Any]


@define
class Bench:
    """What the parts share; the cluster starts when the first of them needs it.

    The blob that travels is pushed by then, and whatever the herd did about that is over.
    """

    folder: Path
    size: int
    rounds: int
    progress: Progress
    held: ExitStack
    _blob: Blob | None = None
    _cluster: Cluster | None = None

    @property
    def blob(self) -> Blob:
        """The blob that the herd has, and that no agent has when a part begins."""
        if self._blob is None:
            self.progress.step("writing a blob of random bytes")
            self._blob = blobs.make(self.folder / "blob", self.size)
        return self._blob

    @property
    def cluster(self) -> Cluster:
        """A herd and its agents."""
        if self._cluster is None:
            blob = self.blob
            self.progress.step("starting a herd and its agents")
            self._cluster = self.held.enter_context(Cluster.start(self.folder / "cluster", _AGENTS))
            self.progress.step("first push")
            self.push(blob)
        return self._cluster

    def push(self, blob: Blob) -> float:
        """Push it to the herd, and wait until that has written it back; returns the seconds of the push."""
        took_s = client.push(self.cluster.herd.proxy_port, swarm.NAMESPACE, blob.path, blob.digest)
        procs.wait_idle(self.cluster.pids)
        return took_s

    def pushes(self) -> Rows:
        """The row `push_mb_s`: each time another blob, the last of which travels from then on."""
        took_s = []
        for number in range(self.rounds):
            self.progress.step(f"push, round {number + 1} of {self.rounds}")
            cluster, old = self.cluster, self.blob
            self._blob = blobs.changed(old)
            client.ask(cluster.herd.origin_port, "DELETE", f"/internal/blobs/{old.digest}")
            took_s.append(self.push(self._blob))
        return {"push_mb_s": self.size / 1e6 / median(took_s)}

    def swarms(self) -> Rows:
        """The rows of `swarm.measure`."""
        return swarm.measure(self.cluster, self.blob, self.folder, self.rounds, self.progress)

    def encrypted(self) -> Rows:
        """The row of `tls.measure`."""
        return tls.measure(self.cluster, self.blob, self.folder / "tls", self.rounds, self.progress)

    def cold_pulls(self) -> Rows:
        """The row `cold_pull`."""
        return pulls.cold(self.cluster, self.blob, self.rounds, self.progress)

    def health(self) -> Rows:
        """The rows `health_...`."""
        return pulls.health(self.cluster, self.blob, self.rounds, self.progress)

    def announces(self) -> Rows:
        """The rows of `announce.measure`."""
        origin = self.cluster.herd.origin_port
        return announce.measure(self.folder / "announce", origin, 2.0 + self.rounds, self.progress)

    def engine(self) -> Rows:
        """The rows of `engine_turn.measure`, which need no cluster."""
        return engine_turn.measure(self.rounds, self.progress)

    def fallback(self) -> Rows:
        """The row `fallback_dropped_port`, with a herd of its own."""
        blob = self.blob
        return pulls.fallback(self.folder / "fallback", blob, self.rounds, self.progress)


def parts(rounds: int) -> dict[str, tuple[Callable[[Bench], Rows], int]]:
    """Name for --only -> what to call, and how many steps it will tell of."""
    return {
        "swarm": (Bench.swarms, 3 * (rounds + 1)),
        "tls": (Bench.encrypted, 2 * rounds + 3),
        "pull": (Bench.cold_pulls, rounds),
        "health": (Bench.health, rounds),
        "push": (Bench.pushes, rounds),
        "announce": (Bench.announces, 3),
        "fallback": (Bench.fallback, rounds + 2),
        "engine": (Bench.engine, rounds + 1),
    }


def main(argv: Sequence[str]) -> None:
    """Measure, print, write. Ends with exit code 0 when a target is missed: this tells, it does not judge."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a blob of 128 MiB and one round")
    parser.add_argument("--gib", type=float, default=1.0, help="size of the blob (1)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of which the median counts (3)")
    parser.add_argument("--only", action="append", choices=sorted(parts(0)), help="measure only this; may be repeated")
    parser.add_argument("--json", type=Path, default=ROOT / "bench.json", help="where the numbers go (bench.json)")
    options = parser.parse_args(argv)
    size, rounds = (_GIB // 8, 1) if options.quick else (int(options.gib * _GIB), max(1, options.rounds))
    chosen = {name: part for name, part in parts(rounds).items() if name in (options.only or parts(rounds))}
    progress = Progress(3 + sum(steps for _, steps in chosen.values()))
    rows: Rows = {}
    with ExitStack() as held:
        place = os.environ.get("KRAKEN_BENCH_DIR") or None
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="kraken-bench-", dir=place)))
        need = (_ROOM + _ROOM_OF_A_PUSH * rounds) * size
        if shutil.disk_usage(folder).free < need:
            sys.exit(f"error: {folder} has no room for {need / _GIB:.0f} GiB; say where with KRAKEN_BENCH_DIR")
        bench = Bench(folder, size, rounds, progress, held)
        for measure, _ in chosen.values():
            rows.update(measure(bench))
    progress.end()
    machine = report.machine()
    print(f"{size / _GIB:g} GiB, median of {rounds}; {machine['cores']} x {machine['cpu']}, python {machine['python']}")
    print(report.table(rows))
    report.write(options.json, rows, size, rounds)
    print(f"written to {options.json}")


if __name__ == "__main__":
    main(sys.argv[1:])
