"""Requests to other hosts: pooled connections, a deadline on everything, and errors that say which host did what."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Awaitable, Callable, Container, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import (  # type: ignore[attr-defined]  # RequestNotSent is not in its __all__
    Agent,
    HTTPConnectionPool,
    RequestGenerationFailed,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse

from krakentx.core.errors import KrakenError, Unavailable
from krakentx.web.downloading import Receive as Receive
from krakentx.web.downloading import Sink
from krakentx.web.endpoints import Endpoints
from krakentx.web.uploading import BytesBody, FileBody, StallTimer

T = TypeVar("T")
RETRY_STATUS = frozenset({429, 502, 503, 504})
MAX_BODY = 32 << 20
"""Bytes of an answer that `request` keeps in memory. The metainfo of a blob of a million pieces has 11 MiB."""

_REWINDABLE = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_RETRY_AFTER_DIGITS = 6
_PRINTABLE = re.compile(r"[!-~]+")
_FIRST_DELAY_S = 0.25
_MAX_DELAY_S = 5.0
_CACHED_S = 20.0
"""How long an idle connection is kept: shorter than any server's idle time, so that none dies under a request."""


@frozen
class Response:
    """An answer.

    Args:
        body: empty when the bytes went to a callback.
        length: as announced, for HEAD too; None for a chunked answer. The header itself is kept back by Twisted.
    """

    status: int
    headers: Headers
    body: bytes = b""
    length: int | None = None

    def header(self, name: str) -> str | None:
        """The last value of a header."""
        values = self.headers.getRawHeaders(name)
        return values[-1] if values else None

    def json(self) -> Any:
        """The body, read as JSON. Raises ValueError."""
        return json.loads(self.body)


