"""Daemons on hosts of their own, on the ports of the deployment guide."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import define, field

from tests.cluster import Daemon
from tests.testbed.hosts import Host

TESTFS, PROXY, PEER, ORIGIN, TRACKER, INDEX, MANAGEMENT = 14000, 15000, 15001, 15002, 15003, 15004, 15005
REGISTRY, AGENT_PEER, AGENT_MANAGEMENT = 16000, 16001, 16002


@define(eq=False)
class HostDaemon(Daemon):
    """A daemon that runs on a host."""

    host: Host = field(kw_only=True)

    def start(self, *, wait: bool = True) -> None:
        """As `Daemon.start`, there."""
        with self.host.inside():
            super().start(wait=wait)

    def wait_ready(self) -> None:
        """As `Daemon.wait_ready`, asked there."""
        with self.host.inside():
            super().wait_ready()


def agent(host: Host, folder: Path, herd: str, *extra: str) -> HostDaemon:
    """An agent, told nothing but where the herd is: it finds its own address."""
    argv = (
        f"--data-dir={folder / 'data'}",
        f"--tracker={herd}:{TRACKER}",
        f"--build-index={herd}:{INDEX}",
        *extra,
    )
    checks = [(AGENT_MANAGEMENT, "/health"), (REGISTRY, "/v2/")]
    return HostDaemon(folder, "kraken-agent", argv, checks, host=host)


def herd(host: Host, folder: Path, settings: Mapping[str, Any] | None = None) -> HostDaemon:
    """All central parts in one process."""
    config = _written(folder / "herd.yaml", {"origin": {"peer_ip": host.ip}, **(settings or {})})
    checks = [(TESTFS, "/health"), *((port, "/readiness") for port in (ORIGIN, TRACKER, INDEX)), (PROXY, "/v2/")]
    argv = (f"--config={config}", f"--data-dir={folder / 'data'}")
    return HostDaemon(folder, "kraken-herd", argv, checks, host=host)


@define(eq=False)
class Parts:
    """The central parts, each a process of its own."""

    host: Host
    folder: Path
    testfs: HostDaemon = field(init=False)
    origin: HostDaemon = field(init=False)
    tracker: HostDaemon = field(init=False)
    index: HostDaemon = field(init=False)
    proxy: HostDaemon = field(init=False)

    def __attrs_post_init__(self) -> None:
        def backend(root: str, pather: str) -> list[dict[str, Any]]:
            testfs = {"addr": f"127.0.0.1:{TESTFS}", "root": root, "name_path": pather}
            return [{"namespace": ".*", "backend": {"testfs": testfs}}]

        self.testfs = self._part("testfs", [(TESTFS, "/health")])
        self.origin = self.make_origin(self.host.ip, backends=backend("blobs", "identity"))
        self.tracker = self._part("tracker", [(TRACKER, "/health")])
        self.index = self._part("build-index", [(INDEX, "/readiness")], backends=backend("tags", "docker_tag"))
        self.proxy = self._part("proxy", [(PROXY, "/v2/")], port=[PROXY], server={"port": MANAGEMENT})

    def make_origin(self, peer_ip: str, **settings: Any) -> HostDaemon:
        """The origin, which tells peers that address."""
        return self._part("origin", [(ORIGIN, "/readiness")], peer_ip=peer_ip, **settings)

    def _part(self, name: str, checks: list[tuple[int, str]], **settings: Any) -> HostDaemon:
        folder = self.folder / name
        config = _written(folder / f"{name}.yaml", settings)
        argv = (f"--config={config}", f"--data-dir={folder / 'data'}")
        return HostDaemon(folder, f"kraken-{name}", argv, checks, host=self.host)

    @property
    def all(self) -> tuple[HostDaemon, ...]:
        """In the order in which they need each other."""
        return (self.testfs, self.origin, self.tracker, self.index, self.proxy)

    def start(self) -> None:
        """Start what does not run, and wait for all."""
        for daemon in self.all:
            daemon.start(wait=False)
        for daemon in self.all:
            daemon.wait_ready()

    def kill(self) -> None:
        """End all as a power cut would."""
        for daemon in self.all:
            daemon.kill()

    def stop(self) -> None:
        """End all in good order."""
        for daemon in reversed(self.all):
            daemon.stop()


@contextlib.contextmanager
def running(*daemons: HostDaemon) -> Iterator[None]:
    """Start them all at once; at the end of the block they are stopped, the last one first."""
    try:
        for daemon in daemons:
            daemon.start(wait=False)
        for daemon in daemons:
            daemon.wait_ready()
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.stop()


def _written(path: Path, settings: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=1))  # YAML is a superset of JSON
    return path
