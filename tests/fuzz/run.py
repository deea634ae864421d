"""`make fuzz RUNS=1000000`: atheris on every target, one after the other, and a table of what was reached.

What the fuzzer learns stays in .fuzz/corpus, so that the next run goes on from there; an input that broke a target is
told with the command that plays it again, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.corpus import seeds

_HOME = Path(".fuzz")
_RSS_LIMIT_MB = 512
_INPUT_LIMIT_S = 5
# How much of all runs each target gets.
SHARES = {
    "wire": 4,
    "frame": 2,
    "bitset": 1,
    "metainfo": 2,
    "announce": 2,
    "hand_out": 2,
    "names": 3,
    "manifest": 2,
    "ranges": 2,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=int, help="executions, of all targets together")
    parser.add_argument("--only", choices=SHARES, help="just this target")
    options = parser.parse_args()
    shares = {options.only: 1} if options.only else SHARES
    total = broken = peak_mb = 0
    began = time.monotonic()
    print(f"{'target':10} {'executions':>12} {'per second':>11} {'peak MB':>8}  result", flush=True)
    for name, share in shares.items():
        runs, took_s, mb, problem = _fuzz(name, options.runs * share // sum(shares.values()))
        print(f"{name:10} {runs:12,} {runs / took_s:11,.0f} {mb:8}  {problem or 'good'}", flush=True)
        total, peak_mb, broken = total + runs, max(peak_mb, mb), broken + bool(problem)
    took_s = time.monotonic() - began
    rate = f"{total:,} executions in {took_s:.0f} s, {total / took_s:,.0f} per second"
    print(f"{rate}, peak memory {peak_mb} MB, {broken} failed")
    return 1 if broken else 0


def _fuzz(name: str, runs: int) -> tuple[int, float, int, str]:
    """One target in a process of its own. Returns executions, seconds, peak MB, and what broke."""
    corpus, found = _HOME / "corpus" / name, _HOME / "found"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(data)
    argv = [
        *(sys.executable, "-m", "tests.fuzz.one", name, str(corpus)),
        *(f"-runs={runs}", f"-rss_limit_mb={_RSS_LIMIT_MB}", f"-timeout={_INPUT_LIMIT_S}"),
        *(f"-artifact_prefix={found}/{name}-", "-print_final_stats=1"),
    ]
    log = _HOME / f"{name}.log"
    began = time.monotonic()
    with log.open("wb") as out:
        code = subprocess.run(argv, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    took_s = time.monotonic() - began
    text = log.read_text(errors="replace")
    problem = ""
    if code:
        made = re.findall(r"Test unit written to (\S+)", text)
        problem = f"BROKEN, see {log}" + (
            f"; again: {sys.executable} -m tests.fuzz.one {name} {made[-1]}" if made else ""
        )
    return _stat(text, "number_of_executed_units"), took_s, _stat(text, "peak_rss_mb"), problem


def _stat(text: str, name: str) -> int:
    match = re.search(rf"stat::{name}:\s+(\d+)", text)
    return int(match[1]) if match else 0


if __name__ == "__main__":
    sys.exit(main())
