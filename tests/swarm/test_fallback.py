"""How much to fetch by HTTP at once."""

from __future__ import annotations

from krakentx.core.bitfield import indices
from krakentx.swarm.config import FallbackConfig
from krakentx.swarm.events import FetchProblem
from krakentx.swarm.fallback import Fallback

MIB = 1 << 20
CONFIG = FallbackConfig(parallel=1, first_batch_bytes=2 * MIB, max_batch_bytes=8 * MIB)


def make() -> Fallback:
    fallback = Fallback(0.0)
    fallback.on = True
    return fallback


def test_takes_what_is_open_from_the_reader_on_then_the_rest() -> None:
    fallback = make()
    assert fallback.plan(0b1110_0001, 6, MIB, 0.0, CONFIG) == (6, 7)
    fallback.ended((6, 7), None, 1.0, CONFIG)
    assert fallback.plan(0b0010_0001, 6, MIB, 1.0, CONFIG) == (0, 5)


def test_pieces_larger_than_a_batch_come_one_by_one() -> None:
    assert make().plan(0b111, 0, 64 * MIB, 0.0, CONFIG) == (0,)


def test_batches_grow_while_quick_and_shrink_when_slow() -> None:
    fallback = make()
    now, open_pieces, sizes = 0.0, (1 << 100) - 1, []
    for took in (0.1, 0.1, 0.1, 5.0, 5.0, 5.0, 1.0):
        batch = fallback.plan(open_pieces, 0, MIB, now, CONFIG)
        sizes.append(len(batch))
        now += took
        fallback.ended(batch, None, now, CONFIG)
        for piece in batch:
            open_pieces &= ~(1 << piece)
    assert sizes == [2, 4, 8, 8, 4, 2, 2]


def test_fetches_under_way_are_bounded_and_disjoint() -> None:
    fallback = make()
    config = FallbackConfig(parallel=2, first_batch_bytes=2 * MIB)
    first = fallback.plan(0b111111, 0, MIB, 0.0, config)
    second = fallback.plan(0b111111, 0, MIB, 0.0, config)
    assert not set(first) & set(second)
    assert fallback.plan(0b111111, 0, MIB, 0.0, config) == ()
    assert set(indices(fallback.held)) == {0, 1, 2, 3}
    assert len(fallback) == 2
    fallback.ended(first, FetchProblem.CORRUPT, 0.5, config)
    assert fallback.failing
    assert set(indices(fallback.held)) == {2, 3}
    fallback.ended((9,), None, 0.5, config)  # not ours
    assert len(fallback) == 1


def test_off_means_nothing() -> None:
    assert Fallback(0.0).plan(1, 0, MIB, 0.0, CONFIG) == ()
