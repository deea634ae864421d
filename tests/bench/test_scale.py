"""`make scale`: its rows, its verdicts, and one run of a small one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench import scale
from tests.bench.scale_rows import FULL, SMALL, Row

_TINY = Row("tiny", "--hosts 5 --blobs 1 --blob-size 8MB --rate 100MB", {"p50_x": 0.5})


@pytest.mark.parametrize("row", [*SMALL, *FULL], ids=lambda row: f"{row.name}")
def test_each_row_is_a_command_that_the_simulator_takes(row: Row) -> None:
    scenario = scale.scenario_of(row)
    assert scenario.ideal_s > 0


def test_names_are_told_apart_and_bounds_are_of_rows() -> None:
    for rows in (SMALL, FULL):
        assert len({row.name for row in rows}) == len(rows)
    recorded = json.loads(scale.BOUNDS.read_text())["small"]
    assert set(recorded) <= {row.name for row in SMALL}
    assert all(set(bounds) == set(scale.BOUND_KEYS) for bounds in recorded.values())


def test_a_row_is_worse_past_the_margin_and_when_a_host_does_not_finish() -> None:
    def verdict(p50_x: float, unfinished: int = 0) -> list[str]:
        return scale.worse({"figures": {"p50_x": p50_x, "unfinished": unfinished}}, {"p50_x": 1.0})

    assert verdict(1.09) == []
    assert verdict(1.11) == ["p50_x is 1.11, was 1.0"]
    assert verdict(1.0, unfinished=2) == ["2 hosts did not finish"]
    assert scale.worse({"failed": "MemoryError"}, None) == ["MemoryError"]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """One tiny row in both sizes, and bounds of its own; returns where they are kept."""
    bounds = tmp_path / "bounds.json"
    for name, value in {"SMALL": (_TINY,), "FULL": (_TINY,), "BOUNDS": bounds, "ROOT": tmp_path}.items():
        monkeypatch.setattr(scale, name, value)
    return bounds


def test_a_run_is_recorded_and_the_next_one_held_to_it(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scale.main(["--record"]) == 0
    assert "p50_x <= 0.5" in capsys.readouterr().out  # a missed target is told, and is no failure
    bounds = json.loads(rows.read_text())
    bounds["small"]["tiny"]["p50_x"] *= 0.9
    rows.write_text(json.dumps(bounds))
    assert scale.main([]) == 1
    assert "WORSE: tiny: p50_x is" in capsys.readouterr().out


def test_a_full_row_that_is_in_the_file_is_not_run_again(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scale.main(["--full"]) == 0

    def fail(*_: Any) -> None:
        raise AssertionError("run again")

    monkeypatch.setattr(scale, "_Run", fail)
    assert scale.main(["--full"]) == 0
    with pytest.raises(AssertionError, match="run again"):
        scale.main(["--full", "--again"])


def test_a_row_that_fails_is_told_with_its_reason(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = Row("tiny", "--hosts 5 --rate 0")
    scale.SMALL = (broken,)  # the fixture puts the true one back
    assert scale.main([]) == 1
    assert "WORSE: tiny: Traceback" in capsys.readouterr().out
