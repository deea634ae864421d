"""Bodies that stream: what a client sends, at the pace of the disk, and blobs, at the pace of the client."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from krakentx.core.errors import Corrupt, KrakenError, TooLarge, Unavailable
from krakentx.storage.interfaces import IBlobReader
from krakentx.web.ranges import Range, parse_range

HIGH_WATER = 1 << 20
"""Bytes of one request that wait in memory before its connection is paused; one read more may come on top."""

_CHUNK = 1 << 16
"""Bytes given to the transport at once: more costs copies (docs/decisions on bulk bytes)."""

_TAKE_S = 300.0
"""How long a client may take nothing. Long, since podman unpacks a layer to a busy disk while it reads it."""


class ClientGone(KrakenError):
    """The client closed its connection before its body was complete."""

    def __init__(self) -> None:
        super().__init__("the client closed the connection")


@define
class Body:
    """The body of one request while it arrives.

    The connection feeds it; one reader takes. Between the two stand at most `HIGH_WATER` bytes: above that the
    connection is paused until the reader has taken them.

    Args:
        length: as announced in Content-Length; None for a chunked body.
        pause, resume: stop and restart reading from the connection.
    """

    length: int | None
    pause: Callable[[], None]
    resume: Callable[[], None]
    complete: bool = False
    _parts: list[bytes] = field(init=False, factory=list)
    _waiting: int = field(init=False, default=0)
    _paused: bool = field(init=False, default=False)
    _discarding: bool = field(init=False, default=False)
    _error: KrakenError | None = field(init=False, default=None)
    _reader: Deferred[None] | None = field(init=False, default=None)

    def feed(self, data: bytes) -> None:
        """The next bytes of the connection."""
        if self._discarding or not data:
            return
        self._parts.append(data)
        self._waiting += len(data)
        self._wake()
        if self._waiting >= HIGH_WATER and not self._paused:
            self._paused = True
            self.pause()

    def end(self) -> None:
        """Everything has arrived."""
        self.complete = True
        self._wake()

    def fail(self, error: KrakenError) -> None:
        """Nothing more will arrive; the reader still gets what came before."""
        if not self.complete and self._error is None:
            self._error = error
            self._wake()

    def discard(self) -> None:
        """Nobody wants the rest: let it pass without keeping it."""
        self._discarding = True
        self._take()

    async def read(self) -> bytes:
        """All that has arrived since the last call, at least one byte; empty at the end.

        Raises:
            ClientGone: the connection was lost before the end.
        """
        if not self._parts and not self.complete and self._error is None:
            self._reader = Deferred(self._forget)
            await self._reader
        if self._parts:
            return self._take()
        if self._error is not None:
            raise self._error
        return b""

    def _take(self) -> bytes:
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._waiting = 0
        if self._paused:
            self._paused = False
            self.resume()
        return data

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.callback(None)

    def _forget(self, _reader: Deferred[None]) -> None:
        self._reader = None


async def body_chunks(request: Any, limit: int | None = None, what: str = "body") -> AsyncIterator[bytes]:
    """The body of a request as it arrives, in runs of up to about 1 MiB; the sender is held back while one is used.

    Args:
        limit: bytes; None for no limit.
        what: the name of the thing, for the error.

    Raises:
        TooLarge: the announced length, or what has arrived so far, is above `limit`.
        ClientGone: the connection was lost before the end.
    """
    body = getattr(request, "body", None)
    if body is None:  # a plain twisted.web request, as in tests without a socket: its body is spooled already
        body = Body(None, lambda: None, lambda: None)
        body.feed(request.content.read())
        body.end()
    if limit is not None and body.length is not None and body.length > limit:
        raise TooLarge(what, limit)
    total = 0
    while data := await body.read():
        total += len(data)
        if limit is not None and total > limit:
            raise TooLarge(what, limit)
        yield data


async def read_body(request: Any, limit: int, what: str = "body") -> bytes:
    """The whole body of at most `limit` bytes. Raises as `body_chunks`."""
    return b"".join([data async for data in body_chunks(request, limit, what)])


async def read_blob(reader: IBlobReader, limit: int, what: str = "blob") -> bytes:
    """A whole small blob. Closes the reader.

    Raises:
        TooLarge: it has more than `limit` bytes. And what `reader.wait` raises.
    """
    try:
        if reader.size > limit:
            raise TooLarge(what, limit)
        parts = []
        offset = 0
        while offset < reader.size:
            stop = await reader.wait(offset, reader.size)
            parts.append(_read(reader, offset, stop - offset))
            offset = stop
        return b"".join(parts)
    finally:
        reader.close()


def blob_headers(request: Any, size: int, etag: str, headers: Mapping[str, str] | None = None) -> Range:
    """Set the status and headers of an answer with a blob, for GET and HEAD alike, and say which bytes it carries.

    `Range` is obeyed for GET only, and with `If-Range` only when that names this very blob.

    Raises:
        RangeNotSatisfiable: the range starts past the end.
    """
    wanted = None
    if request.method == b"GET" and request.getHeader("if-range") in (None, f'"{etag}"'):
        wanted = parse_range(request.getHeader("range"), size)
    part = wanted or Range(0, size)
    request.setResponseCode(206 if wanted else 200)
    request.setHeader("Content-Type", "application/octet-stream")
    request.setHeader("Accept-Ranges", "bytes")
    request.setHeader("ETag", f'"{etag}"')
    request.setHeader("Content-Length", str(part.stop - part.start))
    if wanted:
        request.setHeader("Content-Range", f"bytes {part.start}-{part.stop - 1}/{size}")
    for name, value in (headers or {}).items():
        request.setHeader(name, value)
    return part


async def send_blob(
    request: Any,
    reader: IBlobReader,
    *,
    headers: Mapping[str, str] | None = None,
    take_s: float | None = None,
    pay: Callable[[int], Awaitable[None] | None] = lambda _size: None,
) -> None:
    """Answer with a blob, or the part that `Range` asks for, while its bytes may still be arriving.

    The status is sent when the first bytes may be served, so that what goes wrong before that has a true status. What
    goes wrong later raises too, and `handle_errors` then cuts the connection: the client sees a short body, never a
    wrong one. The reader is closed in any case.

    Args:
        take_s: how long the client may take nothing; by default five minutes.
        pay: called before so many bytes are sent; they wait for what it returns.

    Raises:
        RangeNotSatisfiable; Unavailable: nothing came, or the client took nothing, for too long; Corrupt.
    """
    sender = _Sender(request, take_s or _TAKE_S)
    try:
        if request.method == b"HEAD":
            blob_headers(request, reader.size, str(reader.digest), headers)
            return
        part = blob_headers(request, reader.size, str(reader.digest), headers)
        offset = part.start
        while offset < part.stop:
            stop = await reader.wait(offset, part.stop)
            while offset < stop:
                data = _read(reader, offset, min(_CHUNK, stop - offset))
                if (paid := pay(len(data))) is not None:
                    await paid
                await sender.write(data)
                offset += len(data)
    except (KrakenError, OSError):
        if not request.startedWriting:
            _forget_headers(request)
        raise
    finally:
        sender.close()
        reader.close()


def _read(reader: IBlobReader, offset: int, size: int) -> bytes:
    """Exactly `size` bytes of the file below a reader.

    Raises:
        Corrupt: the file is shorter than the reader said; somebody cut it.
    """
    data = os.pread(reader.fileno(), size, offset)
    while 0 < len(data) < size:
        more = os.pread(reader.fileno(), size - len(data), offset + len(data))
        if not more:
            break
        data += more
    if len(data) < size:
        raise Corrupt(reader.digest, f"only {offset + len(data)} of {reader.size} bytes")
    return data


def _forget_headers(request: Any) -> None:
    """An error answer must not carry what was said of the blob."""
    for name in ("Content-Length", "Content-Range", "Content-Type", "ETag", "Docker-Content-Digest"):
        request.responseHeaders.removeHeader(name)


@implementer(IPushProducer)
class _Sender:
    """Writes to a request no faster than its client takes."""

    def __init__(self, request: Any, take_s: float) -> None:
        self._request = request
        self._take_s = take_s
        self._clock: IReactorTime | None = None
        self._paused = False
        self._ready: Deferred[None] | None = None

    async def write(self, data: bytes) -> None:
        """Wait until the client has taken enough, then write.

        Raises:
            Unavailable: it took nothing for too long.
        """
        if self._clock is None:
            self._clock = self._request.channel.site.reactor
            self._request.registerProducer(self, True)
        if self._paused:
            self._ready = Deferred()
            self._ready.addTimeout(self._take_s, self._clock, onTimeoutCancel=self._give_up)
            await self._ready
        self._request.write(data)

    def _give_up(self, _result: object, timeout_s: float) -> None:
        raise Unavailable("the client", f"took nothing for {timeout_s:g} s")

    def close(self) -> None:
        """Writing is over. May be called when the client is gone."""
        if self._clock is not None and self._request.channel is not None:
            self._request.unregisterProducer()

    def pauseProducing(self) -> None:
        """The client is behind."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The client has taken what was written."""
        self._paused = False
        ready, self._ready = self._ready, None
        if ready is not None and not ready.called:
            ready.callback(None)

    def stopProducing(self) -> None:
        """The connection is gone; the route is cancelled for that, so there is nothing to do here."""
