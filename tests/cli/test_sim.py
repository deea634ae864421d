"""`krakentx sim`: one seed fixes all that it writes, its figures add up, and wrong options are told in a line."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from krakentx.cli.main import main
from krakentx.sim import fair

SMALL = ("sim", "--hosts", "12", "--origins", "2", "--blobs", "2", "--blob-size", "20MB", "--piece-length", "1MB")


def call(*more: str) -> int:
    with pytest.raises(SystemExit) as end:
        main([*SMALL, *more])
    assert isinstance(end.value.code, int)
    return end.value.code


def figures(path: Path, *more: str) -> dict[str, Any]:
    assert call("--json", str(path), *more) == 0
    return dict(json.loads(path.read_text()))


def test_a_seed_fixes_every_byte_that_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = []
    for number, seed in enumerate(("7", "7", "8")):
        files = {kind: tmp_path / f"{number}.{kind}" for kind in ("json", "svg", "log")}
        faults = ("--host-death", "0.2", "--restart", "0.2", "--stall", "0.02")
        outputs = ("--json", str(files["json"]), "--plot", str(files["svg"]), "--record", str(files["log"]))
        call("--seed", seed, *faults, *outputs)
        written.append([capsys.readouterr().out, *(path.read_bytes() for path in files.values())])
    assert written[0] == written[1]
    assert all(first != other for first, other in zip(written[0], written[2], strict=True))


def test_what_is_not_compiled_gives_the_same_bytes(tmp_path: Path) -> None:
    assert fair.COMPILED, "the dev extra installs it"
    faults = ("--racks", "3", "--uplink", "0.5", "--host-death", "0.1", "--blackout", "0.1", "--reset", "0.02")
    compiled, plain = tmp_path / "compiled", tmp_path / "plain"
    call(*faults, "--record", str(compiled))
    without = "import sys; sys.modules['numba'] = None; from krakentx.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", without, *SMALL, *faults, "--record", str(plain)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stderr
    assert "numba is not installed" in told
    assert compiled.read_bytes() == plain.read_bytes()


def test_the_figures_hold_what_was_asked_and_what_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = figures(tmp_path / "a.json", "--racks", "3", "--uplink", "0.5", "--seed", "3")
    capsys.readouterr()
    assert 1.0 < values["p50_x"] <= values["p90_x"] <= values["p99_x"] <= values["p999_x"] <= values["max_x"] < 6
    assert 1.0 <= values["origin_copies"] < 12
    assert 0 < values["cross_rack_share"] < 1
    assert values["messages_per_host"] > 40
    assert values["events_per_s"] > 0
    assert (values["seed"], values["hosts"], values["uplink"], values["policy"]) == (3, 12, 0.5, "ours")
    assert values["finished"] == 12


def test_both_policies_finish_and_the_table_tells_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    for policy in ("ours", "reference"):
        assert call("--policy", policy) == 0
        table = capsys.readouterr().out
        assert "12 hosts finished, 0 did not" in table
        assert "p999" in table


def test_dead_and_lying_hosts_are_not_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = figures(tmp_path / "a.json", "--host-death", "0.3", "--liar", "0.3", "--lie", "0.2", "--seed", "4")
    capsys.readouterr()
    counts = values["fault_counts"]
    assert counts["death"] and counts["liar"]
    assert 12 - counts["death"] - counts["liar"] <= values["finished"] < 12
    assert values["unfinished"] == 0


def test_forgers_cost_little_when_strong_sums_are_known_or_asked_for(tmp_path: Path, capsys: Any) -> None:
    """Known from the start they find a forged piece as it comes; asked for at the end, which ones must come again."""
    liars = ("--forger", "0.2", "--lie", "0.3", "--seed", "3")
    runs = {}
    for sums in ("always", "late", "never"):
        values = runs[sums] = figures(tmp_path / f"{sums}.json", *liars, "--strong-sums", sums)
        assert (values["strong_sums"], values["unfinished"]) == (sums, 0)
        assert values["fault_counts"]["forged"]
    capsys.readouterr()
    corrupt = {sums: values["fault_counts"].get("corrupt_blob", 0) for sums, values in runs.items()}
    assert corrupt["always"] == 0 < min(corrupt["late"], corrupt["never"])
    assert max(runs["always"]["origin_copies"], runs["late"]["origin_copies"]) < runs["never"]["origin_copies"]
    assert max(runs["always"]["p50_x"], runs["late"]["p50_x"]) < runs["never"]["p50_x"]


def test_the_picture_is_well_formed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "a.svg"
    assert call("--plot", str(picture)) == 0
    capsys.readouterr()
    assert len(ET.fromstring(picture.read_text()).findall(".//{http://www.w3.org/2000/svg}polyline")) == 3


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--hosts", "0"), "at least 1"),
        (("--rate", "much"), "size"),
        (("--arrival", "5"), "duration"),
        (("--stall", "2"), "from 0 to 1"),
        (("--egress", "200"), "200Mbit"),
        (("--strong-sums", "perhaps"), "late"),
        (("--tracker-outage", "1s"), "two times"),
        (("--plot", "a.gif"), ".svg"),
        (("--blob-size", "0"), "more than 0"),
        (("--json", "/nowhere/at/all.json"), "/nowhere/at/all.json"),
    ],
)
def test_wrong_options_are_told_in_a_line(
    options: tuple[str, ...], word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(*options) in (1, 2)
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert word in last
    assert "events in" not in last


def test_limits_of_a_host_are_those_of_its_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    free = figures(tmp_path / "free.json")
    held = figures(tmp_path / "held.json", "--egress", "300Mbit", "--ingress", "0.4Gbit")
    capsys.readouterr()
    assert (held["egress_bits_per_sec"], held["ingress_bits_per_sec"]) == (300_000_000, 400_000_000)
    assert (free["egress_bits_per_sec"], free["ingress_bits_per_sec"]) == (None, None)
    assert held["ideal_s"] == pytest.approx(40 * 2**20 * 8 / 400e6, abs=1e-4)
    # 12 copies leave 14 hosts at 300 Mbit/s.
    assert held["max_s"] > 40 * 2**20 * 8 / 300e6 * 12 / 14
    assert held["max_s"] > 5 * free["max_s"]
