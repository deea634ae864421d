"""How outgoing HTTP connections are made: so that a host which vanished is noticed, also by connections made before.

A firewall that drops, or a host without power, answers nothing. A new connection then ends with `connect_s`. Yet a
connection that was kept from an earlier request would take the next one and wait for its answer; only TCP knows that
nobody there acknowledges. So TCP is told to give up after a few seconds instead of a quarter of an hour.
"""

from __future__ import annotations

import socket
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.web.client import URI, BrowserLikePolicyForHTTPS
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

_UNACKNOWLEDGED_S = 3.0
_IDLE_S = 10
_PROBE_S = 2


@implementer(IAgentEndpointFactory)
@frozen
class Endpoints:
    """Makes the connections of an `Agent`.

    Args:
        reactor: IReactorTCP, IReactorTime and IReactorPluggableNameResolver.
        connect_s: for making a connection.
        impatient: give a connection up as soon as nobody acknowledges, or takes what is sent, for a few seconds.
    """

    reactor: Any
    connect_s: float
    impatient: bool = True

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Called by Twisted. Raises: SchemeNotSupported."""
        if uri.scheme not in (b"http", b"https"):
            raise SchemeNotSupported(f"cannot speak {uri.scheme!r}")
        host: Any = HostnameEndpoint(self.reactor, uri.host.decode("ascii"), uri.port, timeout=self.connect_s)
        endpoint: IStreamClientEndpoint = _Watched(host) if self.impatient else host
        if uri.scheme != b"https":
            return endpoint
        creator = BrowserLikePolicyForHTTPS().creatorForNetloc(uri.host, uri.port)
        return wrapClientTLS(creator, endpoint)


@implementer(IStreamClientEndpoint)
@frozen
class _Watched:
    """Connections of which TCP notices that the other side is gone."""

    endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Called by Twisted."""
        return self.endpoint.connect(protocolFactory).addCallback(_watch)


def _watch(protocol: Any) -> Any:
    handle: socket.socket = protocol.transport.getHandle()
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_USER_TIMEOUT", int(_UNACKNOWLEDGED_S * 1000)),
        ("TCP_KEEPIDLE", _IDLE_S),
        ("TCP_KEEPINTVL", _PROBE_S),
    ):
        option = getattr(socket, name, None)  # Linux has them all
        if option is not None:
            handle.setsockopt(socket.IPPROTO_TCP, option, value)
    return protocol
