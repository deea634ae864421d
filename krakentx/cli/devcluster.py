"""`krakentx devcluster`: a herd and two agents on this machine, as three twistd processes, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import treq
from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.internet.error import ConnectError, ConnectionClosed, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater, react
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from krakentx.cli.twistd import die, try_port, usable_folder
from krakentx.core.errors import ConfigError

_TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
_READY_WITHIN_S = 90.0
_POLL_S = 0.25
_ANSWER_WITHIN_S = 3.0
_TERM_PATIENCE_S = 3.5  # with the second for SIGKILL below, all ends within 5 s
_KILL_PATIENCE_S = 1.0
_LAST_WORDS_BYTES = 4096


@frozen
class Part:
    """One process of the cluster.

    Args:
        argv: plugin name and options for twistd.
        ports: every port it listens on.
        health: what must answer 200 before it counts as ready, name -> URL.
    """

    name: str
    argv: tuple[str, ...]
    ports: tuple[int, ...]
    health: dict[str, str]


@define(eq=False)
class Child(ProcessProtocol):
    """A running part; remembers the last thing it said on stderr."""

    part: Part
    alive: bool = True
    exit: str = ""
    _said: bytes = b""
    _waiting: list[Deferred[Child]] = field(factory=list)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._said = (self._said + data)[-_LAST_WORDS_BYTES:]

    def processEnded(self, reason: Failure) -> None:
        self.alive = False
        status: Any = reason.value
        self.exit = f"signal {status.signal}" if status.signal else f"exit code {status.exitCode}"
        for waiter in self._waiting:
            waiter.callback(self)
        self._waiting.clear()

    def when_ended(self) -> Deferred[Child]:
        """Fires with this child once it has ended."""
        waiter: Deferred[Child] = Deferred(self._waiting.remove)
        if self.alive:
            self._waiting.append(waiter)
        else:
            waiter.callback(self)
        return waiter

    def signal(self, name: str) -> None:
        """Send it a signal, unless it has ended."""
        try:
            if self.transport is not None and self.alive:
                self.transport.signalProcess(name)
        except ProcessExitedAlready:
            pass

    @property
    def last_words(self) -> str:
        """Its last line on stderr, without the `error: ` before it."""
        lines = self._said.decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else ""


class DevCluster:
    """Starts the parts, waits for them, tells when one ends, stops them all."""

    def __init__(self, parts: Sequence[Part], logs: Path, *, reactor: Any) -> None:
        self._parts = parts
        self._logs = logs
        self._reactor = reactor
        self._children: list[Child] = []
        self._stopping = False

    async def start(self) -> None:
        """Start everything, and return when all of it answers.

        Raises:
            ConfigError: a port is taken, a part ended, or one does not answer in time.
        """
        for part in self._parts:
            for port in part.ports:
                try_port(port, "KRAKEN_PORT_OFFSET=1000, which is added to every port")
        for part in self._parts:
            child = Child(part)
            self._children.append(child)
            argv = [*_TWISTD, "-n", f"--logfile={self._log_of(part)}", *part.argv]
            self._reactor.spawnProcess(child, argv[0], argv, env=dict(os.environ))
        deadline = self._reactor.seconds() + _READY_WITHIN_S
        for child in self._children:
            await self._healthy(child, deadline)
        for child in self._children:
            child.when_ended().addCallback(self._tell_end)

    def stop(self) -> Deferred[None]:
        """End every part: SIGTERM, and SIGKILL for one that does not listen. Fires when they are gone."""
        self._stopping = True
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for name, patience_s in (("TERM", _TERM_PATIENCE_S), ("KILL", _KILL_PATIENCE_S)):
            alive = [child for child in self._children if child.alive]
            for child in alive:
                child.signal(name)
            try:
                await gatherResults([child.when_ended() for child in alive]).addTimeout(patience_s, self._reactor)
            except TimeoutError:
                continue

    async def _healthy(self, child: Child, deadline: float) -> None:
        for what, url in child.part.health.items():
            while not await self._answers(url):
                if self._stopping:
                    return
                dead = next((other for other in self._children if not other.alive), None)
                if dead is not None:
                    raise ConfigError(f"{dead.part.name} ended with {dead.exit}: {self._story(dead)}")
                if self._reactor.seconds() > deadline:
                    log = self._log_of(child.part)
                    raise ConfigError(f"{what} does not answer at {url}; the log of {child.part.name} is {log}")
                await deferLater(self._reactor, _POLL_S)

    async def _answers(self, url: str) -> bool:
        try:
            response = await treq.get(url, timeout=_ANSWER_WITHIN_S, persistent=False, reactor=self._reactor)
            await treq.content(response)
        except (ConnectError, ConnectionClosed, CancelledError, TimeoutError, ResponseFailed):
            return False
        return bool(response.code == 200)

    def _tell_end(self, child: Child) -> None:
        if not self._stopping:
            print(f"{child.part.name} ended with {child.exit}: {self._story(child)}", flush=True)

    def _story(self, child: Child) -> str:
        return child.last_words or f"its log is {self._log_of(child.part)}"

    def _log_of(self, part: Part) -> Path:
        return self._logs / f"{part.name}.log"


def herd_part(data: Path, offset: int) -> Part:
    """The central components, with `offset` added to every port."""
    testfs, proxy, peer, origin, tracker, index, management = (
        base + offset for base in (14000, 15000, 15001, 15002, 15003, 15004, 15005)
    )
    return Part(
        "herd",
        (
            "kraken-herd",
            f"--data-dir={data / 'herd'}",
            "--peer-ip=127.0.0.1",
            f"--testfs-port={testfs}",
            f"--port={proxy}",
            f"--peer-port={peer}",
            f"--blobserver-port={origin}",
            f"--tracker-port={tracker}",
            f"--build-index-port={index}",
            f"--server-port={management}",
        ),
        (testfs, proxy, peer, origin, tracker, index, management),
        {
            "testfs": f"http://127.0.0.1:{testfs}/health",
            "origin": f"http://127.0.0.1:{origin}/health",
            "tracker": f"http://127.0.0.1:{tracker}/health",
            "build-index": f"http://127.0.0.1:{index}/health",
            "proxy": f"http://127.0.0.1:{proxy}/v2/",
            "proxy management": f"http://127.0.0.1:{management}/health",
        },
    )


def agent_part(number: int, data: Path, offset: int) -> Part:
    """Agent 1 on 16000-16002, agent 2 on 17000-17002, and so on."""
    registry, peer, server = (15000 + number * 1000 + offset + step for step in range(3))
    argv = (
        "kraken-agent",
        f"--data-dir={data / f'agent-{number}'}",
        f"--agent-registry-port={registry}",
        f"--peer-port={peer}",
        f"--agent-server-port={server}",
        "--peer-ip=127.0.0.1",
        f"--tracker=127.0.0.1:{15003 + offset}",
        f"--build-index=127.0.0.1:{15004 + offset}",
        f"--fallback=127.0.0.1:{15002 + offset}",
    )
    health = {
        f"agent {number}": f"http://127.0.0.1:{server}/readiness",
        f"the registry of agent {number}": f"http://127.0.0.1:{registry}/v2/",
    }
    return Part(f"agent-{number}", argv, (registry, peer, server), health)


def ready_text(offset: int) -> str:
    """What is printed once everything answers."""
    proxy, first, second = (f"localhost:{port + offset}" for port in (15000, 16000, 17000))
    return f"""\
