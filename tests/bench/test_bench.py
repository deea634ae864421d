"""The benchmark itself: its table, its load generator, and one small run of all that moves bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import announce, load, procs, report
from tests.cluster import ROOT


def test_the_table_says_what_is_missed() -> None:
    rows = {
        "swarm_1": {"ratio_raw_cpu": 0.5, "wall_s": 2.0},
        "egress_copies_4": 1.1,
        "announce_redis": {"skipped": "x"},
    }
    lines = report.table(rows).splitlines()[2:]
    assert [line.split() for line in lines] == [
        ["swarm_1", "ratio_raw_cpu", "0.5", ">=", "0.6", "missed"],
        ["wall_s", "2"],
        ["egress_copies_4", "1.1", "<", "1.3", "ok"],
        ["announce_redis", "skipped", "x"],
    ]


def test_the_file_holds_the_numbers_and_what_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    report.write(path, {"health_p99_ms": 250.0, "swarm_4": {"rss_mib_max": 70.0}}, 1 << 30, 3)
    document = json.loads(path.read_text())
    assert document["missed"] == ["health_p99_ms"]
    assert document["results"]["swarm_4"] == {"rss_mib_max": 70.0}
    assert document["machine"]["cores"] == len(os.sched_getaffinity(0))


def test_cpu_time_and_memory_of_a_process_are_read() -> None:
    with procs.measured([os.getpid()]) as cost:
        sum(range(5_000_000))
    assert 0 < cost.cpu_s <= cost.wall_s + 1
    assert procs.peak_rss_mib(os.getpid()) > 5


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Port and pid of a tracker."""
    with announce.tracker(tmp_path, None, None) as running:
        yield running


@pytest.mark.integration
def test_the_load_generator_counts_answers_and_refuses_errors(tracker: tuple[int, int]) -> None:
    def get(path: str) -> load.Load:
        request = f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        return load.Load(*tracker, [request], connections=8, in_flight=4, seconds=0.3, warm_s=0.1)

    answered = load.run(get("/health"))
    assert answered.per_s > 10
    assert 0 < answered.p50_ms <= answered.p99_ms
    with pytest.raises(load.LoadFailed, match="404"):
        load.run(get("/nowhere"))


@pytest.mark.integration
def test_a_small_run_writes_every_number(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    run = [sys.executable, "-m", "tests.bench.run", "--gib=0.03125", "--rounds=1", f"--json={path}"]
    parts = ["--only=swarm", "--only=pull", "--only=push"]
    done = subprocess.run([*run, *parts], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(path.read_text())["results"]
    assert list(results) == [
        *("raw", "swarm_1", "swarm_4", "egress_copies_4", "sendfile_percent", "cold_pull", "push_mb_s"),
    ]
    assert results["sendfile_percent"] >= 95
    assert "cold_pull" in done.stdout
