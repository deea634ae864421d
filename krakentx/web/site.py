"""The Site under every HTTP endpoint: twisted.web, made fit for a registry.

- A TLS hello on this plain port is answered at once. docker, skopeo and podman try HTTPS first; a stock Site waits for
  the end of a line that never comes, which costs each of their commands ten seconds.
- A route is called when the headers are in, and takes the body while it arrives (`bodies.body_chunks`). Stock
  twisted.web would spool the whole body first: an upload could then be neither hashed while it passes nor refused
  midway.
- The time for the headers, for silence in between, and the size of the headers are bounded.
"""

# mypy: allow-untyped-calls
# twisted.web has hardly any types, and these classes are made of its methods.

from __future__ import annotations

from io import BytesIO
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, parse_qs
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from krakentx.web.bodies import Body, ClientGone
from krakentx.web.metrics import HttpMetrics

access = Logger(namespace="krakentx.web.access")

_TLS_HANDSHAKE = 0x16
_SMALL_REST = 1 << 16
"""A rest of a body up to this many bytes is awaited after an early answer, so that the connection can live on."""
_LENGTH_DIGITS = 19
"""Of a Content-Length; Python refuses to read a number of thousands of them, which nobody above us expects."""
_LINGER_S = 5.0
_LINGER_BYTES = 64 << 20
_QUIET = frozenset({b"/health", b"/readiness", b"/metrics"})
"""Paths that monitors ask all the time."""


class KrakenRequest(Request):
    """A request whose route runs while the body arrives. `body` is the body; `content` stays empty."""

    defaultContentType = None
    channel: Any
    body: Body
    began: float = 0.0
    _finish_later = False

    def gotLength(self, length: int | None) -> None:
        """Called by the channel when the headers are in."""
        self.content = BytesIO()
        self.body = Body(length, self.channel.pause_body, self.channel.resume_body)

    def handleContentChunk(self, data: bytes) -> None:
        """Called by the channel for the next bytes of the body."""
        self.body.feed(data)

    def begin(self, method: bytes, uri: bytes, version: bytes) -> None:
        """Call the route."""
        self.began = self.channel.site.reactor.seconds()
        self.method, self.uri, self.clientproto = method, uri, version
        path, _, query = uri.partition(b"?")
        # Klein answers a path that is not UTF-8 in its own way, which is no registry's; one with U+FFFD in it matches
        # no name, so the app refuses it in its own words.
        readable = unquote_to_bytes(path).decode("utf-8", "replace")
        self.path = path if "\ufffd" not in readable else quote_from_bytes(readable.encode(), "/:").encode()
        self.args = parse_qs(query, True)
        self.process()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Called by the channel at the end of the body, or of the headers when there is no body."""
        self.body.end()
        if not self.began:
            self.begin(command, path, version)
        elif self._finish_later:
            super().finish()

    def getClientAddress(self) -> Any:
        """Where the request comes from; an IPv4 address that came through a socket of both families is one again."""
        address: Any = super().getClientAddress()
        host = getattr(address, "host", "")
        mapped = host.removeprefix("::ffff:")
        return address if mapped == host else IPv4Address("TCP", mapped, address.port)

    def getRequestHostname(self) -> bytes:
        """One name for all: Klein binds its routes to it and fails for names that IDNA refuses; ours never differ."""
        return b"localhost"

    def write(self, data: bytes) -> None:
        """Send a part of the answer; the first one sends the headers."""
        if not self.startedWriting and not self._rest_is_small():
            self.setHeader("Connection", "close")
        super().write(data)

    def finish(self) -> None:
        """The answer is complete, whether or not the body is."""
        if not self.body.complete:
            if not self.startedWriting:
                self.write(b"")
            self.body.discard()
            if self._rest_is_small():
                self._finish_later = True
                return
        super().finish()

    def _rest_is_small(self) -> bool:
        return self.body.complete or (self.body.length is not None and self.body.length <= _SMALL_REST)

    def processingFailed(self, reason: Failure) -> Failure:
        """What no app caught: log it, and tell the client no more than that."""
        self._log.failure("request failed", failure=reason)
        if self.startedWriting:
            self.channel.cut()
            return reason
        self.setResponseCode(500)
        self.setHeader("Content-Type", "text/plain; charset=utf-8")
        self.setHeader("Content-Length", "14")
        self.write(b"internal error")
        self.finish()
        return reason

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone. Cancels the route first, then lets a task that outlives it know that no byte follows."""
        if self.began:
            self.channel.site.log(self, aborted=True)
        super().connectionLost(reason)
        if hasattr(self, "body"):
            self.body.fail(ClientGone())


