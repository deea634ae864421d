"""Two hundred small swarms under random faults: every honest agent finishes with the right bytes."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from krakentx.sim.trial import KINDS, Played, Trial, main, play

SEEDS = 200
BATCHES = 10

played = cache(play)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_honest_agent_finishes_with_the_right_bytes(batch: int) -> None:
    failed: list[Played] = []
    for seed in range(batch, SEEDS, BATCHES):
        if played(seed).problems:
            failed.append(played(seed))
    replay = "python -m krakentx.sim.trial"
    assert not failed, "\n".join(f"{replay} {each.seed} plays it again: {each.problems}" for each in failed)


def test_each_kind_of_fault_comes_to_pass_in_more_than_a_fifth_of_the_seeds() -> None:
    seen: Counter[str] = Counter()
    for seed in range(SEEDS):
        seen.update(played(seed).kinds)
    assert min(seen[kind] for kind in KINDS) > SEEDS / 5, seen


def test_a_seed_fixes_a_run_to_its_last_event() -> None:
    logs = []
    for _ in range(2):
        trial = Trial(17, trace=True)
        trial.run()
        logs.append(trial.log)
    assert logs[0] == logs[1]
    assert len(logs[0]) > 1000


def test_a_seed_is_played_again_with_what_each_host_was_told_and_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["17"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(" <- PayloadOffered(" in line for line in lines)
    assert any(" ReceivePiece(" in line for line in lines)
    assert lines[-1] == "passed"
