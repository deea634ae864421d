"""Fixtures and rules for all tests."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
import treq
from attrs import frozen
from hypothesis import settings
from twisted.application.service import IService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.web.client import Agent
from twisted.web.http_headers import Headers

from tests.cluster import Cluster

# Examples are small, yet a busy machine may stall any of them: a deadline would only make tests flicker.
settings.register_profile("krakentx", deadline=None)
settings.load_profile("krakentx")

_CLIENTS_REQUIRED = os.environ.get("KRAKEN_REQUIRE_CLIENTS") == "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """Under KRAKEN_REQUIRE_CLIENTS=1 a test that skips itself fails: that machine is meant to have every program."""
    report = yield
    if _CLIENTS_REQUIRED and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason} (KRAKEN_REQUIRE_CLIENTS=1 allows no skip)"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many vectors of the reference were checked: a test counts one by `record_property("vectors", table)`."""
    counts = Counter(
        str(value)
        for report in terminalreporter.stats.get("passed", [])
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == "vectors"
    )
    if counts:
        tables = ", ".join(f"{table} {count}" for table, count in sorted(counts.items()))
        terminalreporter.write_sep("-", "vectors of the reference")
        terminalreporter.write_line(f"{sum(counts.values())} checks passed: {tables}")


@pytest.fixture
def clock() -> Clock:
    """Time that moves only when told."""
    return Clock()


@pytest.fixture
def rng() -> random.Random:
    """Randomness that is the same in every run."""
    return random.Random(20240)


@pytest.fixture
def logs() -> Iterator[list[LogEvent]]:
    """The log events of the test; it fails when one of them is an error that the test did not take out."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    try:
        yield events
    finally:
        globalLogPublisher.removeObserver(events.append)
    errors = [event for event in events if event.get("log_level") in (LogLevel.error, LogLevel.critical)]
    assert errors == []


Start = Callable[[Any], Awaitable[Any]]


@pytest_twisted.async_yield_fixture
async def start() -> AsyncIterator[Start]:
    """Starts a service and gives it back; what still runs is stopped at the end of the test, the last one first."""
    running: list[IService] = []

    async def run(service: Any) -> Any:
        running.append(service)
        service.privilegedStartService()
        await maybeDeferred(service.startService)
        return service

    yield run
    for service in reversed(running):
        if service.running:
            await maybeDeferred(service.stopService)


@frozen
class Answer:
    """What a server said."""

    status: int
    headers: Headers
    body: bytes


Fetch = Callable[..., Awaitable[Answer]]


@pytest.fixture
def fetch() -> Fetch:
    """`await fetch(method, url, data=..., headers=...)` over a real socket; redirects are not followed."""
    from twisted.internet import reactor

    async def ask(method: str, url: str, *, data: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        client = treq.client.HTTPClient(Agent(reactor))
        response = await client.request(
            method, url, data=data, headers=headers, timeout=20, allow_redirects=False, unbuffered=True
        )
        return Answer(response.code, response.headers, await response.content())

    return ask


class RawClient(Protocol):
    """A TCP client that says exactly what it is told to."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.lost = False
        self._waiters: list[Deferred[None]] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._wake()

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)

    def send(self, data: bytes) -> None:
        """Write."""
        self.transport.write(data)

    def drop(self) -> None:
        """Reset the connection."""
        self.transport.abortConnection()

    async def until(self, wanted: bytes, timeout_s: float = 5.0) -> bytes:
        """All that was received, once `wanted` is in it."""
        while wanted not in self.received:
            assert not self.lost, f"connection lost before {wanted!r}: {self.received[:2000]!r}"
            await self._change(timeout_s)
        return bytes(self.received)

    async def closed(self, timeout_s: float = 5.0) -> bytes:
        """All that was received until the other side closed."""
        while not self.lost:
            await self._change(timeout_s)
        return bytes(self.received)

    async def _change(self, timeout_s: float) -> None:
        from twisted.internet import reactor

        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        await waiter.addTimeout(timeout_s, reactor, onTimeoutCancel=self._late)

    def _late(self, _result: object, timeout_s: float) -> None:
        raise AssertionError(f"nothing for {timeout_s} s after {self.received[-500:]!r}")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A herd and two agents as processes on free ports. A test that stops one of them starts it again."""
    with Cluster.start(tmp_path_factory.mktemp("cluster"), agents=2) as cluster:
        yield cluster


@pytest_twisted.async_yield_fixture
async def serve():  # type: ignore[no-untyped-def]
    """Put a resource on a port of the loopback: `serve(resource).port_number`. Stopped after the test."""
    from twisted.internet import reactor

    from krakentx.web.service import HttpService

    running: list[HttpService] = []

    def start(resource: object, name: str = "test", **options: object) -> HttpService:
        service = HttpService(name, resource, 0, "127.0.0.1", reactor=reactor, drain_s=0.2, **options)
        service.startService()
        running.append(service)
        return service

    yield start
    for service in running:
        await service.stopService()


@pytest_twisted.async_yield_fixture
async def http():  # type: ignore[no-untyped-def]
    """An HTTP client on the real reactor."""
    from twisted.internet import reactor

    from krakentx.web.client import HttpClient

    client = HttpClient(reactor, timeout_s=10.0, stall_s=5.0)
    yield client
    await client.close()


@pytest_twisted.async_yield_fixture
async def dial():  # type: ignore[no-untyped-def]
    """Connect a RawClient: `await dial(port)`. Dropped after the test."""
    from twisted.internet import reactor
    from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

    open_: list[RawClient] = []

    async def connect(port: int) -> RawClient:
        client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), RawClient())
        open_.append(client)
        return client

    yield connect
    for client in open_:
        if not client.lost:
            client.drop()
            await client.closed()
