"""What a service manager hears: from the notifier on a clock, and from real daemons under the real twistd."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define
from twisted.application.service import MultiService, Service
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent

from krakentx.cli.notify import Notifier, listening

ROOT = Path(__file__).parents[2]


@define
class Manager:
    """The other end of NOTIFY_SOCKET."""

    socket: socket.socket
    address: str

    def heard(self, within_s: float = 0.0) -> list[str]:
        """The lines of the next message; empty when none comes."""
        ready, _, _ = select.select([self.socket], [], [], within_s)
        return self.socket.recv(4096).decode().split("\n") if ready else []

    def env(self, **more: str) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.address, **more}


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = (
        str(tmp_path / "notify") if request.param == "file" else f"@kraken-test-{os.getpid()}-{time.monotonic_ns()}"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(address.replace("@", "\0") if request.param == "abstract" else address)
        yield Manager(end, address)


class Running(MemoryReactorClock):
    """A reactor that begins to run when it is told."""

    def run(self) -> None:
        self.running = True
        for call, args, kwargs in self.whenRunningHooks:
            call(*args, **kwargs)


def test_ready_is_said_when_the_reactor_runs(manager: Manager) -> None:
    reactor = Running()
    notifier = Notifier(reactor, manager.env())
    notifier.started("listens: toy 1")
    assert manager.heard() == []
    reactor.run()
    assert manager.heard() == ["READY=1", "STATUS=listens: toy 1"]
    reactor.advance(3600)
    assert manager.heard() == []  # no watchdog was asked for
    notifier.stopping()
    notifier.stopped()
    assert manager.heard() == ["STOPPING=1", "STATUS=stopping"]


def test_signs_of_life_come_twice_as_often_as_they_must_until_all_has_stopped(manager: Manager) -> None:
    reactor = Running()
    notifier = Notifier(reactor, manager.env(WATCHDOG_USEC="4000000", WATCHDOG_PID=str(os.getpid())))
    assert notifier.ping_s == 2.0
    notifier.started("")
    reactor.run()
    manager.heard()
    assert manager.heard() == ["WATCHDOG=1"]
    reactor.advance(1.9)
    assert manager.heard() == []
    reactor.advance(0.1)
    assert manager.heard() == ["WATCHDOG=1"]
    notifier.stopping()
    manager.heard()
    reactor.advance(2)
    assert manager.heard() == ["WATCHDOG=1"]
    notifier.stopped()
    assert reactor.getDelayedCalls() == []


def test_one_who_stops_before_the_reactor_runs_is_not_ready(manager: Manager) -> None:
    reactor = Running()
    notifier = Notifier(reactor, manager.env(WATCHDOG_USEC="4000000"))
    notifier.started("")
    notifier.stopping()
    notifier.stopped()
    reactor.run()
    assert manager.heard() == ["STOPPING=1", "STATUS=stopping"]
    assert manager.heard() == []


@pytest.mark.parametrize("watchdog", [{"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}])
def test_a_watchdog_of_another_process_or_of_no_number_is_none(watchdog: dict[str, str]) -> None:
    assert Notifier(Running(), dict(watchdog)).ping_s == 0.0


def test_without_a_manager_nothing_happens(logs: list[LogEvent]) -> None:
    reactor = Running()
    notifier = Notifier(reactor, {"WATCHDOG_USEC": "1000"})
    notifier.started("")
    reactor.run()
    notifier.stopping()
    notifier.stopped()
    assert reactor.getDelayedCalls() == [] and logs == []


def test_our_children_do_not_speak_for_us() -> None:
    env = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    Notifier(Running(), env)
    assert env == {"HOME": "/"}


def test_a_manager_that_does_not_hear_is_logged_once(tmp_path: Path, logs: list[LogEvent]) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "2000000"}
    reactor = Running()
    notifier = Notifier(reactor, env)
    notifier.started("")
    reactor.run()
    reactor.pump([1, 1, 1])
    notifier.stopped()
    assert [event["log_format"] for event in logs] == ["cannot notify {address}: {error}"]


def test_what_listens_is_listed_by_port() -> None:
    top = MultiService()
    for name, port in (("proxy", 15000), (None, 3), ("origin", 15002)):
        inner, part = MultiService(), Service()
        part.port_number = port  # type: ignore[attr-defined]
        if name:
            part.setName(name)
        part.setServiceParent(inner)
        inner.setServiceParent(top)
    Service().setServiceParent(top)
    assert listening(top) == "proxy 15000, origin 15002"


# ---- real daemons


def start(folder: Path, plugin: str, *args: str, env: dict[str, str]) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("NOTIFY_", "WATCHDOG_"))}
    argv = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", plugin, "--data-dir=data"]
    return subprocess.Popen(
        [*argv, *args],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> str:
    """SIGTERM; what it has said."""
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=10)
    return said


ANY_PORT = {
    "kraken-testfs": ("--port=0",),
    "kraken-agent": tuple(f"--{name}-port=0" for name in ("agent-registry", "peer", "agent-server")),
}


@pytest.mark.integration
@pytest.mark.parametrize("plugin", ANY_PORT)
def test_a_daemon_is_ready_once_it_listens_and_gives_signs_of_life(
    manager: Manager, tmp_path: Path, plugin: str
) -> None:
    process = start(tmp_path, plugin, *ANY_PORT[plugin], env=manager.env(WATCHDOG_USEC="400000"))
    try:
        ready, status = manager.heard(within_s=20)
        assert ready == "READY=1"
        assert status.startswith("STATUS=listens: ")
        ports = [int(word) for word in status.replace(",", "").split() if word.isdecimal()]
        assert len(ports) == len(ANY_PORT[plugin])
        for port in ports:
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
        assert manager.heard(within_s=2) == ["WATCHDOG=1"]
        assert manager.heard(within_s=2) == ["WATCHDOG=1"]

        process.send_signal(signal.SIGSTOP)
        while manager.heard(within_s=0.5):
            pass  # what was under way
        assert manager.heard(within_s=0.6) == []
        process.send_signal(signal.SIGCONT)
        assert manager.heard(within_s=2) == ["WATCHDOG=1"]
    finally:
        process.send_signal(signal.SIGCONT)
        said = end(process)
    last = list(iter(manager.heard, []))
    assert ["STOPPING=1", "STATUS=stopping"] in last
    assert "Traceback" not in said


@pytest.mark.integration
def test_a_daemon_that_cannot_listen_is_never_ready(manager: Manager, tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as holder:
        port = holder.getsockname()[1]
        process = start(tmp_path, "kraken-testfs", f"--port={port}", env=manager.env())
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 1 and f"port {port}" in said
    assert manager.heard() == []