class HttpClient:
    """Asks other hosts. One for each component; `close` it when the component stops.

    Whatever goes wrong is `Unavailable(host, reason, status=)`: no connection, no answer in time, or an answer whose
    status is not in `ok`, which then is the error's `status`. Cancelling a call ends its connection.

    Args:
        reactor: IReactorTCP and IReactorTime.
        timeout_s: for one try of a `request`, from the first packet to the last byte.
        connect_s: for making a connection.
        stall_s: longest silence within a `download` or `upload`.
        pool_size: idle connections kept to one host.
        rng: for the jitter of retries.
        agent: in place of real connections, for tests.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        timeout_s: float = 60.0,
        connect_s: float = 3.0,
        stall_s: float = 30.0,
        pool_size: int = 8,
        rng: random.Random | None = None,
        agent: IAgent | None = None,
    ) -> None:
        self._reactor = reactor
        self._timeout_s = timeout_s
        self._stall_s = stall_s
        self._rng = rng or random.Random()
        self._pools: list[HTTPConnectionPool] = []

        def connected(impatient: bool) -> IAgent:
            pool = HTTPConnectionPool(reactor)
            pool.maxPersistentPerHost = pool_size
            pool.cachedConnectionTimeout = _CACHED_S  # type: ignore[assignment]  # callLater takes any number
            self._pools.append(pool)
            dialling: IAgent = Agent.usingEndpointFactory(reactor, Endpoints(reactor, connect_s, impatient), pool=pool)
            return dialling

        self._agent = agent or connected(True)
        # To TCP, a server that pauses an upload because its disk is busy looks like one that is gone.
        self._uploader = agent or connected(False)

    async def close(self) -> None:
        """Close the idle connections."""
        for pool in self._pools:
            await pool.closeCachedConnections()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float | None = None,
        ok: Container[int] | None = (200,),
        retries: int = 0,
        max_body: int = MAX_BODY,
    ) -> Response:
        """Ask, and read the whole answer.

        Args:
            timeout_s: for one try; by default that of the client.
            ok: statuses to return; None for any.
            retries: further tries after no connection, a broken one, no answer in time, or one of `RETRY_STATUS`; for
                POST and PATCH only when no connection was made, since the other side may have acted.
            max_body: of the answer.

        Raises:
            Unavailable: see the class.
        """

        async def once() -> Response:
            return await self._deadline(
                self._collect(method, url, headers, body, ok, max_body), url, timeout_s or self._timeout_s
            )

        return await self._retrying(once, method, retries)

    async def download(
        self,
        url: str,
        receive: Receive,
        *,
        headers: Mapping[str, str] | None = None,
        stall_s: float | None = None,
        timeout_s: float | None = None,
        ok: Container[int] = (200,),
        began: Callable[[Response], None] | None = None,
    ) -> Response:
        """GET, handing the bytes on as they come.

        Args:
            receive: gets each run of bytes; when it returns an awaitable, the connection is paused until that is done.
            stall_s: longest silence, before the answer and within it.
            timeout_s: for the whole; by default none.
            ok: statuses whose body goes to `receive`.
            began: is told status and headers before the first byte; what it raises ends the download.

        Raises:
            Unavailable: see the class; also when the body ends early.
        """
        stall = stall_s or self._stall_s

        async def run() -> Response:
            response, host = await self._deadline(self._follow("GET", url, headers, None), url, stall)
            if response.code not in ok:
                raise await self._refused(response, host)
            answer = _answer(response)
            try:
                if began is not None:
                    began(answer)
            except BaseException:
                await self._drop(response)
                raise
            await self._deliver(response, host, receive, stall)
            return answer

        return await (run() if timeout_s is None else self._deadline(run(), url, timeout_s))

    async def upload(
        self,
        method: str,
        url: str,
        source: Path | int,
        *,
        offset: int = 0,
        length: int | None = None,
        headers: Mapping[str, str] | None = None,
        stall_s: float | None = None,
        answer_s: float | None = None,
        ok: Container[int] | None = (200,),
        retries: int = 0,
    ) -> Response:
        """Send bytes [offset, offset + length) of a file, at the pace of the other side.

        Args:
            source: a path, or an open file (left open; its position is not used).
            length: by default to the end of the file.
            stall_s: longest time in which the other side takes nothing.
            answer_s: for the answer after the last byte; by default the client's `timeout_s`.
            retries: as for `request`.

        Raises:
            Unavailable: see the class. OSError: the file cannot be read.
        """

        async def once() -> Response:
            with FileBody(source, offset, length) as body:
                return await self._send(method, url, headers, body, stall_s or self._stall_s, answer_s, ok)

        return await self._retrying(once, method, retries)

    async def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        body: FileBody,
        stall_s: float,
        answer_s: float | None,
        ok: Container[int] | None,
    ) -> Response:
        host = _host(url)
        call = Deferred.fromCoroutine(self._collect(method, url, headers, body, ok, MAX_BODY))
        timer = StallTimer(self._reactor, call.cancel)
        body.moved = lambda: timer.start(stall_s if body.left else answer_s or self._timeout_s)
        body.moved()
        try:
            return await call
        except (CancelledError, Unavailable):
            if not timer.expired:
                raise
            what = f"took nothing for {stall_s:g} s" if body.left else "did not answer after the last byte"
            raise Unavailable(host, what) from None
        finally:
            timer.stop()
            body.stopProducing()

    async def _retrying(self, once: Callable[[], Awaitable[T]], method: str, retries: int) -> T:
        for attempt in range(retries + 1):
            try:
                return await once()
            except Unavailable as error:
                if attempt == retries or not _may_retry(error, method):
                    raise
                delay = min(_MAX_DELAY_S, max(_FIRST_DELAY_S * 2**attempt, error.retry_after_s if error.status else 0))
            await deferLater(self._reactor, delay * self._rng.uniform(0.5, 1.0), lambda: None)
        raise AssertionError("unreachable")

    async def _collect(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        body: bytes | IBodyProducer | None,
        ok: Container[int] | None,
        max_body: int,
    ) -> Response:
        response, host = await self._follow(method, url, headers, body)
        if ok is not None and response.code not in ok:
            raise await self._refused(response, host)
        parts: list[bytes] = []
        room = max_body

        def keep(data: bytes) -> None:
            nonlocal room
            room -= len(data)
            if room < 0:
                raise Unavailable(host, f"answered with more than {max_body} bytes")
            parts.append(data)

        await self._deliver(response, host, keep, None)
        return _answer(response, b"".join(parts))

    async def _follow(
        self, method: str, url: str, headers: Mapping[str, str] | None, body: bytes | IBodyProducer | None
    ) -> tuple[IResponse, str]:
        """Ask, and follow redirects of what can be asked again."""
        sent = Headers({name: [value] for name, value in (headers or {}).items()})
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._ask(method, url, sent, BytesBody(body) if isinstance(body, bytes) else body)
            target = response.headers.getRawHeaders("Location")
            streamed = body is not None and not isinstance(body, bytes)
            rewindable = method in ("GET", "HEAD") or (response.code in (307, 308) and not streamed)
            if response.code not in _REDIRECTS or not target or not rewindable:
                return response, _host(url)
            await self._drop(response)
            host = _host(url)
            try:
                url = urljoin(url, target[-1])
                if not _PRINTABLE.fullmatch(url):
                    raise ValueError("it needs to be escaped")
            except ValueError as error:
                raise Unavailable(host, f"redirects to {target[-1][:200]!r}") from error
            if _host(url) != host:  # a secret is for the host it was meant for
                sent.removeHeader("Authorization")
        raise Unavailable(_host(url), f"redirects more than {_MAX_REDIRECTS} times")

    async def _ask(self, method: str, url: str, headers: Headers, body: IBodyProducer | None) -> IResponse:
        host = _host(url)
        agent = self._uploader if isinstance(body, FileBody) else self._agent
        call = agent.request(method.encode(), url.encode(), headers, body)
        # A cancelled request fails in as many ways as it has stages, a failed look-up of the name among them.
        cancelled = False

        def cancel(_answer: Deferred[IResponse]) -> None:
            nonlocal cancelled
            cancelled = True
            call.cancel()

        answer: Deferred[IResponse] = Deferred(cancel)
        call.chainDeferred(answer)
        try:
            return await answer
        except Exception as error:
            if cancelled:
                raise CancelledError from None
            raise _told(host, url, error) from error

    async def _deliver(self, response: IResponse, host: str, receive: Receive, stall_s: float | None) -> None:
        sink = Sink(receive, self._reactor, stall_s)
        response.deliverBody(sink)
        try:
            await sink.done
        except TimeoutError as error:
            raise Unavailable(host, f"sent nothing for {stall_s:g} s") from error
        except (ResponseFailed, ResponseNeverReceived) as error:
            raise _told(host, "", error) from error

    async def _refused(self, response: IResponse, host: str) -> Unavailable:
        """The error for a status that nobody wanted, with the beginning of what the host said."""
        said: list[bytes] = []
        until = self._reactor.seconds() + self._stall_s

        def keep(data: bytes) -> None:
            said.append(data)
            if sum(map(len, said)) > 500 or self._reactor.seconds() > until:  # by a byte now and then, never silent
                raise _Enough

        try:
            await self._deliver(response, host, keep, self._stall_s)
        except (_Enough, Unavailable):
            pass
        text = " ".join(b"".join(said).decode("utf-8", "replace").split())[:300]
        reason = f"answered {response.code}" + (f": {text}" if text else "")
        return Unavailable(host, reason, status=response.code, retry_after_s=_retry_after(response.headers))

    async def _drop(self, response: IResponse) -> None:
        """Let a small body pass, so that the connection can be used again; end the connection for a big one."""
        await self._refused(response, "")

    async def _deadline(self, coroutine: Coroutine[Deferred[Any], Any, T], url: str, timeout_s: float) -> T:
        def late(_result: T | Failure, _timeout: float) -> T:
            raise Unavailable(_host(url), f"no answer within {timeout_s:g} s")

        return await Deferred.fromCoroutine(coroutine).addTimeout(timeout_s, self._reactor, onTimeoutCancel=late)


class NotConnected(Unavailable):
    """No connection was made, so the host cannot have acted."""


class _Enough(KrakenError):
    """As much of an error's body as anybody wants to read."""


