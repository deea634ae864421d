"""Sockets in and out: the listening port with its bounds on strangers, and the dial with its deadline."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as WaitTimeoutError
from twisted.internet.error import (
    CannotListenError,
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from krakentx.core.peer import format_address
from krakentx.peer.counters import Counters
from krakentx.peer.protocol import PeerProtocol
from krakentx.peer.secure import BulkConnector, BulkPort, TlsRefused
from krakentx.peer.tlsconfig import PeerTls
from krakentx.swarm.events import Lost

BACKLOG = 511


def _host(address: Any) -> str:
    """The host of a socket address; an IPv4 one that came through an IPv6 socket counts as IPv4."""
    return str(address.host).removeprefix("::ffff:")


class AcceptFactory(ServerFactory):
    """Builds a protocol for each accepted socket, unless too many of them belong to strangers.

    A stranger is whoever has no connection of the Engine: it has not greeted yet, or was refused or sent away and its
    socket lingers. Both would otherwise cost a file handle for as long as it likes.

    Args:
        limit: strangers of all addresses together.
    """

    log = Logger()
    noisy = False

    def __init__(self, build: Callable[[], PeerProtocol], limit: int, counters: Counters) -> None:
        self._build = build
        self.limit = limit
        self._counters = counters
        self._hosts: dict[PeerProtocol, str] = {}  # of every accepted socket
        self._strangers: set[PeerProtocol] = set()
        self._per_host: Counter[str] = Counter()  # strangers

    @property
    def strangers(self) -> int:
        """Sockets of strangers."""
        return len(self._strangers)

    def buildProtocol(self, addr: IAddress | None) -> PeerProtocol | None:
        """Twisted: a socket was accepted; None closes it."""
        host = _host(addr)
        # One address may hold a quarter of the room, so that it cannot shut the others out.
        if len(self._strangers) >= self.limit or self._per_host[host] >= max(1, self.limit // 4):
            self._counters.refused_sockets += 1
            self.log.debug("refusing {addr}: too many sockets of strangers", addr=host)
            return None
        protocol = self._build()
        self._hosts[protocol] = host
        self.estranged(protocol)
        self._counters.accepted += 1
        return protocol

    def known(self, protocol: PeerProtocol) -> None:
        """It is a connection of the Engine now."""
        if protocol in self._strangers:
            host = self._hosts[protocol]
            self._strangers.remove(protocol)
            self._per_host[host] -= 1
            if not self._per_host[host]:
                del self._per_host[host]

    def estranged(self, protocol: PeerProtocol) -> None:
        """It is none, or none any more."""
        if protocol in self._hosts and protocol not in self._strangers:
            self._strangers.add(protocol)
            self._per_host[self._hosts[protocol]] += 1

    def gone(self, protocol: PeerProtocol) -> None:
        """Its socket is closed."""
        self.known(protocol)
        self._hosts.pop(protocol, None)


def listen(
    reactor: Any, port: int, factory: AcceptFactory, interface: str = "", tls: PeerTls | None = None
) -> BulkPort:
    """Listen on an interface; "" = all, of IPv4 and IPv6 where the host has it.

    Args:
        tls: None = the plain wire only.

    Raises:
        CannotListenError: the port is taken, or the interface is not ours.
    """
    if not interface and socket.has_ipv6:
        both = BulkPort(port, factory, BACKLOG, "::", reactor, tls=tls)
        try:
            both.startListening()
            return both
        except CannotListenError as error:
            if error.socketError.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
    listening = BulkPort(port, factory, BACKLOG, interface, reactor, tls=tls)
    listening.startListening()
    return listening


class DialError(Exception):
    """A dial failed.

    Args:
        reason: what to tell the Engine.
        addr: the address that was tried last.
        problem: in plain words.
    """

    def __init__(self, reason: Lost, addr: str, problem: str) -> None:
        self.reason = reason
        self.addr = addr
        self.problem = problem
        super().__init__(f"{addr}: {problem}")


class _DialFactory(ClientFactory):
    noisy = False

    def __init__(self, protocol: PeerProtocol, secure: bool) -> None:
        self._protocol = protocol
        self._secure = secure
        self.done: Deferred[PeerProtocol] = Deferred()
        self._connector: Any = None

    def startedConnecting(self, connector: IConnector) -> None:
        self._connector = connector

    def buildProtocol(self, addr: IAddress | None) -> PeerProtocol:
        # The protocol is handed on only when it is connected, which is right after we return; or secured.
        if not self._secure:
            self._connector.reactor.callLater(0, self.up)
        return self._protocol

    def up(self) -> None:
        """The protocol can be used."""
        if self.done.called:
            return
        if self._protocol.closing:
            self.done.errback(ConnectionLost())
        else:
            self.done.callback(self._protocol)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        if not self.done.called:
            self.done.errback(reason)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        self.clientConnectionFailed(connector, reason)

    def abandon(self) -> None:
        """Nobody waits any more."""
        if self._connector is None:
            return
        if self._connector.state == "connected":
            self._protocol.abort()
        else:
            self._connector.disconnect()


async def _addresses(reactor: Any, host: str) -> list[str]:
    """The IP addresses of a host, in the resolver's order."""
    if isIPAddress(host) or isIPv6Address(host.partition("%")[0]):
        return [host]
    try:
        host.encode("idna")
    except UnicodeError:
        return []  # the resolver would fail in a thread, with nobody to hear of it
    found: list[str] = []
    done: Deferred[None] = Deferred()

    class Receiver:
        def resolutionBegan(self, _resolution: object) -> None: ...

        def addressResolved(self, address: IPv4Address | IPv6Address) -> None:
            if address.host not in found:
                found.append(address.host)

        def resolutionComplete(self) -> None:
            if not done.called:
                done.callback(None)

    reactor.nameResolver.resolveHostName(Receiver(), host)
    await done
    return found


