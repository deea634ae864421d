"""Connections of the peer wire, in and out, that may be encrypted.

On the one port both wires are told apart by the first byte, which is looked at and left in the socket: 0x16 begins a
TLS record, 0 the length of a plain frame. Under TLS the transport gets a `TlsSocket` in place of its socket and is
otherwise the same, but for three things: bytes may wait decrypted in memory while the socket is silent, so reading goes
on by a timer; bytes may wait encrypted, so writing is not over when the queue is empty; and nothing is written before
hands are shaken.

Deadlines are those of the plain wire: the one for the peer's handshake runs from the socket on, and a connection counts
among those that have not spoken yet until that handshake has come, TLS or not.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any, cast

from twisted.internet import main, tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from krakentx.peer.bulk import BulkTransport
from krakentx.peer.tlsconfig import PeerTls
from krakentx.peer.tlssocket import TlsSocket, problem_of

TLS_RECORD = b"\x16"


class TlsRefused(ConnectionLost):
    """TLS has ended the connection; `str` of it is a clause in which `it` is the peer."""

    def __str__(self) -> str:
        return str(self.args[0])


class SecureTransport(BulkTransport):
    """What server and client connections have in common."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._tls: TlsSocket | None = None
        self._again: IDelayedCall | None = None
        super().__init__(*args, **kwargs)

    @property
    def _clock(self) -> IReactorTime:
        return cast(IReactorTime, self.reactor)

    def start_tls(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        """From now on everything is encrypted."""
        self._tls = TlsSocket(self.socket, context, server_side=server_side)
        self.socket = cast(socket.socket, self._tls)
        self.use_sendfile = False  # the bytes must pass OpenSSL

    def secured(self) -> None:
        """Hands are shaken."""

    def _refuse(self, problem: str) -> TlsRefused:
        """What to return to the reactor."""
        self.counters.tls_refused += 1
        return TlsRefused(problem)

    # --- reading

    def doRead(self) -> Any:
        """Twisted: the socket has bytes."""
        tls = self._tls
        if tls is None:
            return super().doRead()
        if not tls.shaken and (why := self._shake(tls)) is not None:
            return why
        result = super().doRead() if tls.shaken else None
        if tls.error is not None:
            return self._refuse(problem_of(tls.error))
        if result is None:
            if tls.leaving:
                FileDescriptor.startWriting(self)
            if tls.buffered:
                self._read_again()
        return result

    def _shake(self, tls: TlsSocket) -> Any:
        try:
            if tls.shake():
                self.secured()
                if self.frames_waiting:
                    self.startWriting()
        except ssl.SSLError as error:
            return self._refuse(problem_of(error))
        except OSError:
            return main.CONNECTION_LOST
        return None

    def startReading(self) -> None:
        """Twisted: tell when the socket has bytes; those that are decrypted already are read without it."""
        super().startReading()  # type: ignore[no-untyped-call]
        if self._tls is not None and self._tls.buffered:
            self._read_again()

    def _read_again(self) -> None:
        """Read on after the others had their turn."""
        if self._again is None:
            self._again = self._clock.callLater(0, self._reread)

    def _reread(self) -> None:
        self._again = None
        if self.connected and not (self._paused or self._read_held or self.disconnecting):
            why = self.doRead()
            if why is not None:
                self.readConnectionLost(Failure(why))

    # --- writing

    def doWrite(self) -> Any:
        """Twisted: the socket takes bytes."""
        if self._tls is not None:
            try:
                self._tls.flush()
            except BlockingIOError:
                return None
            except OSError:
                return main.CONNECTION_LOST
            if not self._tls.shaken:
                self.stopWriting()  # type: ignore[no-untyped-call]
                return None
        return super().doWrite()

    def drained(self) -> Any:
        """As ever, but not before the encrypted bytes have left."""
        return None if self._tls is not None and self._tls.leaving else super().drained()

    def connectionLost(self, reason: Failure) -> None:
        """Twisted: the connection is gone."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        super().connectionLost(reason)


class BulkServer(SecureTransport, tcp.Server):
    """An accepted connection."""

    server: BulkPort

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._undecided = self.server.tls is not None

    def doRead(self) -> Any:
        """Twisted: the socket has bytes."""
        policy = self.server.tls
        if self._undecided and policy is not None:
            try:
                first = self.socket.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return None
            except OSError:
                return main.CONNECTION_LOST
            self._undecided = False
            if first == TLS_RECORD:
                self.start_tls(policy.accept, server_side=True)
            elif first and policy.required:
                return self._refuse("it speaks the plain wire, and tls.peers is `required` here")
        return super().doRead()


class BulkClient(SecureTransport, tcp.Client):
    """A dialled connection."""

    connector: BulkConnector

    def _connectDone(self) -> None:
        super()._connectDone()  # type: ignore[no-untyped-call]
        policy = self.connector.tls
        if policy is not None:
            self.start_tls(policy.dial, server_side=False)
            self._read_again()  # which begins to shake hands

    def secured(self) -> None:
        """Hands are shaken."""
        cast(Any, self.connector.factory).up()


class BulkPort(tcp.Port):
    """A listening port of bulk connections.

    Args:
        tls: what may be spoken here besides the plain wire, or in place of it; None = nothing.
    """

    transport = BulkServer

    def __init__(self, *args: Any, tls: PeerTls | None = None) -> None:
        super().__init__(*args)
        self.tls = tls


class BulkConnector(tcp.Connector):
    """Dials a bulk connection.

    Args:
        tls: None = the plain wire. Otherwise the factory is told by its `up()` when hands are shaken.
    """

    def __init__(self, *args: Any, tls: PeerTls | None = None) -> None:
        super().__init__(*args)
        self.tls = tls

    def _makeTransport(self) -> BulkClient:
        return BulkClient(self.host, self.port, self.bindAddress, self, self.reactor)
