"""One herd in parts and four agents, each on a host with an address of its own, shared by all tests of this folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import frozen

from tests.bench.blobs import Blob
from tests.testbed import daemons
from tests.testbed.daemons import HostDaemon, Parts
from tests.testbed.hosts import Host, Hosts, skip_unless_possible
from tests.testbed.pulls import push

AGENTS = 4


@frozen
class Site:
    """What stands where."""

    hosts: Hosts
    parts: Parts
    agents: list[HostDaemon]

    @property
    def pullers(self) -> list[Host]:
        """The hosts of the agents."""
        return [agent.host for agent in self.agents]

    def mend(self) -> None:
        """Every cable in, nothing dropped, everything running."""
        for host in self.hosts:
            host.mend()
        self.parts.start()
        for agent in self.agents:
            agent.start()


@pytest.fixture(scope="session")
def whole_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Started once."""
    skip_unless_possible()
    folder = tmp_path_factory.mktemp("hosts")
    with Hosts.up(1 + AGENTS) as hosts, contextlib.ExitStack() as held:
        parts = Parts(hosts.herd, folder / "herd")
        agents = [daemons.agent(host, folder / host.name, hosts.herd.ip) for host in hosts if host is not hosts.herd]
        held.enter_context(daemons.running(*parts.all, *agents))
        yield Site(hosts, parts, agents)


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    """The site in order, and in order again afterwards."""
    yield whole_site
    whole_site.mend()


@pytest.fixture
def pushed(site: Site, tmp_path: Path) -> Callable[[int], Blob]:
    """Push a blob of so many bytes that no agent has."""
    return lambda size: push(site.hosts.herd, tmp_path, size)


Tell = Callable[[str], None]


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Have a line printed at the end of the run: what the test measured."""
    return lambda line: record_property("measured on hosts", line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured."""
    lines = [
        value
        for report in terminalreporter.stats.get("passed", [])
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == "measured on hosts"
    ]
    if lines:
        terminalreporter.write_sep("-", "measured on hosts")
        for line in lines:
            terminalreporter.write_line(str(line))
