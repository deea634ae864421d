"""The targets of `make fuzz` hold for their seeds and for damage done to them; so they are true before a long run."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.corpus import seeds
from tests.fuzz.run import SHARES
from tests.fuzz.targets import TARGETS


def test_every_target_has_its_share_and_its_seeds() -> None:
    assert set(TARGETS) == set(SHARES)
    for name, (_, max_len) in TARGETS.items():
        assert any(len(data) <= max_len for data in seeds(name))


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    target, _ = TARGETS[name]
    for data in seeds(name):
        target(data)


@settings(max_examples=500)
@given(st.sampled_from(sorted(TARGETS)), st.data())
def test_damaged_seeds(name: str, data: st.DataObject) -> None:
    target, max_len = TARGETS[name]
    whole = bytearray(data.draw(st.sampled_from(seeds(name)))[:max_len])
    for at, new in data.draw(st.lists(st.tuples(st.integers(0, max_len), st.integers(0, 255)), max_size=4)):
        at %= len(whole) + 1
        whole[at : at + 1] = bytes([new])
    cut = data.draw(st.integers(0, len(whole)))
    target(bytes(whole[:cut] + data.draw(st.binary(max_size=8)) + whole[cut:]))
