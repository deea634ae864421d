"""The client against servers that behave, and servers that do not."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from krakentx.core.errors import Unavailable
from krakentx.web.app import new_app
from krakentx.web.bodies import body_chunks
from krakentx.web.client import HttpClient, NotConnected
from krakentx.web.replies import reply, reply_json

ensure = pytest_twisted.ensureDeferred


def seconds(amount: float) -> Deferred[None]:
    from twisted.internet import reactor

    return deferLater(reactor, amount, lambda: None)  # type: ignore[arg-type]


class Scripted(Protocol):
    """A server that says one thing to each connection, when the headers of a request are in."""

    def connectionMade(self) -> None:
        self.got = b""
        self.said = False
        self.factory.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        if b"\r\n\r\n" in self.got and not self.said:
            self.said = True
            self.factory.script(self)

    def connectionLost(self, reason: object = None) -> None:
        self.factory.lost += 1


@pytest_twisted.async_yield_fixture
async def scripted():  # type: ignore[no-untyped-def]
    """`scripted(script)` -> factory with `url`, `connections`, `lost`."""
    from twisted.internet import reactor

    ports = []

    def start(script: Callable[[Scripted], None]) -> Any:
        factory = Factory.forProtocol(Scripted)
        factory.script, factory.connections, factory.lost = script, [], 0
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        factory.host = f"127.0.0.1:{port.getHost().port}"
        factory.url = f"http://{factory.host}/x"
        ports.append((port, factory))
        return factory

    yield start
    for port, factory in ports:
        await port.stopListening()
        for connection in factory.connections:
            connection.transport.abortConnection()


@pytest_twisted.async_yield_fixture
async def quick():  # type: ignore[no-untyped-def]
    """A client with short deadlines."""
    from twisted.internet import reactor

    client = HttpClient(reactor, timeout_s=0.3, stall_s=0.3, connect_s=0.3, rng=random.Random(1))
    yield client
    await client.close()


def closed_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def echo_app() -> Any:
    """Tells what it was asked."""
    app = new_app("plain")
    app.seen = []

    @app.route("/echo/<path:name>", methods=["GET", "PUT", "POST", "PATCH", "DELETE"])
    async def echo(request: Any, name: str) -> bytes:
        app.seen.append(request.channel)
        body = b"".join([data async for data in body_chunks(request)])
        more = {"method": request.method.decode(), "name": name, "size": len(body), "x": request.getHeader("x-y")}
        return reply_json(request, more, headers={"X-Answer": "yes"})

    @app.route("/status/<int:code>", methods=["GET", "PUT", "POST"])
    def status(request: Any, code: int) -> bytes:
        app.seen.append(code)
        return reply(request, code, b"because of\n  reasons", headers={"Retry-After": "3"})

    @app.route("/to", methods=["GET", "PUT"])
    def to(request: Any) -> bytes:
        app.seen.append(request.getHeader("authorization"))
        target, code = (request.args[key][0].decode() for key in (b"url", b"code"))
        return reply(request, int(code), headers={"Location": target})

    @app.route("/loop")
    def loop(request: Any) -> bytes:
        return reply(request, 302, headers={"Location": "/loop"})

    return app


@pytest.fixture
def echo(echo_app: Any, serve: Any) -> str:
    return f"http://127.0.0.1:{serve(echo_app.resource()).port_number}"


@ensure
async def test_an_answer_is_read(http: HttpClient, echo: str) -> None:
    answer = await http.request("PUT", echo + "/echo/a%2Fb", headers={"X-Y": "z"}, body=b"123")
    assert answer.json() == {"method": "PUT", "name": "a/b", "size": 3, "x": "z"}
    assert (answer.status, answer.header("X-Answer"), answer.length) == (200, "yes", len(answer.body))


@ensure
async def test_connections_are_used_again(http: HttpClient, echo: str, echo_app: Any) -> None:
    for body in (None, b"123", None):
        await http.request("POST", echo + "/echo/a", body=body)
    assert len(set(echo_app.seen)) == 1


@ensure
async def test_a_status_that_nobody_wants_is_an_error_that_tells_all(http: HttpClient, echo: str) -> None:
    with pytest.raises(Unavailable) as caught:
        await http.request("GET", echo + "/status/404")
    error = caught.value
    assert (error.status, error.retry_after_s, error.host) == (404, 3.0, echo.removeprefix("http://"))
    assert str(error).endswith("is unavailable: answered 404: because of reasons")
    assert (await http.request("GET", echo + "/status/404", ok=(200, 404))).status == 404
    assert (await http.request("GET", echo + "/status/418", ok=None)).status == 418


@ensure
async def test_no_connection(http: HttpClient) -> None:
    port = closed_port()
    with pytest.raises(NotConnected) as caught:
        await http.request("GET", f"http://127.0.0.1:{port}/")
    assert (caught.value.host, caught.value.status) == (f"127.0.0.1:{port}", None)
    assert caught.value.reason == "Connection refused"


@ensure
async def test_a_name_that_is_none(http: HttpClient) -> None:
    with pytest.raises(Unavailable, match=r"no-such-host\.invalid"):
        await http.request("GET", "http://no-such-host.invalid:80/")


@ensure
async def test_ipv6(http: HttpClient, echo_app: Any) -> None:
    from twisted.internet import reactor

    from krakentx.web.service import HttpService

    service = HttpService("v6", echo_app.resource(), 0, "::1", reactor=reactor, drain_s=0.1)
    try:
        service.startService()
    except Exception as error:
        pytest.skip(f"no IPv6 here: {error}")
    try:
        answer = await http.request("GET", f"http://[::1]:{service.port_number}/echo/a")
        assert answer.status == 200
    finally:
        await service.stopService()


@ensure
async def test_a_server_that_never_answers(quick: HttpClient, scripted: Any) -> None:
    server = scripted(lambda connection: None)
    with pytest.raises(Unavailable, match=r"no answer within 0\.3 s"):
        await quick.request("GET", server.url)
    await seconds(0.05)
    assert server.lost == 1, "the connection is ended, not left behind"


@ensure
async def test_a_body_that_never_ends_is_within_the_deadline_too(quick: HttpClient, scripted: Any) -> None:
    server = scripted(lambda c: c.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"))
    with pytest.raises(Unavailable, match="no answer within"):
        await quick.request("GET", server.url)
    await seconds(0.05)
    assert server.lost == 1


@ensure
@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n"]
)
async def test_a_broken_answer(quick: HttpClient, scripted: Any, said: bytes) -> None:
    def script(connection: Scripted) -> None:
        connection.transport.write(said)
        connection.transport.loseConnection()

    server = scripted(script)
    with pytest.raises(Unavailable, match="broke the connection") as caught:
        await quick.request("GET", server.url)
    assert (caught.value.host, caught.value.status) == (server.host, None)


@ensure
async def test_an_answer_without_bound_is_cut(http: HttpClient, scripted: Any) -> None:
    def script(connection: Scripted) -> None:
        connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + bytes(2 << 20))

    server = scripted(script)
    with pytest.raises(Unavailable, match="more than 1000 bytes"):
        await http.request("GET", server.url, max_body=1000)
    await seconds(0.05)
    assert server.lost == 1


@ensure
async def test_cancelling_is_cancelling(http: HttpClient, scripted: Any) -> None:
    server = scripted(lambda c: c.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"))
    for wait in (0.0, 0.05):
        call = Deferred.fromCoroutine(http.request("GET", server.url))
        await seconds(wait)
        call.cancel()
        with pytest.raises(CancelledError):
            await call
    await seconds(0.05)
    assert server.lost == len(server.connections)


# -- retries


@ensure
@pytest.mark.parametrize(
    ("method", "code", "tries"),
    [("GET", 503, 3), ("PUT", 429, 3), ("GET", 500, 1), ("GET", 404, 1), ("POST", 503, 1)],
)
async def test_what_is_tried_again(
    http: HttpClient, echo: str, echo_app: Any, monkeypatch: pytest.MonkeyPatch, method: str, code: int, tries: int
) -> None:
    monkeypatch.setattr("krakentx.web.client._MAX_DELAY_S", 0.02)
    with pytest.raises(Unavailable) as caught:
        await http.request(method, f"{echo}/status/{code}", retries=2, body=b"x" if method != "GET" else None)
    assert (caught.value.status, echo_app.seen) == (code, [code] * tries)


@ensure
async def test_a_broken_connection_is_tried_again_with_the_whole_body(
    http: HttpClient, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("krakentx.web.client._MAX_DELAY_S", 0.02)

    def script(connection: Scripted) -> None:
        if len(connection.factory.connections) > 2:
            connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        else:
            connection.transport.abortConnection()

    server = scripted(script)
    assert (await http.request("PUT", server.url, body=b"whole", retries=3)).body == b"ok"
    assert len(server.connections) == 3
    assert server.connections[-1].got.endswith(b"\r\n\r\nwhole")


@ensure
async def test_a_post_is_tried_again_only_when_nothing_was_sent(
    http: HttpClient, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("krakentx.web.client._MAX_DELAY_S", 0.02)
    server = scripted(lambda connection: connection.transport.abortConnection())
    with pytest.raises(Unavailable):
        await http.request("POST", server.url, body=b"once", retries=3)
    assert len(server.connections) == 1


# -- redirects


@ensure
async def test_redirects_are_followed(http: HttpClient, echo: str) -> None:
    answer = await http.request("GET", f"{echo}/to?code=302&url=/echo/b")
    assert answer.json()["name"] == "b"
    answer = await http.request("PUT", f"{echo}/to?code=307&url=/echo/b", body=b"123")
    assert (answer.json()["method"], answer.json()["size"]) == ("PUT", 3)
    assert (await http.request("PUT", f"{echo}/to?code=302&url=/echo/b", body=b"123", ok=None)).status == 302


@ensure
async def test_redirects_end(http: HttpClient, echo: str) -> None:
    with pytest.raises(Unavailable, match="redirects more than"):
        await http.request("GET", f"{echo}/loop")


@ensure
async def test_a_secret_stays_with_its_host(http: HttpClient, echo: str, echo_app: Any, scripted: Any) -> None:
    server = scripted(lambda c: c.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    await http.request("GET", f"{echo}/to?code=302&url={server.url}", headers={"Authorization": "secret"})
    assert echo_app.seen == ["secret"]
    assert b"secret" not in server.connections[0].got


@ensure
async def test_other_schemes_are_refused(http: HttpClient, echo: str) -> None:
    with pytest.raises(Unavailable, match="only http and https"):
        await http.request("GET", f"{echo}/to?code=302&url=ftp://x/")


@ensure
@pytest.mark.parametrize("target", ["http://[::1/x", "http://\u00e9/x", "http://a b/", "http://[zz]/"])
async def test_redirects_to_nowhere_are_the_fault_of_that_host(http: HttpClient, scripted: Any, target: str) -> None:
    head = f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {target}\r\n\r\n".encode()
    server = scripted(lambda c: c.transport.write(head))
    with pytest.raises(Unavailable):
        await http.request("GET", server.url)


@ensure
@pytest.mark.parametrize("value", ["\u00b2", "\u0663", "9" * 400, "-1", "Wed, 21 Oct 2026 07:28:00 GMT", ""])
async def test_a_retry_after_without_sense_is_a_second(http: HttpClient, scripted: Any, value: str) -> None:
    head = f"HTTP/1.1 503 No\r\nContent-Length: 0\r\nRetry-After: {value}\r\n\r\n".encode()
    server = scripted(lambda c: c.transport.write(head))
    with pytest.raises(Unavailable) as caught:
        await http.request("GET", server.url)
    assert caught.value.retry_after_s == 1.0


@ensure
async def test_a_refusal_that_trickles_is_cut(quick: HttpClient, scripted: Any) -> None:
    def trickle(connection: Scripted) -> None:
        connection.transport.write(b"HTTP/1.1 500 No\r\nContent-Length: 400\r\n\r\n")

        async def go_on() -> None:
            while connection.connected:
                connection.transport.write(b"x")
                await seconds(0.1)

        Deferred.fromCoroutine(go_on())

    server = scripted(trickle)
    from twisted.internet import reactor

    with pytest.raises(Unavailable) as caught:
        await Deferred.fromCoroutine(quick.download(server.url, lambda _data: None)).addTimeout(2.0, reactor)
    assert caught.value.status == 500


# -- downloads


def giving(body: bytes, *, length: int | None = None, status: str = "200 OK") -> Callable[[Scripted], None]:
    def script(connection: Scripted) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
        connection.transport.write(head.encode() + body)

    return script


@ensure
async def test_a_download_hands_the_bytes_on(http: HttpClient, scripted: Any) -> None:
    data = os.urandom(1 << 20)
    got: list[bytes] = []
    began: list[int | None] = []
    answer = await http.download(
        scripted(giving(data)).url, got.append, headers={"Range": "bytes=0-"}, began=lambda r: began.append(r.length)
    )
    assert (b"".join(got), answer.status, answer.body, began) == (data, 200, b"", [len(data)])


@ensure
async def test_a_sink_that_waits_holds_the_sender_back(http: HttpClient, scripted: Any) -> None:
    data = bytes(32 << 20)
    gate: Deferred[None] = Deferred()
    got = 0

    async def slowly(run: bytes) -> None:
        nonlocal got
        got += len(run)
        if not gate.called:
            await gate

    call = Deferred.fromCoroutine(http.download(scripted(giving(data)).url, slowly, stall_s=0.2))
    await seconds(0.4)
    assert 0 < got < 1 << 20, "one run, and the silence is not the server's"
    gate.callback(None)
    await call
    assert got == len(data)


@ensure
async def test_runs_of_one_read_are_handed_on_one_at_a_time(http: HttpClient, scripted: Any) -> None:
    """Chunks that came in one packet are there at once; a pause cannot hold them back."""
    chunks = b"".join(b"1\r\n%d\r\n" % n for n in range(9)) + b"0\r\n\r\n"
    got: list[bytes] = []
    at_work = 0

    async def slowly(run: bytes) -> None:
        nonlocal at_work
        at_work += 1
        assert at_work == 1
        await seconds(0.01)
        got.append(run)
        at_work -= 1

    def script(connection: Scripted) -> None:
        connection.transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)

    await http.download(scripted(script).url, slowly)
    assert b"".join(got) == b"012345678"

    def sometimes(run: bytes) -> Any:
        got.append(run)
        return seconds(0.01) if run == b"0" else None

    got.clear()
    await http.download(scripted(script).url, sometimes)
    assert b"".join(got) == b"012345678"


@ensure
async def test_the_last_bytes_wait_for_a_sink_that_waits(http: HttpClient, scripted: Any) -> None:
    done = False

    async def slowly(_run: bytes) -> None:
        nonlocal done
        await seconds(0.1)
        done = True

    await http.download(scripted(giving(b"abc")).url, slowly)
    assert done


@ensure
async def test_a_download_that_stalls(quick: HttpClient, scripted: Any) -> None:
    got: list[bytes] = []
    server = scripted(giving(b"abc", length=9))
    with pytest.raises(Unavailable, match=r"sent nothing for 0\.3 s"):
        await quick.download(server.url, got.append)
    assert b"".join(got) == b"abc"
    await seconds(0.05)
    assert server.lost == 1


@ensure
async def test_a_download_that_is_cut(http: HttpClient, scripted: Any) -> None:
    def script(connection: Scripted) -> None:
        giving(b"abc", length=9)(connection)
        connection.transport.loseConnection()

    with pytest.raises(Unavailable, match="broke the connection"):
        await http.download(scripted(script).url, lambda run: None)


@ensure
async def test_a_download_within_a_time_as_a_whole(http: HttpClient, scripted: Any) -> None:
    with pytest.raises(Unavailable, match=r"no answer within 0\.2 s"):
        await http.download(scripted(giving(b"abc", length=9)).url, lambda run: None, timeout_s=0.2)


@ensure
async def test_a_refused_download_gives_no_bytes(http: HttpClient, scripted: Any) -> None:
    got: list[bytes] = []
    with pytest.raises(Unavailable) as caught:
        await http.download(scripted(giving(b"gone", status="404 Not Found")).url, got.append)
    assert (caught.value.status, got) == (404, [])


@ensure
@pytest.mark.parametrize("where", ["began", "receive"])
async def test_what_the_caller_raises_ends_the_download(http: HttpClient, scripted: Any, where: str) -> None:
    def fail(_value: object) -> None:
        raise ValueError("enough")

    server = scripted(giving(bytes(1 << 20), length=1 << 30))
    callbacks = {"receive": lambda run: None, where: fail}
    with pytest.raises(ValueError, match="enough"):
        await http.download(server.url, **callbacks)
    await seconds(0.05)
    assert server.lost == 1


# -- uploads


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(os.urandom(3_000_000))
    return path


@ensure
async def test_a_part_of_a_file_is_sent(http: HttpClient, scripted: Any, file: Path) -> None:
    def script(connection: Scripted) -> None:
        connection.said = False
        if len(connection.got.partition(b"\r\n\r\n")[2]) == 2_000_000:
            connection.transport.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            connection.transport.loseConnection()

    server = scripted(script)
    answer = await http.upload("PATCH", server.url, file, offset=500_000, length=2_000_000, headers={"X-Y": "z"})
    head, _, body = server.connections[0].got.partition(b"\r\n\r\n")
    assert (answer.body, body) == (b"ok", file.read_bytes()[500_000:2_500_000])
    assert b"Content-Length: 2000000" in head and b"z" in head
    with file.open("rb") as opened:
        await http.upload("PATCH", server.url, opened.fileno(), offset=1_000_000)
        assert opened.tell() == 0
    assert server.connections[1].got.endswith(file.read_bytes()[-1000:])


@ensure
async def test_an_empty_part_is_sent(http: HttpClient, echo: str, file: Path) -> None:
    assert (await http.upload("PUT", echo + "/echo/a", file, length=0)).json()["size"] == 0


@ensure
async def test_an_upload_that_nobody_takes(quick: HttpClient, scripted: Any, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as opened:
        opened.truncate(256 << 20)
    server = scripted(lambda connection: connection.transport.pauseProducing())
    with pytest.raises(Unavailable, match=r"took nothing for 0\.3 s"):
        await quick.upload("PUT", server.url, big)


@ensure
async def test_an_upload_without_an_answer(quick: HttpClient, scripted: Any, file: Path) -> None:
    with pytest.raises(Unavailable, match="did not answer"):
        await quick.upload("PUT", scripted(lambda c: None).url, file, length=1000)


@ensure
async def test_an_early_answer_ends_the_upload(http: HttpClient, scripted: Any, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as opened:
        opened.truncate(256 << 20)
    server = scripted(giving(b"too much", status="413 Too Large"))
    with pytest.raises(Unavailable) as caught:
        await http.upload("PUT", server.url, big)
    assert caught.value.status == 413


@ensure
async def test_a_file_that_shrinks_meanwhile(http: HttpClient, scripted: Any, file: Path) -> None:
    with pytest.raises(OSError, match="ends 4000 bytes early"):
        await http.upload("PUT", scripted(lambda c: None).url, file, offset=2_999_000, length=5000)


@ensure
async def test_a_missing_file(http: HttpClient, echo: str, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        await http.upload("PUT", echo + "/echo/a", tmp_path / "none")


@ensure
async def test_an_upload_is_tried_again_from_its_start(
    http: HttpClient, scripted: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("krakentx.web.client._MAX_DELAY_S", 0.02)

    def script(connection: Scripted) -> None:
        connection.said = False
        if len(connection.factory.connections) == 1:
            connection.transport.abortConnection()
        elif len(connection.got.partition(b"\r\n\r\n")[2]) == 3_000_000:
            giving(b"ok")(connection)

    server = scripted(script)
    assert (await http.upload("PUT", server.url, file, retries=1)).body == b"ok"
    assert server.connections[1].got.partition(b"\r\n\r\n")[2] == file.read_bytes()
