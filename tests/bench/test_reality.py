"""`make reality`: its verdict, and one small cell of real hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.progress import Progress
from tests.bench.reality import HEAD, Cell, Found, Pulled, measure
from tests.testbed import hosts

_CELL = Cell(agents=1, mb=8, mbit=200)


def test_a_link_carries_payload_in_full_packets() -> None:
    assert _CELL.rate == int(25e6 * 1448 / 1514)
    assert _CELL.ideal_s == pytest.approx(8e6 / _CELL.rate)


def test_both_times_must_be_near_and_medians_count() -> None:
    def found(*modelled: float) -> Found:
        real = [Pulled(10.0, 20.0, 1.0, 0.0)]
        return Found(_CELL, "", real, [Pulled(10.0, max_s, 1.0, 0.0) for max_s in modelled], 0.0)

    assert found(22.9).good and found(17.1).good
    assert not found(23.1).good and not found(16.9).good
    assert found(17.1, 20.0, 40.0).error("max_s") == 0
    assert HEAD.splitlines()[0].count("|") == found(20.0).line().count("|")


@pytest.mark.integration
def test_a_real_host_gets_the_blob_no_faster_than_its_link_allows(tmp_path: Path) -> None:
    hosts.skip_unless_possible()
    (found,) = measure([_CELL], 1, "500us", Progress(2), tmp_path)
    (real,) = found.real
    assert real.p50_s == real.max_s >= 0.95 * _CELL.ideal_s  # the cap lets a short burst through
    assert real.copies == pytest.approx(1.0, abs=0.05)
    assert real.twice == 0
    assert len(found.modelled) == 5 and "--hash-rate" in found.options
