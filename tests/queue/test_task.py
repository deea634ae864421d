"""How long to wait after a failure."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from krakentx.queue.task import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(first_s=2, max_s=60, jitter=0)
    pauses = [backoff.delay_s(failures, random.Random(1)) for failures in range(1, 8)]
    assert pauses == [2, 4, 8, 16, 32, 60, 60]


@given(st.integers(0, 10**9), st.integers())
def test_jitter_is_bounded(failures: int, seed: int) -> None:
    assert 1.6 <= Backoff(2, 300).delay_s(failures, random.Random(seed)) <= 360
