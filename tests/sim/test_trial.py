"""Two hundred small swarms under random faults: every honest agent finishes with the right bytes."""

from __future__ import annotations

import traceback
from collections import Counter

import pytest

from krakentx.sim.trial import Trial, some_faults

SEEDS = 200
BATCHES = 10


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_honest_agent_finishes_with_the_right_bytes(batch: int) -> None:
    failed = []
    for seed in range(batch, SEEDS, BATCHES):
        try:
            problems = Trial(seed).run()
        except Exception:
            problems = [traceback.format_exc()]
        if problems:
            failed.append(f"seed {seed} (python -m krakentx.sim.trial {seed} plays it again): {problems}")
    assert not failed, "\n".join(failed)


def test_each_kind_of_fault_occurs_in_more_than_a_fifth_of_the_seeds() -> None:
    seen: Counter[str] = Counter()
    for seed in range(SEEDS):
        faults, http = some_faults(seed)
        seen["http"] += http
        seen["tracker"] += faults.tracker_down_s[1] > 0
        for kind in ("host_death", "stall", "reset", "mute", "liar", "forger", "announce_loss", "blackout", "restart"):
            seen[kind] += getattr(faults, kind) > 0
    assert min(seen.values()) > SEEDS / 5, seen


def test_a_seed_fixes_a_run_to_its_last_event() -> None:
    logs = []
    for _ in range(2):
        trial = Trial(17, trace=True)
        trial.run()
        logs.append(trial.log)
    assert logs[0] == logs[1]
    assert len(logs[0]) > 1000