def _may_retry(error: Unavailable, method: str) -> bool:
    if isinstance(error, NotConnected):
        return True
    return method in _REWINDABLE and (error.status is None or error.status in RETRY_STATUS)


def _told(host: str, url: str, error: Exception) -> Exception:
    """What the failure of a request means to a caller."""
    if isinstance(error, (ConnectError, DNSLookupError)):
        return NotConnected(host, _plain(error))
    if isinstance(error, SchemeNotSupported):
        return Unavailable(host, f"only http and https can be asked, not {url[:200]!r}")
    reasons: list[Failure] = getattr(error, "reasons", None) or []
    cause = reasons[-1].value if reasons else error
    if isinstance(error, RequestGenerationFailed) and isinstance(cause, OSError):
        return cause  # the file that was to be sent
    if isinstance(error, (RequestNotSent, RequestTransmissionFailed, ResponseFailed, ResponseNeverReceived)):
        return Unavailable(host, f"broke the connection ({_plain(cause)})")
    return error


def _plain(error: BaseException | None) -> str:
    number = getattr(error, "osError", None)  # Twisted's errors say the same twice, and the number between
    text = os.strerror(number) if isinstance(number, int) else str(error) or type(error).__name__
    return text.rstrip(".").replace("\n", " ")


def _answer(response: IResponse, body: bytes = b"") -> Response:
    announced = response.headers.getRawHeaders("Content-Length")  # left there for HEAD only
    length = int(announced[0]) if announced else None if response.length is UNKNOWN_LENGTH else int(response.length)
    return Response(response.code, response.headers, body, length)


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _retry_after(headers: Headers) -> float:
    value = (headers.getRawHeaders("Retry-After") or [""])[-1]
    return float(value) if value.isascii() and value.isdigit() and len(value) <= _RETRY_AFTER_DIGITS else 1.0