def _meaning(error: Exception) -> tuple[Lost, str]:
    if isinstance(error, ConnectionRefusedError):
        return Lost.REFUSED, "connection refused"
    if isinstance(error, (TimeoutError, TCPTimedOutError)):
        return Lost.TIMEOUT, "no answer in time"
    if isinstance(error, TlsRefused):
        return Lost.UNREACHABLE, f"TLS: {error}"
    if isinstance(error, (ConnectionDone, ConnectionLost)):
        return Lost.RESET, "connection reset"
    return Lost.UNREACHABLE, str(error) or type(error).__name__


async def dial(
    reactor: Any,
    host: str,
    port: int,
    build: Callable[[], PeerProtocol],
    timeout_s: float,
    tls: PeerTls | None = None,
) -> PeerProtocol:
    """Connect to one of the host's addresses, in their order.

    Args:
        tls: None = the plain wire.

    Returns:
        The protocol, connected and, with `tls`, secured.

    Raises:
        DialError: none answered within `timeout_s`.
    """
    deadline = reactor.seconds() + timeout_s
    addr = format_address(host, port)
    try:
        names = await Deferred.fromCoroutine(_addresses(reactor, host)).addTimeout(timeout_s, reactor)
    except WaitTimeoutError as error:
        raise DialError(Lost.TIMEOUT, addr, "its name was not resolved in time") from error
    failed = DialError(Lost.UNREACHABLE, addr, "no such host")
    for index, name in enumerate(names):
        left = deadline - reactor.seconds()
        if left <= 0:
            break
        factory = _DialFactory(build(), secure=tls is not None)
        addr = format_address(name, port)
        # Each address gets its share, or a silent first one would leave nothing for the second.
        share = left / (len(names) - index)
        try:
            BulkConnector(name, port, factory, share, None, reactor, tls=tls).connect()
            return await factory.done.addTimeout(share, reactor)
        except CancelledError:
            factory.abandon()
            raise
        except WaitTimeoutError:
            factory.abandon()
            failed = DialError(Lost.TIMEOUT, addr, "no answer in time")
        except (OSError, ValueError, ConnectError, ConnectionDone, ConnectionLost) as error:
            # ValueError: an interface behind the `%` of an address that is none
            reason, problem = _meaning(error)
            failed = DialError(reason, addr, problem)
    raise failed
