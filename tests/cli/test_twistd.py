"""The base of all plugins, seen from a terminal: a toy component run by the real twistd."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define

from krakentx.cli import twistd as base

pytestmark = pytest.mark.integration

PLUGIN = """
from twisted.application.service import ServiceMaker
toy = ServiceMaker("toy", "toy_tap", "A toy.", "kraken-toy")
"""
TAP = """
from pathlib import Path
from attrs import frozen
from twisted.application.internet import TCPServer
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from krakentx.cli.twistd import ComponentOptions, Flag, port_number

@frozen
class ToyConfig:
    port: int = 0
    interface: str = ""
    more: tuple[int, ...] = ()
    word: str = "plain"
    data_dir: Path | None = None

class Options(ComponentOptions):
    component = "toy"
    config_class = ToyConfig
    summary = "Plays."
    flags = (
        Flag("port", "Where it listens.", key="port", parse=port_number, listens=True),
        Flag("more", "Further ports.", key="more", parse=port_number, many=True),
        Flag("word", "Any word.", key="word"),
    )

def makeService(options):
    from twisted.internet import reactor

    def build(config, reactor):
        log = Logger(namespace="krakentx.tracker.logic")
        log.info("toy has {word} {more}", word=config.word, more=config.more)
        log.info("two\\nlines")
        reactor.callLater(0, log.info, "toy runs")  # from here on its handlers of signals are in place
        if config.word == "late":
            return TCPServer(options.taken, Factory.forProtocol(Protocol))
        return TCPServer(config.port, Factory.forProtocol(Protocol), interface=config.interface)
    if options["word"] == "late":
        import socket
        options.holder = socket.create_server(("", 0))
        options.taken = options.holder.getsockname()[1]
    return options.service(build, reactor)
"""


@define
class Toy:
    """twistd with a toy component in its plugin path, run in a folder of its own."""

    folder: Path

    def argv(self, *args: str, nodaemon: bool = True) -> list[str]:
        twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
        return [*twistd, *(["-n"] if nodaemon else []), "kraken-toy", *args]

    def env(self) -> dict[str, str]:
        root = Path(__file__).parents[2]
        return {**os.environ, "PYTHONPATH": f"{self.folder}:{root}", "HOME": str(self.folder), "COLUMNS": "120"}

    def run(self, *args: str, nodaemon: bool = True) -> tuple[int, str, str]:
        argv = self.argv(*args, nodaemon=nodaemon)
        done = subprocess.run(
            argv, cwd=self.folder, env=self.env(), capture_output=True, text=True, timeout=20, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def start(self, *args: str) -> subprocess.Popen[str]:
        argv = [*self.argv("--data-dir", str(self.folder / "data"), *args)]
        return subprocess.Popen(argv, cwd=self.folder, env=self.env(), stdout=subprocess.PIPE, text=True)


def output_of(process: subprocess.Popen[str], until: str) -> str:
    """What it prints up to the line with `until`, and until its end after SIGTERM."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if until in line:
            break
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=10)
    assert process.returncode in (0, -signal.SIGTERM)  # twistd ends by the signal that ended it
    return "".join(lines) + rest


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    (tmp_path / "twisted/plugins").mkdir(parents=True)
    (tmp_path / "twisted/plugins/toy_plugin.py").write_text(PLUGIN)
    (tmp_path / "toy_tap.py").write_text(TAP)
    return Toy(tmp_path)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("", 0)) as holder:
        yield holder.getsockname()[1]


