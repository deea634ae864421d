"""An HTTP endpoint as a service."""

# mypy: allow-untyped-calls
# twisted.application has no types.

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.web.resource import IResource

from krakentx.core.errors import ConfigError
from krakentx.web.ports import holder_of
from krakentx.web.site import KrakenSite

_BACKLOG = 511


class HttpService(Service):
    """Listens while it runs.

    Args:
        name: of the endpoint, for the log and for errors.
        resource: usually `app.resource()` of a Klein app.
        port: 0 lets the system choose; `port_number` tells which.
        interface: address to bind; empty for all, of IPv4 and IPv6 where the host has it.
        reactor: IReactorTCP and IReactorTime.
        setting: what an operator changes to move the port, for the error: `--port or proxy.port`.
        drain_s: how long requests at work may go on after the service is told to stop.
        site: further arguments of `KrakenSite`.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        resource: IResource,
        port: int,
        interface: str = "",
        *,
        reactor: Any,
        setting: str = "its port in the configuration",
        drain_s: float = 2.0,
        **site: Any,
    ) -> None:
        self.setName(name)
        self.site = KrakenSite(resource, reactor=reactor, name=name, **site)
        self._wanted = port
        self._interface = interface
        self._reactor = reactor
        self._setting = setting
        self._drain_s = drain_s
        self._port: IListeningPort | None = None

    @property
    def port_number(self) -> int:
        """The port in use; the wanted one while the service does not run."""
        address: Any = None if self._port is None else self._port.getHost()
        return self._wanted if address is None else address.port

    def privilegedStartService(self) -> None:
        """Bind before twistd gives up root, for ports below 1024."""
        super().privilegedStartService()
        self._bind()

    def startService(self) -> None:
        """Bind, unless that is done.

        Raises:
            ConfigError: the port is taken, or this process or host may not bind it.
        """
        super().startService()
        self._bind()

    def _bind(self) -> None:
        if self._port is not None:
            return
        self.site.draining = False
        try:
            self._port = self._listen()
        except CannotListenError as error:
            raise ConfigError(self._explain(error)) from error
        self.log.info("{name} listens on port {port}", name=self.name, port=self.port_number)

    def _listen(self) -> IListeningPort:
        port: IListeningPort
        if not self._interface and socket.has_ipv6:
            try:
                port = self._reactor.listenTCP(self._wanted, self.site, _BACKLOG, "::")
                return port
            except CannotListenError as error:
                if getattr(error.socketError, "errno", None) not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
        port = self._reactor.listenTCP(self._wanted, self.site, _BACKLOG, self._interface)
        return port

    def _explain(self, error: CannotListenError) -> str:
        where = f"port {self._wanted} of {self._interface or 'all addresses'}"
        change = f"choose another one ({self._setting})"
        number = getattr(error.socketError, "errno", None)
        if number == errno.EADDRINUSE:
            return f"{self.name}: {where} is taken by {holder_of(self._wanted)}; stop that, or {change}"
        if number == errno.EACCES:
            return f"{self.name}: {where} needs root; {change} above 1023"
        return f"{self.name}: cannot listen on {where}: {error.socketError}; {change}"

    def stopService(self) -> Deferred[None]:
        """Stop listening, let requests at work end within `drain_s`, close every connection."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        await self.site.drain(self._drain_s)
