"""Whole answers with their length, so that connections live on and no client guesses a type."""

from __future__ import annotations

import json
from collections.abc import Mapping

from twisted.web.iweb import IRequest


def reply(
    request: IRequest,
    status: int,
    body: bytes = b"",
    content_type: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Set status, length and headers; give back the body for a Klein route to return.

    The length is set for HEAD too; twisted.web itself keeps the body back then. 204 and 304 have no length, by the
    rules of HTTP.
    """
    request.setResponseCode(status)
    if status not in (204, 304):
        request.setHeader("Content-Length", str(len(body)))
    if content_type is not None:
        request.setHeader("Content-Type", content_type)
    for name, value in (headers or {}).items():
        request.setHeader(name, value)
    return body


def reply_json(request: IRequest, value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """The same for JSON."""
    return reply(request, status, json.dumps(value).encode(), "application/json", headers)


def reply_text(request: IRequest, text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """The same for a line of text."""
    return reply(request, status, text.encode(), "text/plain; charset=utf-8", headers)
