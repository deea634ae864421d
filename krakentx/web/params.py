"""What stands in a path, a query or a JSON body, as values.

A name with a `/` in it travels as `%2F`, and some clients of the reference escape it twice. twisted.web undoes one
escape before a route is matched; what a route gets is undone once more here, which changes no value that was escaped
once, since none of our names may hold a `%`. A route must say `<path:name>` (or `<rest:name>` of `web.app`, which may
also be empty or begin with `/`): Klein's plain `<name>` matches no value with a `/`.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote_to_bytes

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput

_NS = 1_000_000_000
_MAX_NS = 1 << 63
"""The reference reads durations into 64 bits with a sign."""
_TRUE = frozenset({"true", "1", "t", "yes"})
_FALSE = frozenset({"false", "0", "f", "no"})


def path_value(name: str, value: str) -> str:
    """A value from the path, whether it was escaped once or twice.

    Raises:
        InvalidInput: (`parameter`) it is empty, or no UTF-8.
    """
    try:
        value = unquote_to_bytes(value).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("parameter", f"path unescape {name}: {error.reason}") from error
    if not value:
        raise InvalidInput("parameter", f"param {name} is required")
    return value


def path_digest(value: str, *, bare: bool = False) -> Digest:
    """A digest from the path, in either case.

    Args:
        bare: take hex without its algorithm too, as agents do.

    Raises:
        InvalidInput: (`digest`) it is none. (`parameter`) it is empty.
    """
    text = path_value("digest", value)
    return Digest.from_hex(text) if bare and ":" not in text else Digest.parse(text)


def query_value(request: Any, name: str) -> str | None:
    """The last value of a key in the query; None when it is not there."""
    values = (request.args or {}).get(name.encode())
    return values[-1].decode("utf-8", "replace") if values else None


def query_int(request: Any, name: str, default: int | None = None, *, minimum: int = 0) -> int | None:
    """A whole number from the query.

    Raises:
        InvalidInput: (`parameter`) it is none, or below `minimum`.
    """
    text = query_value(request, name)
    if text is None:
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18) or int(text) < minimum:
        raise InvalidInput("parameter", f"{name}={text[:40]!r} is no whole number of {minimum} or more")
    return int(text)


def query_bool(request: Any, name: str, default: bool = False) -> bool:
    """`true` or `false` from the query.

    Raises:
        InvalidInput: (`parameter`) anything else.
    """
    text = query_value(request, name)
    if text is None:
        return default
    if text.lower() not in _TRUE | _FALSE:
        raise InvalidInput("parameter", f"{name}={text[:40]!r} is neither true nor false")
    return text.lower() in _TRUE


def json_value(body: bytes) -> Any:
    """A body, read as JSON.

    Raises:
        InvalidInput: (`parameter`) it is none, or nested too deeply.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("parameter", f"the body is not JSON: {error}") from error


def seconds_of(name: str, nanoseconds: object) -> float:
    """A duration of a JSON body, which are whole nanoseconds, in seconds.

    Raises:
        InvalidInput: (`parameter`) anything else, or below zero.
    """
    if type(nanoseconds) is not int or not 0 <= nanoseconds < _MAX_NS:
        raise InvalidInput("parameter", f"{name} must be a whole number of nanoseconds")
    return nanoseconds / _NS