def one_line(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert (code, out) == (1, "")
    assert err.count("\n") == 1 and err.startswith("error: ")
    return err


@pytest.mark.parametrize("nodaemon", [True, False])
def test_a_taken_port_is_one_line(toy: Toy, taken_port: int, nodaemon: bool) -> None:
    error = one_line(toy.run("--port", str(taken_port), "--data-dir", "d", nodaemon=nodaemon))
    assert f"port {taken_port} is taken by " in error and "another with --port" in error


def test_a_port_that_is_none_is_one_line(toy: Toy) -> None:
    (toy.folder / "toy.yaml").write_text("port: 99999\n")
    error = one_line(toy.run("--config", "toy.yaml", "--data-dir", "d"))
    assert error.strip().endswith("99999 is not a port; give a number from 0 to 65535 with --port")


def test_a_port_is_tried_on_the_address_it_will_have(toy: Toy, taken_port: int) -> None:
    with socket.create_server(("127.0.0.2", 0)) as elsewhere:
        port = elsewhere.getsockname()[1]
        (toy.folder / "toy.yaml").write_text("interface: 127.0.0.1\n")
        output_of(toy.start("--port", str(port), "--config", "toy.yaml"), "reactor class")
    (toy.folder / "toy.yaml").write_text("interface: 192.0.2.1\n")
    assert "is that an address of this host?" in one_line(toy.run("--config", "toy.yaml", "--data-dir", "d"))


@pytest.mark.parametrize("nodaemon", [True, False])
def test_an_unwritable_folder_is_one_line(toy: Toy, nodaemon: bool) -> None:
    (toy.folder / "file").write_text("")
    error = one_line(toy.run("--data-dir", "file/sub", nodaemon=nodaemon))
    assert "file/sub" in error and "--data-dir" in error


@pytest.mark.parametrize("nodaemon", [True, False])
def test_a_mistake_in_yaml_is_one_line(toy: Toy, nodaemon: bool) -> None:
    (toy.folder / "toy.yaml").write_text("port: 0\nwrod: x\n")
    error = one_line(toy.run("--config", "toy.yaml", nodaemon=nodaemon))
    assert error == "error: toy.yaml:2: wrod: unknown key; did you mean word?\n"


@pytest.mark.parametrize(
    "args, words",
    [
        (["--prot", "1"], "option --prot not recognized"),
        (["--port", "x"], "'x' is not a port"),
        (["--port"], "--port needs a value"),
        (["stray"], "'stray' is not understood"),
        (["--log-level", "loud"], "not 'loud'"),
        (["--config", "gone.yaml"], "gone.yaml: cannot be read: No such file"),
    ],
)
def test_a_mistake_in_the_flags_is_one_line(toy: Toy, args: list[str], words: str) -> None:
    assert words in one_line(toy.run(*args))


def test_what_fails_after_the_start_is_one_line_too(toy: Toy) -> None:
    code, _, err = toy.run("--word", "late", "--data-dir", "d")
    assert code == 1
    assert err.startswith("error: cannot listen on port ") and err.count("\n") == 1


def test_a_daemon_that_fails_late_tells_its_terminal(toy: Toy) -> None:
    code, _, err = toy.run("--word", "late", "--data-dir", "d", nodaemon=False)
    assert code == 1
    assert "cannot listen on port" in err and "Traceback" not in err
    log = (toy.folder / "d/kraken-toy.log").read_text()
    assert "cannot listen on port" in log and "Traceback" not in log


def test_go_and_getopt_forms_of_flags(toy: Toy) -> None:
    process = toy.start("-word=go", "--more", "7001", "-more", "7002", "--more=7003", "-mutex-profile-fraction=0")
    assert "toy has go (7001, 7002, 7003)" in output_of(process, "toy has")


def test_every_line_names_level_and_component(toy: Toy) -> None:
    text = output_of(toy.start(), "reactor class")
    lines = text.splitlines()
    assert any(line.endswith("INFO  [tracker] lines") for line in lines)
    assert any("INFO  [toy] kraken-toy keeps its data in" in line for line in lines)
    assert all(" [toy] " in line or " [tracker] " in line for line in lines)


def test_json_lines(toy: Toy) -> None:
    events = [json.loads(line) for line in output_of(toy.start("--json-logs"), "reactor class").splitlines()]
    event = next(event for event in events if "word" in event)
    assert (event["component"], event["level"], event["word"]) == ("tracker", "info", "plain")


def test_two_daemons_live_in_one_folder_and_leave_no_pid_file(toy: Toy) -> None:
    for number in ("1", "2"):
        code, out, err = toy.run("--data-dir", number, nodaemon=False)
        assert (code, out, err) == (0, "", "")
    pids = [pid_of_daemon(toy.folder / number) for number in ("1", "2")]
    try:
        assert not list(toy.folder.glob("*.pid")) and not list(toy.folder.glob("twistd.log"))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)


def test_a_pid_file_that_is_asked_for_is_written(toy: Toy) -> None:
    argv = [*toy.argv("--data-dir", "d")]
    argv.insert(argv.index("kraken-toy"), "--pidfile=twistd.pid")
    process = subprocess.Popen(argv, cwd=toy.folder, env=toy.env(), stdout=subprocess.PIPE, text=True)
    output_of(process, "toy runs")
    # Written while it ran, removed at its end.
    assert not (toy.folder / "twistd.pid").exists()


def test_help_explains_itself(toy: Toy) -> None:
    code, out, _ = toy.run("--help")
    assert code == 0
    for words in ("Plays.", "--port=", "[default: plain]", "--config=", "--data-dir=", "etc/toy/base.yaml"):
        assert words in out


def test_the_default_folder_is_one_that_can_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(base, "SYSTEM_DATA", tmp_path / "cache")
    assert base.default_data_dir("agent") == tmp_path / "cache/agent"
    assert base.default_data_dir("herd") == tmp_path / "cache"
    monkeypatch.setattr(base, "SYSTEM_DATA", Path("/proc/kraken"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith("/proc"))
    assert base.default_data_dir("agent") == tmp_path / "krakentx/agent"


def pid_of_daemon(data: Path) -> int:
    """The process whose command line names this data folder."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                here = os.readlink(entry / "cwd") == str(data.parent)
                if here and b"kraken-toy" in words and data.name.encode() in words:
                    return int(entry.name)
            except OSError:
                continue
        time.sleep(0.1)
    raise AssertionError(f"no daemon for {data}")
