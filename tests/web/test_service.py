"""An endpoint as a service: taken ports, draining, and small helpers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from krakentx.core.digest import Digest
from krakentx.core.errors import ConfigError, InvalidInput, Unavailable
from krakentx.web.app import new_app
from krakentx.web.health import add_health
from krakentx.web.metrics import HttpMetrics, Metrics, add_metrics
from krakentx.web.params import json_value, path_digest, path_value, query_bool, query_int, query_value, seconds_of
from krakentx.web.ports import holder_of
from krakentx.web.replies import reply_text
from krakentx.web.service import HttpService

ensure = pytest_twisted.ensureDeferred


def seconds(amount: float) -> Deferred[None]:
    from twisted.internet import reactor

    return deferLater(reactor, amount, lambda: None)  # type: ignore[arg-type]


class Waiting:
    """An app with one route that waits for the test."""

    def __init__(self) -> None:
        self.app = new_app("plain")
        self.gate: Deferred[None] = Deferred()

        @self.app.route("/wait")
        async def wait(request: Any) -> bytes:
            await self.gate
            return reply_text(request, "done")


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


def service_of(app: Any, port: int = 0, **options: Any) -> HttpService:
    from twisted.internet import reactor

    return HttpService("proxy", app.resource(), port, "127.0.0.1", reactor=reactor, **options)


@ensure
async def test_a_taken_port_is_one_line_with_the_holder_and_what_to_change(waiting: Waiting) -> None:
    first = service_of(waiting.app)
    first.startService()
    with pytest.raises(ConfigError) as caught:
        service_of(waiting.app, first.port_number, setting="--port").startService()
    text = str(caught.value)
    assert f"proxy: port {first.port_number} of 127.0.0.1 is taken by process {os.getpid()} (" in text
    assert text.endswith("stop that, or choose another one (--port)") and "\n" not in text
    await first.stopService()


@ensure
async def test_an_address_that_is_not_ours(waiting: Waiting) -> None:
    from twisted.internet import reactor

    service = HttpService("proxy", waiting.app.resource(), 0, "192.0.2.1", reactor=reactor)
    with pytest.raises(ConfigError, match=r"cannot listen on port 0 of 192\.0\.2\.1"):
        service.startService()


def test_nobody_holds_a_free_port(tmp_path: Path) -> None:
    assert holder_of(1, tmp_path) == "another process"


@ensure
async def test_no_interface_is_every_one_of_both_families(start: Any, http: Any) -> None:
    from twisted.internet import reactor

    app = new_app("plain")

    @app.route("/who")
    def who(request: Any) -> bytes:
        return reply_text(request, request.getClientAddress().host)

    service = await start(HttpService("any", app.resource(), 0, reactor=reactor))
    for host, seen in (("127.0.0.1", b"127.0.0.1"), ("[::1]", b"::1")):
        assert (await http.request("GET", f"http://{host}:{service.port_number}/who")).body == seen


@ensure
async def test_requests_at_work_end_before_the_service_does(waiting: Waiting, dial: Any) -> None:
    service = service_of(waiting.app, drain_s=5.0)
    service.startService()
    idle, busy = await dial(service.port_number), await dial(service.port_number)
    busy.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
    await seconds(0.05)
    stopping = service.stopService()
    await idle.closed(1.0)
    await seconds(0.05)
    assert not busy.lost and not stopping.called
    waiting.gate.callback(None)
    assert (await busy.closed(1.0)).endswith(b"done")
    await stopping


@ensure
async def test_requests_that_do_not_end_are_cut(waiting: Waiting, dial: Any) -> None:
    service = service_of(waiting.app, drain_s=0.1)
    service.startService()
    busy = await dial(service.port_number)
    busy.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
    await seconds(0.05)
    await service.stopService()
    assert await busy.closed(1.0) == b""


@ensure
async def test_a_service_starts_again(waiting: Waiting, http: Any) -> None:
    service = service_of(waiting.app)
    for _ in range(2):
        service.privilegedStartService()
        service.startService()
        assert (await http.request("GET", f"http://127.0.0.1:{service.port_number}/x", ok=None)).status == 404
        await service.stopService()


# -- health


async def fine() -> None:
    return None


async def broken() -> None:
    raise Unavailable("tracker:15003", "connection refused")


async def buggy() -> None:
    raise ZeroDivisionError


async def never() -> None:
    await Deferred()


@ensure
async def test_health_and_readiness(serve: Any, http: Any, logs: Any) -> None:
    from twisted.internet import reactor

    app = new_app("plain")
    checks = {"scheduler": fine, "build-index": broken, "tracker": buggy, "origin": never}
    add_health(app, reactor=reactor, ready=checks, not_ready="agent not ready", end="", timeout_s=0.1)
    url = f"http://127.0.0.1:{serve(app.resource()).port_number}"
    assert (await http.request("GET", url + "/health")).body == b"OK"
    answer = await http.request("GET", url + "/readiness", ok=(503,))
    assert answer.body.decode().split("\n") == [
        "agent not ready: build-index: tracker:15003 is unavailable: connection refused",
        "tracker: internal error",
        "origin: no answer within 0.1 s",
    ]
    checks.clear()
    assert (await http.request("GET", url + "/readiness")).body == b"OK"
    logs[:] = [event for event in logs if not event.get("log_failure")]


@ensure
async def test_health_asks_when_there_is_something_to_ask(serve: Any, http: Any) -> None:
    from twisted.internet import reactor

    app = new_app("plain")
    add_health(app, reactor=reactor, alive=broken)
    url = f"http://127.0.0.1:{serve(app.resource()).port_number}"
    assert (await http.request("GET", url + "/health", ok=None)).status == 500
    assert (await http.request("GET", url + "/readiness", ok=None)).status == 404


# -- metrics


@ensure
async def test_requests_are_counted(serve: Any, http: Any) -> None:
    metrics = Metrics("build-index")
    metrics.gauge("tags", "Tags here.").set(7)
    app = new_app("plain")
    add_metrics(app, metrics)
    url = f"http://127.0.0.1:{serve(app.resource(), metrics=HttpMetrics(metrics)).port_number}"
    await http.request("GET", url + "/x", ok=(404,))
    await http.request("BREW", url + "/x", ok=None)
    text = (await http.request("GET", url + "/metrics")).body.decode()
    assert "kraken_build_index_tags 7.0" in text
    assert 'kraken_build_index_http_requests_total{method="GET",status="404"} 1.0' in text
    assert 'method="other"' in text and "BREW" not in text


# -- parameters


@pytest.mark.parametrize("value", ["test/alpine:1", "test%2Falpine%3A1", "test%2falpine:1"])
def test_one_and_two_escapes_are_one_value(value: str) -> None:
    assert path_value("tag", value) == "test/alpine:1"


def test_empty_and_broken_parameters() -> None:
    with pytest.raises(InvalidInput, match="param tag is required"):
        path_value("tag", "")
    with pytest.raises(InvalidInput, match="path unescape tag"):
        path_value("tag", "%ff")


def test_digests_in_either_case_and_bare() -> None:
    digest = Digest.of(b"x")
    for text in (str(digest), f"sha256:{digest.hex.upper()}", f"sha256%3A{digest.hex}"):
        assert path_digest(text) == digest
    assert path_digest(digest.hex, bare=True) == digest
    with pytest.raises(InvalidInput):
        path_digest(digest.hex)


class Query:
    def __init__(self, **args: str) -> None:
        self.args = {name.encode(): [value.encode()] for name, value in args.items()}


def test_query_values() -> None:
    assert query_value(Query(), "n") is None
    assert query_int(Query(n="12"), "n") == 12
    assert query_int(Query(), "n", 5) == 5
    assert query_int(Query(n="-3"), "n", minimum=-5) == -3
    assert (query_bool(Query(r="true"), "r"), query_bool(Query(r="0"), "r"), query_bool(Query(), "r")) == (
        True,
        False,
        False,
    )
    for bad in ("", "x", "1.5", "-1", "9" * 30, "--1", "²"):
        with pytest.raises(InvalidInput):
            query_int(Query(n=bad), "n")
    with pytest.raises(InvalidInput):
        query_bool(Query(r="maybe"), "r")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 50_000, b"9" * 5000, b"[1]x"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="not JSON"):
        json_value(body)


def test_durations_of_a_body_are_whole_nanoseconds() -> None:
    assert (seconds_of("Delay", 1_500_000_000), seconds_of("Delay", 0)) == (1.5, 0.0)
    for bad in (-1, 1.5, True, "5m", None, 10**400):
        with pytest.raises(InvalidInput, match="Delay"):
            seconds_of("Delay", bad)


@ensure
async def test_rest_of_a_path_may_be_anything(serve: Any, http: Any) -> None:
    app = new_app("plain")

    @app.route("/list/<rest:prefix>")
    def listing(request: Any, prefix: str) -> bytes:
        return reply_text(request, f"[{prefix}]")

    @app.route("/tags/<path:tag>/digest/<digest>", methods=["GET"])
    def tag(request: Any, tag: str, digest: str) -> bytes:
        return reply_text(request, f"{path_value('tag', tag)} {path_digest(digest)}")

    url = f"http://127.0.0.1:{serve(app.resource()).port_number}"
    for path, prefix in (("/list/", ""), ("/list//repo/_m", "/repo/_m"), ("/list/a%2Fb", "a/b"), ("/list/a/b", "a/b")):
        assert (await http.request("GET", url + path)).body.decode() == f"[{prefix}]"
    digest = Digest.of(b"x")
    for path in (f"a%2Fb:1/digest/{digest}", f"a%252Fb%253A1/digest/sha256%253A{digest.hex}"):
        assert (await http.request("GET", f"{url}/tags/{path}")).body.decode() == f"a/b:1 {digest}"
