"""The Site on real sockets: TLS hellos, streamed bodies, early answers, limits."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import LogLevel

from krakentx.web.app import new_app
from krakentx.web.bodies import HIGH_WATER, ClientGone, body_chunks, read_body
from krakentx.web.replies import reply_json, reply_text
from krakentx.web.site import KrakenRequest

TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(200)


def seconds(amount: float) -> Deferred[None]:
    from twisted.internet import reactor

    return deferLater(reactor, amount, lambda: None)  # type: ignore[arg-type]


class Uploads:
    """An app that takes bodies at a pace set by the test."""

    def __init__(self) -> None:
        self.app: Klein = new_app("registry")
        self.started: list[bytes] = []
        self.got = 0
        self.gate: Deferred[None] | None = None
        self.ends: list[type[BaseException]] = []

        @self.app.route("/slow/<path:name>", methods=["PUT", "POST"])
        async def slow(request: Any, name: str) -> bytes:
            self.started.append(request.path)
            try:
                async for data in body_chunks(request):
                    self.got += len(data)
                    if self.gate is not None:
                        await self.gate
            except BaseException as error:
                self.ends.append(type(error))
                raise
            return reply_json(request, {"got": self.got, "name": name})

        @self.app.route("/small", methods=["PUT"])
        async def small(request: Any) -> bytes:
            return reply_json(request, {"got": len(await read_body(request, 1000, "manifest"))})

        @self.app.route("/refuse", methods=["PUT"])
        async def refuse(request: Any) -> bytes:
            return reply_text(request, "no", 409)

        @self.app.route("/hello")
        def hello(request: Any) -> bytes:
            return reply_text(request, "hello")

        @self.app.route("/health")
        def health(request: Any) -> bytes:
            return reply_text(request, "OK")


@pytest.fixture
def uploads() -> Uploads:
    return Uploads()


@pytest_twisted.ensureDeferred
async def test_a_tls_hello_is_answered_at_once(uploads: Uploads, serve: Any, dial: Any) -> None:
    raw = await dial(serve(uploads.app.resource()).port_number)
    raw.send(TLS_HELLO)
    assert await raw.closed(timeout_s=1.0) == b"HTTP/1.0 400 Bad Request\r\n\r\n"


@pytest_twisted.ensureDeferred
async def test_the_route_runs_before_the_body_is_complete(uploads: Uploads, serve: Any, dial: Any) -> None:
    raw = await dial(serve(uploads.app.resource()).port_number)
    raw.send(b"PUT /slow/a%2Fb HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
    await seconds(0.05)
    assert (uploads.started, uploads.got) == ([b"/slow/a%2Fb"], 5)
    raw.send(b"67890")
    said = await raw.until(b"}")
    assert b'{"got": 10, "name": "a/b"}' in said
    assert b"Connection: close" not in said


@pytest_twisted.ensureDeferred
async def test_chunked_bodies_and_pipelined_requests(uploads: Uploads, serve: Any, dial: Any) -> None:
    raw = await dial(serve(uploads.app.resource()).port_number)
    chunked = b"POST /slow/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    raw.send(chunked + b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
    said = await raw.until(b"\r\n\r\nhello")
    assert b'"got": 5' in said
    raw.send(b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert (await raw.closed()).count(b"\r\n\r\nhello") == 2


@pytest_twisted.ensureDeferred
async def test_expect_100_is_continued(uploads: Uploads, serve: Any, dial: Any) -> None:
    raw = await dial(serve(uploads.app.resource()).port_number)
    raw.send(b"PUT /slow/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    await raw.until(b"HTTP/1.1 100 Continue\r\n\r\n")
    raw.send(b"ok")
    assert b'"got": 2' in await raw.until(b"}")


@pytest_twisted.ensureDeferred
async def test_a_slow_route_holds_the_client_back(uploads: Uploads, serve: Any, dial: Any) -> None:
    """Memory is bounded: at most what stands in `HIGH_WATER`, one read, and the kernel."""
    service = serve(uploads.app.resource())
    raw = await dial(service.port_number)
    uploads.gate = Deferred()
    total = 64 << 20
    raw.send(b"PUT /slow/x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total)
    raw.send(bytes(total))
    await seconds(0.3)
    (channel,) = service.site.channels
    waiting = channel.requests[0].body._waiting
    assert 0 < waiting < HIGH_WATER + (1 << 17)
    await seconds(0.1)
    assert channel.requests[0].body._waiting == waiting, "nothing more is read"
    gate, uploads.gate = uploads.gate, None
    gate.callback(None)
    assert b'"got": %d' % total in await raw.until(b"}")


@pytest_twisted.ensureDeferred
async def test_a_paused_connection_is_not_idle(uploads: Uploads, serve: Any, dial: Any) -> None:
    raw = await dial(serve(uploads.app.resource(), idle_s=0.2).port_number)
    uploads.gate = Deferred()
    raw.send(b"PUT /slow/x HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n" + bytes(4000000))
    await seconds(0.5)
    gate, uploads.gate = uploads.gate, None
    gate.callback(None)
    assert b'"got": 4000000' in await raw.until(b"}")


@pytest_twisted.ensureDeferred
async def test_a_client_that_vanishes_midway_cancels_the_route(uploads: Uploads, serve: Any, dial: Any) -> None:
    raw = await dial(serve(uploads.app.resource()).port_number)
    raw.send(b"PUT /slow/x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
    await seconds(0.05)
    raw.drop()
    await seconds(0.05)
    assert uploads.ends == [CancelledError]
    assert uploads.got == 5


@pytest_twisted.ensureDeferred
async def test_a_task_that_outlives_its_route_sees_the_end_of_the_body(serve: Any, dial: Any) -> None:
    ends: list[BaseException] = []
    got: list[bytes] = []
    app = new_app("plain")

    @app.route("/x", methods=["PUT"])
    async def x(request: Any) -> None:
        async def work() -> None:
            try:
                async for data in body_chunks(request):
                    got.append(data)
            except ClientGone as error:
                ends.append(error)

        Deferred.fromCoroutine(work())
        await Deferred()

    raw = await dial(serve(app.resource()).port_number)
    raw.send(b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
    await seconds(0.05)
    raw.drop()
    await seconds(0.05)
    assert (b"".join(got), len(ends)) == (b"12345", 1)


@pytest_twisted.ensureDeferred
async def test_a_length_above_the_limit_is_refused_before_the_body(uploads: Uploads, serve: Any, dial: Any) -> None:
    raw = await dial(serve(uploads.app.resource()).port_number)
    raw.send(b"PUT /small HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n")
    said = await raw.until(b"}]}")
    assert said.startswith(b"HTTP/1.1 413") and b"Connection: close" in said and b"SIZE_INVALID" in said


@pytest_twisted.ensureDeferred
async def test_a_chunked_body_above_the_limit_is_refused_midway(uploads: Uploads, serve: Any, dial: Any) -> None:
    """The client goes on sending; it still gets the answer, and then an end."""
    raw = await dial(serve(uploads.app.resource()).port_number)
    raw.send(b"PUT /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(20):
        raw.send(b"10000\r\n" + bytes(65536) + b"\r\n")
    said = await raw.until(b"}]}")
    assert said.startswith(b"HTTP/1.1 413")
    raw.send(b"10000\r\n" + bytes(65536) + b"\r\n")
    raw.transport.loseConnection()
    await raw.closed()


@pytest_twisted.ensureDeferred
async def test_an_early_answer_to_a_small_body_keeps_the_connection(uploads: Uploads, serve: Any, dial: Any) -> None:
    raw = await dial(serve(uploads.app.resource()).port_number)
    raw.send(b"PUT /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
    said = await raw.until(b"\r\n\r\nno")
    assert said.startswith(b"HTTP/1.1 409") and b"Connection: close" not in said
    raw.send(bytes(1000) + b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
    await raw.until(b"\r\n\r\nhello")


@pytest_twisted.ensureDeferred
async def test_a_lingering_connection_ends_by_itself(
    uploads: Uploads, serve: Any, dial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("krakentx.web.site._LINGER_S", 0.1)
    service = serve(uploads.app.resource())
    raw = await dial(service.port_number)
    raw.send(b"PUT /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n" + bytes(1000))
    await raw.until(b"\r\n\r\nno")
    await seconds(0.3)
    assert not service.site.channels


@pytest_twisted.ensureDeferred
async def test_headers_have_one_deadline(uploads: Uploads, serve: Any, dial: Any) -> None:
    raw = await dial(serve(uploads.app.resource(), header_s=0.3).port_number)
    raw.send(b"GET /hello HTTP/1.1\r\n")
    for _ in range(4):
        await seconds(0.1)
        raw.send(b"X: y\r\n")
    assert await raw.closed(timeout_s=1.0) == b""


@pytest_twisted.ensureDeferred
async def test_silence_between_requests_ends_the_connection(uploads: Uploads, serve: Any, dial: Any) -> None:
    raw = await dial(serve(uploads.app.resource(), idle_s=0.2).port_number)
    raw.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
    await raw.until(b"hello")
    await raw.closed(timeout_s=2.0)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "head",
    [
        b"GET /hello HTTP/1.1\r\nX: " + b"y" * 40000,
        b"GET /hello HTTP/1.1\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 1000,
        b"GET /hello HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"PUT /slow/x HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
    ],
)
async def test_bad_headers_are_refused(uploads: Uploads, serve: Any, dial: Any, head: bytes, logs: Any) -> None:
    raw = await dial(serve(uploads.app.resource()).port_number)
    raw.send(head)
    assert (await raw.closed()).startswith(b"HTTP/1.1 400")


@pytest_twisted.ensureDeferred
async def test_odd_hosts_reach_their_route(uploads: Uploads, serve: Any, dial: Any, logs: Any) -> None:
    raw = await dial(serve(uploads.app.resource()).port_number)
    for host in (b"a..b", b"x" * 70, b"[::1]:5000", b"\xff", b""):
        raw.send(b"GET /hello HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    while raw.received.count(b"\r\n\r\nhello") < 5:
        await raw._change(2.0)


@pytest_twisted.ensureDeferred
async def test_a_malformed_chunk_ends_the_connection(uploads: Uploads, serve: Any, dial: Any, logs: Any) -> None:
    raw = await dial(serve(uploads.app.resource()).port_number)
    raw.send(b"PUT /slow/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")
    await raw.closed()
    await seconds(0.05)
    assert uploads.ends == [CancelledError]


@pytest_twisted.ensureDeferred
async def test_each_request_is_one_line_in_the_log(uploads: Uploads, serve: Any, dial: Any, logs: Any) -> None:
    raw = await dial(serve(uploads.app.resource(), "agent").port_number)
    raw.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    await raw.until(b"OK")
    raw.send(b"PUT /slow/x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1")
    await seconds(0.05)
    raw.drop()
    await seconds(0.05)
    lines = [event for event in logs if event.get("log_namespace") == "krakentx.web.access"]
    seen = [(e["log_level"], e["name"], e["method"], e["path"], e["status"], e["size_bytes"]) for e in lines]
    assert seen == [
        (LogLevel.info, "agent", "GET", "/hello", 200, 5),
        (LogLevel.debug, "agent", "GET", "/health", 200, 2),
        (LogLevel.info, "agent", "PUT", "/slow/x", 499, 0),
    ]
    assert all(e["elapsed_s"] >= 0 and e["client"] == "127.0.0.1" for e in lines)


@pytest_twisted.ensureDeferred
async def test_a_resource_that_fails_gives_500_without_html(serve: Any, dial: Any, logs: Any) -> None:
    from twisted.web.resource import Resource

    class Bad(Resource):
        isLeaf = True

        def render(self, _request: KrakenRequest) -> bytes:
            raise ZeroDivisionError("secret")

    raw = await dial(serve(Bad()).port_number)
    raw.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    said = await raw.until(b"internal error")
    assert said.startswith(b"HTTP/1.1 500") and b"<" not in said and b"secret" not in said
    for event in [event for event in logs if event.get("log_level") is LogLevel.critical]:
        logs.remove(event)
