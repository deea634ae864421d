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
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.web.client import Agent
from twisted.web.http_headers import Headers

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
    """Starts a service and gives it back; all of them are stopped at the end of the test, the last one first."""
    running: list[IService] = []

    async def run(service: Any) -> Any:
        running.append(service)
        service.privilegedStartService()
        await maybeDeferred(service.startService)
        return service

    yield run
    for service in reversed(running):
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