ready: push to {proxy}, pull from the agents {first} and {second}; Ctrl-C stops all of it. Try:
  docker pull alpine && docker tag alpine {proxy}/library/alpine && docker push {proxy}/library/alpine
  docker pull {first}/library/alpine
  skopeo copy --src-tls-verify=false docker://{second}/library/alpine dir:/tmp/alpine
  skopeo copy --dest-tls-verify=false docker-archive:image.tar docker://{proxy}/company/app:v1"""


def add(verbs: Any) -> None:
    """Add this verb to the parser's `verbs`."""
    parser = verbs.add_parser("devcluster", help="run a herd and two agents on this machine until Ctrl-C")
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("KRAKEN_DATA") or ".devcluster",
        help="folder for everything kept on disk (KRAKEN_DATA, else .devcluster)",
    )
    parser.add_argument(
        "--port-offset",
        type=int,
        default=os.environ.get("KRAKEN_PORT_OFFSET") or "0",
        help="added to every port, to run beside another cluster (KRAKEN_PORT_OFFSET)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the cluster until a signal comes."""
    data: Path = args.data.absolute()
    logs = data / "logs"
    usable_folder(logs, "choose a folder with KRAKEN_DATA=DIR")
    parts = [herd_part(data, args.port_offset), *(agent_part(n, data, args.port_offset) for n in (1, 2))]

    async def main(reactor: Any) -> None:
        cluster = DevCluster(parts, logs, reactor=reactor)
        reactor.addSystemEventTrigger("before", "shutdown", cluster.stop)
        print(f"starting {', '.join(part.name for part in parts)}; data in {args.data}, logs in {logs}", flush=True)
        try:
            await cluster.start()
        except ConfigError as error:
            await cluster.stop()
            die(str(error))
        print(ready_text(args.port_offset), flush=True)
        await Deferred()  # the reactor's own signal handlers end it

    react(main)
