"""`krakentx devcluster` as a person runs it: start, use, stop, start again, and what can go wrong."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import define

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

PORTS = [14000, *range(15000, 15006), *range(16000, 16003), *range(17000, 17003)]


def free_offset() -> int:
    """An offset under which none of the cluster's ports is in use."""
    for _ in range(50):
        offset = random.randrange(3000, 14000)
        try:
            for port in PORTS:
                socket.create_server(("", port + offset)).close()
        except OSError:
            continue
        return offset
    raise AssertionError("no free ports")


@define
class Running:
    """A devcluster in a process of its own."""

    process: subprocess.Popen[str]
    offset: int
    said: str = ""
    complained: str = ""

    def wait_ready(self) -> None:
        """Read up to the line `ready:`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if line.startswith("ready:"):
                return
        raise AssertionError(f"it ended with {self.process.wait()}: {self.said}{self.errors()}")

    def errors(self) -> str:
        """What it printed on stderr, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def url(self, port: int, path: str) -> str:
        """An address of the cluster."""
        return f"http://127.0.0.1:{port + self.offset}{path}"

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> float:
        """Seconds that it took to end."""
        began = time.monotonic()
        self.process.send_signal(sig)
        out, self.complained = self.process.communicate(timeout=20)
        self.said += out
        return time.monotonic() - began


def hear_sigint() -> None:
    """A shell lets what it runs in the background ignore Ctrl-C, and that is inherited: undo it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def devcluster(data: Path, offset: int) -> Iterator[Running]:
    """Run it, and end it whatever happens."""
    argv = [sys.executable, "-m", "krakentx.cli.main", "devcluster", f"--port-offset={offset}"]
    env = {**os.environ, "KRAKEN_DATA": str(data)}
    process = subprocess.Popen(
        argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_sigint
    )
    try:
        yield Running(process, offset)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=20)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as response:
        return bytes(response.read())


def test_it_starts_answers_stops_and_keeps_its_data(tmp_path: Path) -> None:
    offset = free_offset()
    with devcluster(tmp_path / "data", offset) as first:
        first.wait_ready()
        assert get(first.url(15000, "/v2/")) == b"{}"
        for agent in (16000, 17000):
            assert get(first.url(agent, "/v2/")) == b"{}"
            assert get(first.url(agent + 2, "/health")).strip() == b"OK"
        body = os.urandom(1000)
        urllib.request.urlopen(urllib.request.Request(first.url(14000, "/files/a/b"), body, method="POST"), timeout=5)
        assert first.stop(signal.SIGTERM) < 5
        assert first.complained == ""
    assert {path.name for path in (tmp_path / "data/logs").glob("*.log")} == {"herd.log", "agent-1.log", "agent-2.log"}
    with devcluster(tmp_path / "data", offset) as second:
        second.wait_ready()
        assert get(second.url(14000, "/files/a/b")) == body
        assert second.stop(signal.SIGINT) < 5


def test_a_part_that_dies_is_told_in_one_line(tmp_path: Path) -> None:
    with devcluster(tmp_path, free_offset()) as cluster:
        cluster.wait_ready()
        children = Path(f"/proc/{cluster.process.pid}/task/{cluster.process.pid}/children").read_text().split()
        victim = next(pid for pid in children if b"agent-2" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(int(victim), signal.SIGKILL)
        assert cluster.process.stdout is not None
        line = next(line for line in cluster.process.stdout if line.startswith("agent-2"))
        assert "ended with signal 9" in line and "agent-2.log" in line
        assert get(cluster.url(16000, "/v2/")) == b"{}"
        assert cluster.stop() < 5


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    offset = free_offset()
    with socket.create_server(("", 15003 + offset)), devcluster(tmp_path, offset) as cluster:
        assert cluster.process.wait(timeout=20) == 1
        error = cluster.errors()
    assert error.startswith(f"error: port {15003 + offset} is taken by ") and error.count("\n") == 1
    assert f"process {os.getpid()} (" in error and "KRAKEN_PORT_OFFSET" in error


def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with devcluster(tmp_path / "file/data", 0) as cluster:
        assert cluster.process.wait(timeout=20) == 1
        error = cluster.errors()
    assert error.startswith("error: ") and error.count("\n") == 1 and "KRAKEN_DATA=DIR" in error


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_stops_it_too(tmp_path: Path, sig: signal.Signals) -> None:
    with devcluster(tmp_path, free_offset()) as cluster:
        assert cluster.process.stdout is not None
        assert cluster.process.stdout.readline().startswith("starting")
        time.sleep(0.5)
        assert cluster.stop(sig) < 5
        assert "ready:" not in cluster.said
