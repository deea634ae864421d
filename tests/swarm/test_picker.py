"""Rarity levels and the choice among them."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from krakentx.core.bitfield import indices
from krakentx.swarm.picker import Rarity, any_of, lowest

SIZE = 70
masks = st.integers(0, (1 << SIZE) - 1)


@given(st.lists(masks, max_size=8), st.data())
def test_levels_count_holders(holders: list[int], data: st.DataObject) -> None:
    rarity = Rarity(SIZE)
    for mask in holders:
        if mask.bit_count() == 1:
            rarity.add_one(mask)
        else:
            rarity.add(mask)
    gone = data.draw(st.lists(st.sampled_from(holders), max_size=3, unique=True)) if holders else []
    for mask in gone:
        rarity.remove(mask)
        holders.remove(mask)
    for piece in range(SIZE):
        expected = sum(mask >> piece & 1 for mask in holders)
        assert [n for n, level in enumerate(rarity.levels) if level >> piece & 1] == [expected]


@given(st.lists(masks, max_size=6), masks)
def test_rarest_is_the_least_held_part_of_what_is_wanted(holders: list[int], wanted: int) -> None:
    rarity = Rarity(SIZE)
    for mask in holders:
        rarity.add(mask)
    count = {piece: sum(mask >> piece & 1 for mask in holders) for piece in indices(wanted)}
    fewest = min(count.values(), default=0)
    assert set(indices(rarity.rarest(wanted))) == {piece for piece, n in count.items() if n == fewest}


def test_levels_shrink_when_the_last_holder_leaves() -> None:
    rarity = Rarity(3)
    for _ in range(5):
        rarity.add(0b101)
    for _ in range(5):
        rarity.remove(0b101)
    assert rarity.levels == [0b111]


@given(masks.filter(bool), st.integers())
def test_any_of_is_a_member(mask: int, seed: int) -> None:
    piece = any_of(mask, Random(seed))
    assert mask >> piece & 1
    assert mask >> lowest(mask) & 1
    assert not mask & ((1 << lowest(mask)) - 1)


def test_any_of_is_fair_in_sparse_and_dense_sets() -> None:
    rng = Random(1)
    sparse = 1 | 1 << 500 | 1 << 501 | 1 << 900
    twenty = sum(1 << (piece * piece) for piece in range(20))
    dense = (1 << 10) - 1
    for mask in (sparse, twenty, dense):
        draws = 400 * mask.bit_count()
        seen = Counter(any_of(mask, rng) for _ in range(draws))
        assert set(seen) == set(indices(mask))
        assert max(seen.values()) < 1.3 * 400
        assert min(seen.values()) > 0.7 * 400