class KrakenChannel(HTTPChannel):
    """One connection of a client."""

    log = Logger()
    site: KrakenSite
    transport: Any
    abortTimeout = 5
    _first = True
    _header_began = False
    _lingering = False
    _lingered = 0

    @property
    def busy(self) -> bool:
        """A request is being read or answered."""
        return bool(self.requests)

    def connectionMade(self) -> None:
        """Called by Twisted."""
        super().connectionMade()
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Called by Twisted."""
        super().connectionLost(reason)
        self.site.forget(self)

    def dataReceived(self, data: bytes) -> None:
        """Called by Twisted."""
        if self._lingering:
            self._lingered += len(data)
            if self._lingered > _LINGER_BYTES:
                self.forceAbortClient()
            return
        if self._first:
            self._first = False
            if data[0] == _TLS_HANDSHAKE:
                self.log.debug("TLS hello on the plain port {name}", name=self.site.name)
                self.transport.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                self.loseConnection()
                return
        if not self.requests and not self._header_began:
            self._header_began = True
            self.setTimeout(self.site.header_s)
        super().dataReceived(data)

    def resetTimeout(self) -> None:
        """Headers have one deadline as a whole, so that nobody holds a connection by a byte now and then."""
        if not self._header_began:
            super().resetTimeout()

    def rawDataReceived(self, data: bytes) -> None:
        """Called by LineReceiver for bytes of a body."""
        if not self._lingering:
            super().rawDataReceived(data)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Called by LineReceiver for a header line without end."""
        self._respondToBadRequestAndDisconnect()

    def headerReceived(self, line: bytes) -> bool:
        """Called by HTTPChannel for each header."""
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and len(value.strip(b" \t")) > _LENGTH_DIGITS:
            self._respondToBadRequestAndDisconnect()
            return False
        return bool(super().headerReceived(line))

    def allHeadersReceived(self) -> None:
        """The headers are in: call the route now, unless there is no body to wait for."""
        self._header_began = False
        self.setTimeout(self.site.timeOut)
        super().allHeadersReceived()
        if self.length != 0:
            self.requests[-1].begin(self._command, self._path, self._version)

    def allContentReceived(self) -> None:
        """The body is in. It may end within the very bytes that made the route answer early."""
        if not self._lingering:
            super().allContentReceived()

    def pause_body(self) -> None:
        """The route is behind: read no more, and do not take the silence for the client's."""
        self._networkProducer.pauseProducing()
        self.setTimeout(None)

    def resume_body(self) -> None:
        """Read on."""
        if self.transport is not None and self.transport.connected:
            self._networkProducer.resumeProducing()
            if self.requests and not self.requests[0].body.complete:
                self.setTimeout(self.site.timeOut)

    def requestDone(self, request: KrakenRequest) -> None:
        """The answer is out."""
        if request.body.complete:
            if self.site.draining:
                self.persistent = False
            self._savedTimeOut = self.site.timeOut
            super().requestDone(request)
        else:
            del self.requests[0]
            self._linger()

    def _linger(self) -> None:
        """Close after an answer to a body that is still coming.

        Closing at once would make the kernel reset the connection, and the client might lose the answer: so end our
        half, and let the rest of the body run into the void for a moment.
        """
        self._lingering = True
        self.setTimeout(None)
        self._networkProducer.resumeProducing()
        self._abort_after(_LINGER_S)
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if half_close is None:
            self.loseConnection()
        else:
            half_close()

    def cut(self) -> None:
        """Close below an unfinished answer: what was written leaves, then the connection ends."""
        self._abort_after(self.abortTimeout)
        self.loseConnection()

    def _abort_after(self, seconds: float) -> None:
        if self._abortingCall is None:
            self._abortingCall = self.callLater(seconds, self.forceAbortClient)

    def forceAbortClient(self) -> None:
        """Reset the connection."""
        if self._abortingCall is not None and self._abortingCall.active():
            self._abortingCall.cancel()
        super().forceAbortClient()


class KrakenSite(Site):
    """A Site of one endpoint.

    Args:
        resource: usually `app.resource()` of a Klein app.
        reactor: for all timers.
        name: of the endpoint, for the log.
        idle_s: silence after which a connection is closed, between requests and within a body.
        header_s: time for all headers of a request.
        metrics: where requests are counted.
        level: of the access log's lines; answers of 500 and above are warnings, health checks are always `debug`.
    """

    def __init__(
        self,
        resource: IResource,
        *,
        reactor: IReactorTime,
        name: str,
        idle_s: float = 60.0,
        header_s: float = 20.0,
        metrics: HttpMetrics | None = None,
        level: LogLevel = LogLevel.info,
    ) -> None:
        super().__init__(resource, requestFactory=KrakenRequest, reactor=reactor, timeout=idle_s)
        self.name = name
        self.header_s = header_s
        self.channels: set[KrakenChannel] = set()
        self.draining = False
        self._metrics = metrics
        self._level = level
        self._empty: Deferred[None] | None = None

    noisy = False  # HttpService says where it listens
    protocol = KrakenChannel  # type: ignore[assignment]  # without the wrapper that speaks HTTP/2

    def startFactory(self) -> None:
        """Called by Twisted. The access log goes to twisted.logger, so there is no file to open."""

    def stopFactory(self) -> None:
        """Called by Twisted."""

    def log(self, request: Any, aborted: bool = False) -> None:
        """Write the line of one request, and count it."""
        elapsed_s = self.reactor.seconds() - request.began
        status = 499 if aborted else request.code
        if self._metrics is not None:
            self._metrics.observe(request.method, status, elapsed_s, request.sentLength)
        level = LogLevel.debug if request.path in _QUIET else LogLevel.warn if status >= 500 else self._level
        access.emit(
            level,
            "{name} {method} {path} {status} {size_bytes} bytes {elapsed_s:.3f} s for {client}",
            name=self.name,
            method=request.method.decode("latin-1"),
            path=request.path.decode("latin-1"),
            status=status,
            size_bytes=request.sentLength,
            elapsed_s=elapsed_s,
            client=getattr(request.getClientAddress(), "host", "-"),
        )

    def forget(self, channel: KrakenChannel) -> None:
        """A connection is closed."""
        self.channels.discard(channel)
        if not self.channels and self._empty is not None:
            empty, self._empty = self._empty, None
            empty.callback(None)

    async def drain(self, seconds: float) -> None:
        """Let the requests at work end, and close all connections; after `seconds` reset those that are left."""
        self.draining = True
        for channel in list(self.channels):
            if not channel.busy:
                channel.loseConnection()
        deadline = self.reactor.callLater(seconds, self._abort_all)
        try:
            if self.channels:
                self._empty = Deferred()
                await self._empty
        finally:
            if deadline.active():
                deadline.cancel()

    def _abort_all(self) -> None:
        for channel in list(self.channels):
            channel.transport.abortConnection()
