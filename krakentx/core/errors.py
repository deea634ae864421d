"""Every error that KrakenTX raises on purpose.

Errors carry fields and render themselves; what HTTP status one becomes is decided in `krakentx.web.errors`.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "Busy",
    "ConfigError",
    "Conflict",
    "Corrupt",
    "Denied",
    "InvalidInput",
    "KrakenError",
    "LocalProtocolError",
    "NotFound",
    "OutOfSpace",
    "Pending",
    "ProtocolError",
    "RangeNotSatisfiable",
    "RemoteProtocolError",
    "TooLarge",
    "Unavailable",
]


class KrakenError(Exception):
    """An error raised on purpose. `str()` of it is a sentence for a person."""


class ConfigError(KrakenError):
    """The operator must act: printed as one line without a traceback, exit code 1.

    Args:
        problem: what is wrong and how to mend it, in one line.
        path: the file (and key, as `file: key.sub`) where it is wrong, when there is one.
    """

    def __init__(self, problem: str, path: str | Path | None = None) -> None:
        self.problem = problem
        self.path = path
        super().__init__(f"{path}: {problem}" if path else problem)


class InvalidInput(KrakenError):
    """What a client sent cannot be understood.

    Args:
        what: the kind of thing that is wrong: `digest`, `name`, `tag`, `manifest`, `range`, `upload`, `size`,
            `parameter`.
        message: what is wrong with it.
    """

    def __init__(self, what: str, message: str) -> None:
        self.what = what
        self.message = message
        super().__init__(f"invalid {what}: {message}")


class TooLarge(KrakenError):
    """Bigger than a limit that the operator set."""

    def __init__(self, what: str, limit_bytes: int) -> None:
        self.what = what
        self.limit_bytes = limit_bytes
        super().__init__(f"{what} is larger than the limit of {limit_bytes} bytes")


class NotFound(KrakenError):
    """Known to be absent; a part that is down is `Unavailable`, never this.

    Args:
        what: `blob`, `manifest`, `tag`, `upload`, `torrent`, `file`, `name`.
        name: the digest, tag or id that is absent.
    """

    def __init__(self, what: str, name: object) -> None:
        self.what = what
        self.name = name
        super().__init__(f"{what} {name} not found")


class Conflict(KrakenError):
    """The thing is already there, or is in a state that forbids this."""


class Denied(KrakenError):
    """Understood, but not allowed here."""


class Pending(KrakenError):
    """Work in progress: ask again in a moment (202 on the wire)."""


class Busy(KrakenError):
    """A bound was reached; the caller may retry."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class Unavailable(KrakenError):
    """Another host's trouble: retried with jitter, 503 when it reaches HTTP.

    Args:
        host: `host:port` or the name of the part that is down.
        reason: what happened there, in plain words.
        status: the HTTP status it answered with; None when there was no answer.
    """

    def __init__(self, host: str, reason: str, *, status: int | None = None, retry_after_s: float = 1.0) -> None:
        self.host = host
        self.reason = reason
        self.status = status
        self.retry_after_s = retry_after_s
        super().__init__(f"{host} is unavailable: {reason}")


class OutOfSpace(KrakenError):
    """The disk is full (507 on the wire)."""

    def __init__(self, where: str | Path) -> None:
        self.where = where
        super().__init__(f"no space left on the disk of {where}")


class RangeNotSatisfiable(KrakenError):
    """A range starts past the end, or a chunk does not start at the current end (416 on the wire).

    Args:
        size_bytes: of the whole blob, or received so far for an upload.
    """

    def __init__(self, size_bytes: int, message: str = "range not satisfiable") -> None:
        self.size_bytes = size_bytes
        super().__init__(message)


class Corrupt(KrakenError):
    """Bytes do not match their name: discard, count, never serve."""

    def __init__(self, expected: object, got: object) -> None:
        self.expected = expected
        self.got = got
        super().__init__(f"bytes hash to {got}, expected {expected}")


class ProtocolError(KrakenError):
    """The peer wire was used wrongly."""


class LocalProtocolError(ProtocolError):
    """Our own bug: fail loudly."""


class RemoteProtocolError(ProtocolError):
    """The peer's fault: close its connection, nothing else."""
