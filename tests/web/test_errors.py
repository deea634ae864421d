"""One table from errors to answers."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
import pytest_twisted
from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.logger import LogLevel

from krakentx.core import errors
from krakentx.web.app import new_app
from krakentx.web.errors import HttpError, code_of, handle_errors, headers_of, message_of, status_of

TABLE = [
    (errors.InvalidInput("digest", "x"), 400, "DIGEST_INVALID"),
    (errors.InvalidInput("name", "x"), 400, "NAME_INVALID"),
    (errors.InvalidInput("tag", "x"), 400, "TAG_INVALID"),
    (errors.InvalidInput("manifest", "x"), 400, "MANIFEST_INVALID"),
    (errors.InvalidInput("upload", "x"), 400, "BLOB_UPLOAD_INVALID"),
    (errors.InvalidInput("size", "x"), 400, "SIZE_INVALID"),
    (errors.InvalidInput("page", "x"), 400, "PAGINATION_NUMBER_INVALID"),
    (errors.TooLarge("manifest", 10), 413, "SIZE_INVALID"),
    (errors.NotFound("blob", "x"), 404, "BLOB_UNKNOWN"),
    (errors.NotFound("manifest", "x"), 404, "MANIFEST_UNKNOWN"),
    (errors.NotFound("tag", "x"), 404, "MANIFEST_UNKNOWN"),
    (errors.NotFound("upload", "x"), 404, "BLOB_UPLOAD_UNKNOWN"),
    (errors.NotFound("name", "x"), 404, "NAME_UNKNOWN"),
    (errors.Conflict("x"), 409, "UNKNOWN"),
    (errors.Denied("x"), 403, "DENIED"),
    (errors.Pending("x"), 202, "UNKNOWN"),
    (errors.Busy("x"), 503, "UNAVAILABLE"),
    (errors.Unavailable("h", "x"), 503, "UNAVAILABLE"),
    (errors.Unavailable("h", "x", status=404), 503, "UNAVAILABLE"),
    (errors.OutOfSpace("/x"), 507, "UNAVAILABLE"),
    (errors.RangeNotSatisfiable(5), 416, "UNKNOWN"),
    (errors.Corrupt("a", "b"), 503, "UNAVAILABLE"),
    (errors.LocalProtocolError("x"), 500, "UNKNOWN"),
    (HttpError(405, "x"), 405, "UNSUPPORTED"),
    (HttpError(415, "x", "MANIFEST_INVALID"), 415, "MANIFEST_INVALID"),
    (CancelledError(), 503, "UNAVAILABLE"),
    (OSError(errno.EMFILE, "secret"), 503, "UNAVAILABLE"),
    (OSError(errno.EIO, "secret"), 500, "UNKNOWN"),
    (ZeroDivisionError("secret"), 500, "UNKNOWN"),
]


@pytest.mark.parametrize(("error", "status", "code"), TABLE, ids=lambda value: str(value)[:30])
def test_every_error_has_a_status_and_a_code(error: Exception, status: int, code: str) -> None:
    assert (status_of(error), code_of(error)) == (status, code)


def test_an_unexpected_error_tells_nothing_of_itself() -> None:
    assert message_of(ZeroDivisionError("secret")) == "internal error"
    assert "secret" not in message_of(OSError(errno.EMFILE, "secret"))


def test_errors_bring_their_headers() -> None:
    assert headers_of(errors.RangeNotSatisfiable(7)) == {"Content-Range": "bytes */7"}
    assert headers_of(errors.Busy("x", retry_after_s=2.5)) == {"Retry-After": "3"}
    assert headers_of(OSError(errno.ENFILE, "x")) == {"Retry-After": "1"}
    assert headers_of(errors.Unavailable("h", "x")) == {"Retry-After": "1"}
    assert headers_of(HttpError(405, "x", headers={"Allow": "GET"})) == {"Allow": "GET"}


def app_of(style: Any) -> Klein:
    app = new_app(style)

    @app.route("/absent", methods=["GET"])
    def absent(_request: Any) -> None:
        raise errors.NotFound("blob", "abc")

    @app.route("/pending")
    def pending(_request: Any) -> None:
        raise errors.Pending("wait")

    @app.route("/bug")
    async def bug(_request: Any) -> None:
        raise ZeroDivisionError("secret")

    return app


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/absent", 404, "BLOB_UNKNOWN"),
        ("GET", "/nowhere", 404, "NOT_FOUND"),
        ("POST", "/absent", 405, "UNSUPPORTED"),
        ("GET", "/%ff", 404, "NOT_FOUND"),
    ],
)
async def test_registry_style_is_json(serve: Any, http: Any, method: str, path: str, status: int, code: str) -> None:
    port = serve(app_of("registry").resource()).port_number
    app = await http.request(method, f"http://127.0.0.1:{port}{path}", ok=None)
    assert app.status == status
    assert app.header("Content-Type") == "application/json"
    assert app.json()["errors"][0]["code"] == code


@pytest_twisted.ensureDeferred
async def test_head_has_the_length_of_the_error_but_no_body(serve: Any, dial: Any) -> None:
    raw = await dial(serve(app_of("registry").resource()).port_number)
    raw.send(b"HEAD /absent HTTP/1.1\r\nHost: a\r\n\r\nGET /absent HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    head, _, rest = (await raw.closed()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404")
    assert rest.startswith(b"HTTP/1.1 404")
    body = rest.partition(b"\r\n\r\n")[2]
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)["errors"][0]["message"] == "blob abc not found"


@pytest_twisted.ensureDeferred
async def test_plain_style_is_text_and_202_is_empty(serve: Any, http: Any) -> None:
    url = f"http://127.0.0.1:{serve(app_of('plain').resource()).port_number}"
    absent = await http.request("GET", url + "/absent", ok=(404,))
    assert (absent.body, absent.header("Content-Type")) == (b"blob abc not found", "text/plain; charset=utf-8")
    assert (await http.request("GET", url + "/pending", ok=(202,))).body == b""


@pytest_twisted.ensureDeferred
async def test_a_bug_is_logged_and_told_without_its_text(serve: Any, http: Any, logs: Any) -> None:
    url = f"http://127.0.0.1:{serve(app_of('registry').resource()).port_number}"
    answer = await http.request("GET", url + "/bug", ok=(500,))
    assert b"secret" not in answer.body and b"Traceback" not in answer.body
    failures = [event for event in logs if event.get("log_level") is LogLevel.critical]
    assert [event["path"] for event in failures] == ["/bug"]
    logs.remove(failures[0])


@pytest_twisted.ensureDeferred
async def test_an_app_that_is_a_class_attribute_answers_errors_too(serve: Any, http: Any) -> None:
    class Api:
        app = Klein()
        handle_errors(app, "plain")

        @app.route("/x")
        def x(self, _request: Any) -> None:
            raise errors.Conflict("there already")

    url = f"http://127.0.0.1:{serve(Api().app.resource()).port_number}"
    assert (await http.request("GET", url + "/x", ok=(409,))).body == b"there already"


@pytest_twisted.ensureDeferred
async def test_an_error_after_the_headers_cuts_the_connection(serve: Any, dial: Any) -> None:
    app = new_app("plain")

    @app.route("/torn")
    async def torn(request: Any) -> None:
        request.write(b"half")
        raise errors.Unavailable("peer", "went away")

    raw = await dial(serve(app.resource()).port_number)
    raw.send(b"GET /torn HTTP/1.1\r\nHost: a\r\n\r\n")
    said = await raw.closed()
    assert said.endswith(b"4\r\nhalf\r\n"), "no last chunk, and no error text in the body"
