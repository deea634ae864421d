"""A herd and agents as real twistd processes on free ports, for the tests of clients and for the benchmark."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from tests.ports import free_ports

ROOT = Path(__file__).resolve().parents[1]
_TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
_READY_WITHIN_S = 60.0
_STOP_WITHIN_S = 15.0
_POLL_S = 0.1
_ANSWER_WITHIN_S = 30.0


class NotStarted(Exception):
    """A process ended, or never became ready; the text holds the end of its log."""


@frozen
class Answer:
    """What a server said. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of the registry's error body."""
        assert self.headers["content-type"] == "application/json"
        (error,) = self.json()["errors"]
        assert error["message"]
        return str(error["code"])


def request(port: int, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
    """One request on a connection of its own.

    Args:
        body: bytes, or an iterator over the parts of a body whose length nobody is told.

    Raises:
        OSError, http.client.HTTPException: no answer, or one that is cut.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_WITHIN_S)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


@define(eq=False)
class Daemon:
    """One twistd process; `start` and `stop` may be called again and again, its data stays.

    Args:
        plugin: name for twistd, and of its log.
        argv: options of the plugin.
        checks: (port, path) of what must answer 200 before it counts as started.
    """

    folder: Path
    plugin: str
    argv: Sequence[str]
    checks: Sequence[tuple[int, str]]
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def log(self) -> Path:
        """All that it printed, over all its runs."""
        return self.folder / f"{self.plugin}.log"

    @property
    def running(self) -> bool:
        """It was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process that runs, or ran last."""
        if self.process is None:
            raise NotStarted(self.plugin)
        return self.process.pid

    def start(self, *, wait: bool = True) -> None:
        """Start it unless it runs, and wait until it is ready.

        Raises:
            NotStarted
        """
        if not self.running:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as out:
                self.process = subprocess.Popen(
                    [*_TWISTD, "-n", self.plugin, *self.argv],
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    cwd=ROOT,
                    start_new_session=True,
                )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Return when every check answers 200.

        Raises:
            NotStarted
        """
        deadline = time.monotonic() + _READY_WITHIN_S
        for port, path in self.checks:
            while not _answers(port, path):
                if not self.running:
                    raise NotStarted(f"{self.plugin} ended:\n{self.last_words()}")
                if time.monotonic() > deadline:
                    raise NotStarted(f"{self.plugin}: nothing good at port {port} {path}:\n{self.last_words()}")
                time.sleep(_POLL_S)

    def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL for one that does not listen."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(_STOP_WITHIN_S)

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else "(no log)"


@define(eq=False)
class Herd(Daemon):
    """The central components in one process."""

    testfs_port: int = 0
    proxy_port: int = 0
    peer_port: int = 0
    origin_port: int = 0
    tracker_port: int = 0
    index_port: int = 0
    management_port: int = 0

    @classmethod
    def make(cls, folder: Path, settings: Mapping[str, Any] | None = None, *, peer_ip: str = "127.0.0.1") -> Herd:
        """A herd that is not started yet.

        Args:
            settings: of herd.yaml, section by section; laid over the ports.
        """
        testfs, proxy, peer, origin, tracker, index, management = free_ports(7)
        sections: dict[str, dict[str, Any]] = {
            "testfs": {"port": testfs},
            "origin": {"port": origin, "peer_port": peer, "peer_ip": peer_ip},
            "tracker": {"port": tracker},
            "build_index": {"port": index},
            "proxy": {"port": [proxy], "server": {"port": management}},
        }
        for section, values in (settings or {}).items():
            sections.setdefault(section, {}).update(values)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "herd.yaml").write_text(json.dumps(sections, indent=1))  # YAML is a superset of JSON
        return cls(
            folder,
            "kraken-herd",
            (f"--config={folder / 'herd.yaml'}", f"--data-dir={folder / 'data'}"),
            [(testfs, "/health"), *((port, "/readiness") for port in (origin, tracker, index)), (proxy, "/v2/")],
            testfs_port=testfs,
            proxy_port=proxy,
            peer_port=peer,
            origin_port=origin,
            tracker_port=tracker,
            index_port=index,
            management_port=management,
        )

    @property
    def proxy(self) -> str:
        """Address of the registry to push to."""
        return f"127.0.0.1:{self.proxy_port}"


@define(eq=False)
class Agent(Daemon):
    """One agent. `port` is that of its registry."""

    port: int = 0
    peer_port: int = 0
    management_port: int = 0

    @classmethod
    def make(cls, folder: Path, herd: Herd, *extra: str) -> Agent:
        """An agent of that herd, not started yet; `extra` options may override all others."""
        registry, peer, management = free_ports(3)
        argv = (
            f"--data-dir={folder / 'data'}",
            f"--agent-registry-port={registry}",
            f"--peer-port={peer}",
            f"--agent-server-port={management}",
            "--peer-ip=127.0.0.1",
            f"--tracker=127.0.0.1:{herd.tracker_port}",
            f"--build-index=127.0.0.1:{herd.index_port}",
            f"--fallback=127.0.0.1:{herd.origin_port}",
        )
        return cls(
            folder,
            "kraken-agent",
            (*argv, *extra),
            [(management, "/readiness"), (registry, "/v2/")],
            port=registry,
            peer_port=peer,
            management_port=management,
        )

    @property
    def registry(self) -> str:
        """Address to pull from."""
        return f"127.0.0.1:{self.port}"


@define(eq=False)
class Cluster:
    """A herd and its agents, all running."""

    herd: Herd
    agents: list[Agent]

    @property
    def proxy(self) -> str:
        """Address to push to, without scheme."""
        return self.herd.proxy

    @property
    def pids(self) -> list[int]:
        """Of all processes."""
        return [daemon.pid for daemon in (self.herd, *self.agents)]

    @classmethod
    @contextlib.contextmanager
    def start(
        cls, folder: Path, agents: int, *, herd: Herd | None = None, agent_options: Sequence[str] = ()
    ) -> Iterator[Cluster]:
        """Start all, and stop them at the end of the block.

        Args:
            folder: data and logs, one folder for each process.
            herd: one made with other settings.

        Raises:
            NotStarted
        """
        herd = herd or Herd.make(folder / "herd")
        cluster = cls(herd, [Agent.make(folder / f"agent-{n + 1}", herd, *agent_options) for n in range(agents)])
        try:
            herd.start()
            for agent in cluster.agents:
                agent.start(wait=False)
            for agent in cluster.agents:
                agent.wait_ready()
            yield cluster
        finally:
            for daemon in (*cluster.agents, herd):
                daemon.stop()


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
