"""The units on paper: systemd finds nothing wrong with them, they confine what they start, and they fit together."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "systemd"
SERVICES = sorted(FOLDER.glob("*.service"))
COMPONENTS = ("agent", "build-index", "herd", "origin", "proxy", "testfs", "tracker")
SPLIT = {f"kraken-{part}.service" for part in ("build-index", "origin", "proxy", "testfs", "tracker")}
MOST_EXPOSURE = 20  # tenths
CONFINED = "# What it needs of the system"

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
each_service = pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)


def settings(unit: Path) -> dict[str, list[str]]:
    """What it sets, key -> values in their order; no key of ours stands in two sections."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().replace("\\\n", " ").splitlines():
        if line and not line.startswith(("#", "[")):
            key, equals, value = line.partition("=")
            assert equals and key == key.strip(), line
            found.setdefault(key, []).append(value)
    return found


def words(found: dict[str, list[str]], key: str) -> set[str]:
    return {word for value in found.get(key, []) for word in value.split()}


def test_each_component_has_a_unit() -> None:
    assert {unit.name for unit in SERVICES} == {f"kraken-{name}.service" for name in (*COMPONENTS, "redis")}


@needs_analyze
def test_systemd_finds_nothing_to_complain_about() -> None:
    units = [str(unit) for unit in FOLDER.iterdir() if unit.suffix in (".service", ".target")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "kraken" in line]
    assert (done.returncode, ours) == (0, [])


@needs_analyze
@each_service
def test_exposure_is_low(unit: Path, record_property: pytest.RecordProperty) -> None:
    check = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", "--no-pager", str(unit)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    verdict = done.stdout.strip().splitlines()[-1]
    record_property("exposure", verdict)
    assert done.returncode == 0, verdict


@each_service
def test_what_confines_is_the_same_in_all(unit: Path) -> None:
    def confinement(of: Path) -> str:
        return of.read_text().partition(CONFINED)[2].partition("[Install]")[0]

    assert confinement(unit) == confinement(SERVICES[0]) != ""


@each_service
def test_folders_are_where_the_guide_has_them_and_closed_to_others(unit: Path) -> None:
    found = settings(unit)
    name = unit.stem.removeprefix("kraken-")
    assert found["CacheDirectory"] == ["kraken" if name == "herd" else f"kraken/{name}"]
    assert found["LogsDirectory"] == [f"kraken/kraken-{name}"] and found["RuntimeDirectory"] == ["kraken"]
    assert f"/var/log/kraken/kraken-{name}/stdout.log" in found["ExecStart"][0]
    for key in ("CacheDirectoryMode", "LogsDirectoryMode", "RuntimeDirectoryMode"):
        assert found[key] == ["0750"]
    assert (found["UMask"], found["User"], found["Group"]) == (["0027"], ["kraken"], ["kraken"])
    assert found["EnvironmentFile"] == ["-/etc/kraken/kraken.env", f"-/etc/kraken/{name}.env"]


@pytest.mark.parametrize("name", COMPONENTS)
def test_the_command_has_the_options_that_the_unit_gives_it(name: str) -> None:
    argv = shlex.split(settings(FOLDER / f"kraken-{name}.service")["ExecStart"][0])
    assert argv[:2] == ["/usr/bin/env", "twistd"] and argv[-2:] == [f"kraken-{name}", "$KRAKEN_OPTIONS"]
    twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", *argv[2:-1], "--help"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(twistd, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: twistd [twistd's options] kraken-{name}")
    assert "--config=" in done.stdout  # as the comment of the unit recommends


@pytest.mark.parametrize("name", COMPONENTS)
def test_systemd_waits_for_word_and_watches(name: str) -> None:
    found = settings(FOLDER / f"kraken-{name}.service")
    assert (found["Type"], found["NotifyAccess"]) == (["notify"], ["main"])
    assert int(found["WatchdogSec"][0]) > 0 and found["Restart"] == ["always"]


def test_the_herd_in_one_process_and_in_several_exclude_each_other() -> None:
    herd, target = settings(FOLDER / "kraken-herd.service"), settings(FOLDER / "kraken-herd.target")
    assert words(herd, "Conflicts") == SPLIT | {"kraken-herd.target"}
    # Whatever is ordered, stops before the other starts: the ports must be free by then.
    assert words(herd, "After") >= SPLIT
    assert words(target, "Wants") == SPLIT and words(target, "Conflicts") == {"kraken-herd.service"}
    for name in SPLIT:
        part = settings(FOLDER / name)
        assert words(part, "Conflicts") == {"kraken-herd.service"}
        assert words(part, "PartOf") == words(part, "WantedBy") == {"kraken-herd.target"}


def test_the_user_has_no_shell_and_no_fixed_number() -> None:
    [line] = [line for line in (FOLDER / "kraken.sysusers.conf").read_text().splitlines() if not line.startswith("#")]
    assert shlex.split(line) == ["u", "kraken", "-", "KrakenTX", "/var/cache/kraken", "-"]
