"""One table from errors to HTTP, and the handler that every Klein app shares.

Two styles of body: `registry` is the JSON that docker and its kin read, `plain` is a line of text, as the other
endpoints of the reference give. No traceback and no HTML ever reaches a client.
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Mapping
from typing import Any, Literal

from klein import Klein
from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import RequestRedirect

from krakentx.core import errors
from krakentx.web.replies import reply

log = Logger()

Style = Literal["registry", "plain"]

_STATUS: tuple[tuple[type[errors.KrakenError], int], ...] = (
    (errors.InvalidInput, 400),
    (errors.TooLarge, 413),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.Denied, 403),
    (errors.Pending, 202),
    (errors.Busy, 503),
    (errors.Unavailable, 503),
    (errors.OutOfSpace, 507),
    (errors.RangeNotSatisfiable, 416),
    # Bad bytes are thrown away when they are found, so the next try may well succeed.
    (errors.Corrupt, 503),
)

_INVALID = {
    "digest": "DIGEST_INVALID",
    "name": "NAME_INVALID",
    "tag": "TAG_INVALID",
    "manifest": "MANIFEST_INVALID",
    "upload": "BLOB_UPLOAD_INVALID",
    "size": "SIZE_INVALID",
    "page": "PAGINATION_NUMBER_INVALID",
}
_UNKNOWN = {
    "blob": "BLOB_UNKNOWN",
    "manifest": "MANIFEST_UNKNOWN",
    "tag": "MANIFEST_UNKNOWN",
    "upload": "BLOB_UPLOAD_UNKNOWN",
    "name": "NAME_UNKNOWN",
}
_OF_STATUS = {403: "DENIED", 404: "NOT_FOUND", 405: "UNSUPPORTED", 413: "SIZE_INVALID", 429: "TOOMANYREQUESTS"}


class HttpError(errors.KrakenError):
    """An answer which no other error describes.

    Args:
        status: of the answer.
        code: of the registry's error body; by default the one which fits the status.
        headers: to add to the answer.
    """

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        super().__init__(message)


def status_of(error: BaseException) -> int:
    """The HTTP status which tells of this error; 500 for what nobody expected."""
    if isinstance(error, HttpError):
        return error.status
    if isinstance(error, HTTPException):
        return error.code or 500
    if isinstance(error, defer.CancelledError):
        return 503  # the client is still there, so it is we who are stopping
    if _out_of_files(error):
        return 503
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def code_of(error: BaseException) -> str:
    """The code for the registry's error body."""
    if isinstance(error, HttpError) and error.code:
        return error.code
    if isinstance(error, errors.InvalidInput):
        return _INVALID.get(error.what, "UNSUPPORTED")
    if isinstance(error, errors.NotFound):
        return _UNKNOWN.get(error.what, "NOT_FOUND")
    status = status_of(error)
    return _OF_STATUS.get(status) or ("UNAVAILABLE" if status in (503, 507) else "UNKNOWN")


def headers_of(error: BaseException) -> dict[str, str]:
    """Headers which belong to the answer."""
    if isinstance(error, HttpError):
        return error.headers
    if isinstance(error, errors.RangeNotSatisfiable):
        return {"Content-Range": f"bytes */{error.size_bytes}"}
    if isinstance(error, (errors.Busy, errors.Unavailable)):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
    if _out_of_files(error):
        return {"Retry-After": "1"}
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        return {"Allow": ", ".join(sorted(error.valid_methods))}
    return {}


def message_of(error: BaseException) -> str:
    """What the client is told; nothing of our insides for an error that nobody expected."""
    if isinstance(error, errors.KrakenError):
        return str(error)
    if isinstance(error, HTTPException):
        return RESPONSES.get(error.code or 500, b"error").decode().lower()
    if isinstance(error, defer.CancelledError):
        return "the server is stopping"
    if _out_of_files(error):
        return "too many files and connections are open"
    return "internal error"


def _out_of_files(error: BaseException) -> bool:
    """It passes when some connections end; a traceback for each request would only fill the log meanwhile."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def registry_body(code: str, message: str) -> bytes:
    """The error JSON of the distribution API."""
    return json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()


def error_reply(request: Any, failure: Failure, style: Style) -> bytes:
    """Set status and headers for a failure, log it when it is ours, and give the body."""
    error: BaseException = failure.value  # type: ignore[assignment]  # None only for a failure made by hand
    status = status_of(error)
    if not isinstance(error, (errors.KrakenError, HTTPException, defer.CancelledError)) and not _out_of_files(error):
        log.failure("{method} {path} failed", failure=failure, **_names(request))
    elif status >= 500:
        log.warn("{method} {path}: {error}", error=str(error), **_names(request))
    for name, value in headers_of(error).items():
        request.setHeader(name, value)
    if style == "registry":
        return reply(request, status, registry_body(code_of(error), message_of(error)), "application/json")
    # 202 is an answer, not a failure: the reference gives it an empty body.
    return reply(request, status, b"" if status == 202 else message_of(error).encode(), "text/plain; charset=utf-8")


def handle_errors(app: Klein, style: Style) -> None:
    """Make a Klein app answer every error in this style, unknown routes and wrong methods too.

    An error that comes after the headers are out cannot be told any more: the connection is cut, so that the client
    never takes a torn body for a whole one.
    """

    @app.handle_errors(RequestRedirect)  # type: ignore[arg-type]  # either of its two forms
    def redirect(*args: Any) -> bytes:
        request, failure = args[-2:]
        request.setHeader("Location", failure.value.new_url)
        return reply(request, failure.value.code, b"")

    @app.handle_errors(Exception)  # type: ignore[arg-type]  # either of its two forms
    async def on_error(*args: Any) -> bytes:
        request, failure = args[-2:]  # an app that is a class attribute puts its instance first
        if request.startedWriting:
            problem = message_of(failure.value)
            log.warn("{method} {path} cut after its headers: {error}", error=problem, **_names(request))
            gone = request.notifyFinish()
            cut(request)
            await gone
        return error_reply(request, failure, style)


def cut(request: Any) -> None:
    """Close the connection below an unfinished answer, after what was written has left."""
    channel = request.channel
    if channel is not None:
        getattr(channel, "cut", channel.loseConnection)()


def _names(request: Any) -> dict[str, Any]:
    return {"method": request.method.decode("latin-1"), "path": request.path.decode("latin-1")}
