"""What a stranger gets: the plugins from a wheel, and plain words when the machine lacks something."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.wheel import ROOT, build_wheel

pytestmark = pytest.mark.integration

PLUGINS = {f"kraken-{part}" for part in ("herd", "agent", "origin", "tracker", "proxy", "build-index", "testfs")}


@pytest.mark.slow
def test_a_wheel_brings_the_plugins(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert "twisted/plugins/krakentx_plugins.py" in names and "krakentx/py.typed" in names
    shared = {name.partition(".data/data/share/krakentx/")[2] for name in names}
    assert {"systemd/kraken-agent.service", "etc/agent/multihost.yaml"} <= shared
    assert "twisted/plugins/__init__.py" not in names and not any(name.startswith("tests/") for name in names)

    # A clean environment, whose dependencies are read from this one: no network is needed.
    clean = tmp_path / "clean"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(clean)], check=True)
    python = clean / "bin/python"
    install = [sys.executable, "-m", "pip", "-q", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True)
    site = next(clean.glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(code: str, *args: str) -> str:
        argv = [str(python), "-c", code, *args]
        return subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout

    assert run("import krakentx; print(krakentx.__file__)").startswith(str(site))
    help_text = run("from twisted.scripts.twistd import run; run()", "--help")
    assert {word for word in help_text.split() if word in PLUGINS} == PLUGINS
    assert "usage: krakentx" in run("from krakentx.cli.main import main; main()", "--help")


def venv_script(tree: Path, path: Path) -> tuple[int, str]:
    env = {"PATH": f"{path}:/usr/bin:/bin", "HOME": str(tree)}
    done = subprocess.run(["scripts/venv.sh"], cwd=tree, env=env, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "python, words",
    [
        ('case "$2" in *ensurepip*) exit 1;; esac', "apt-get install python3-venv"),
        (
            'case "$1" in --version) echo Python 3.8.1;; *) exit 1;; esac',
            "Python 3.8.1 is too old; KrakenTX needs 3.10",
        ),
    ],
)
def test_what_python_lacks_is_one_plain_line(tmp_path: Path, python: str, words: str) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy2(ROOT / "scripts/venv.sh", tmp_path / "scripts")
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/python3"
    fake.write_text(f"#!/bin/sh\n{python}\n")
    fake.chmod(0o755)
    code, err = venv_script(tmp_path, tmp_path / "bin")
    assert code == 1
    assert err.startswith("error: ") and err.count("\n") == 1 and words in err
