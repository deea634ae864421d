"""The runner of many seeds: what it tells, and that a failure can be played again."""

from __future__ import annotations

import subprocess
import sys

import pytest

from krakentx.cli.faults import Tally, main
from krakentx.sim.trial import KINDS, Played


def test_seeds_are_played_by_processes_and_the_last_line_says_how_many_passed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["3", "--first", "7", "--jobs", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "swarm-hours" in lines[0]
    assert [line.split()[0] for line in lines[2:-1]] == list(KINDS)
    assert lines[-1] == "3 passed, 0 failed"


def test_a_failing_seed_says_how_to_play_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally(2)
    tally.add(Played(4, (), 90.0, frozenset({"death"})))
    tally.add(Played(5, ("agent3 did not finish: {}",), 120.0, frozenset()))
    tally.tell()
    lines = capsys.readouterr().out.splitlines()
    assert "python -m krakentx.sim.trial 5" in lines[0]
    assert lines[1] == "agent3 did not finish: {}"
    assert next(line for line in lines if "death" in line).split() == ["death", "50%"]
    assert lines[-1] == "1 passed, 1 failed"


@pytest.mark.parametrize("seeds", ["0", "-1", "many"])
def test_a_number_that_is_none_is_refused(seeds: str) -> None:
    done = subprocess.run([sys.executable, "-m", "krakentx.cli.faults", seeds], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m krakentx.cli.faults")


def test_an_engine_that_never_comes_back_is_a_failed_seed() -> None:
    code = """
from krakentx.cli import faults
from krakentx.sim.trial import Trial
def run(self):
    while True:
        pass
faults._SEED_S = 1
Trial.run = run
faults._prepare()
print(faults._play(3).problems[0].splitlines()[-1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "TimeoutError: no end after 1 s\n"
