"""Telling the service manager how this process fares, by the protocol of sd_notify.

systemd puts the address of a datagram socket into NOTIFY_SOCKET, and in WATCHDOG_USEC how long it waits for a sign of
life before it ends the process. The signs come from a timer of the reactor, so that a reactor which is stuck in one
call, or a process that is stopped, gives none.
"""

# mypy: allow-untyped-calls
# twisted.application has no types.

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

_SEND_S = 0.5  # for a manager whose queue is full; it reads without delay otherwise


class Notifier:
    """Says that the service is ready, that it lives, and that it stops; nothing where no manager asks for it.

    Args:
        reactor: IReactorCore and IReactorTime.
        env: the variables are taken out of it, since they are not meant for our own child processes.
    """

    log = Logger()

    def __init__(self, reactor: Any, env: MutableMapping[str, str] = os.environ) -> None:
        self._reactor = reactor
        self._address = env.pop("NOTIFY_SOCKET", "")
        self._timeout_us = env.pop("WATCHDOG_USEC", "")
        self._watched_pid = env.pop("WATCHDOG_PID", "")
        self._socket: socket.socket | None = None
        self._heard = True
        self._stopping = False
        self._living = LoopingCall(self._send, "WATCHDOG=1")
        self._living.clock = reactor

    @property
    def ping_s(self) -> float:
        """Seconds between two signs of life, half of what the manager waits; 0 when it asks this process for none."""
        if not self._timeout_us.isdecimal() or self._watched_pid not in ("", str(os.getpid())):
            return 0.0
        return int(self._timeout_us) / 2e6

    def started(self, status: str) -> None:
        """Every part has started. The manager is told from the first turn of the reactor on, which serves them.

        Args:
            status: one line for `systemctl status`.
        """
        if self._address:
            self._reactor.callWhenRunning(self._ready, status)

    def stopping(self) -> None:
        """The service begins to stop; it still gives signs of life, for stopping may take longer than their pause."""
        self._stopping = True
        self._send("STOPPING=1", "STATUS=stopping")

    def stopped(self) -> None:
        """Say no more."""
        if self._living.running:
            self._living.stop()
        if self._socket is not None:
            self._socket.close()
        self._socket, self._address = None, ""

    def _ready(self, status: str) -> None:
        if self._stopping:
            return
        self._send("READY=1", f"STATUS={status}")
        if self.ping_s:
            self._living.start(self.ping_s).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self.log.failure("the watchdog gets no more signs of life", failure=failure)

    def _send(self, *state: str) -> None:
        if not self._address:
            return
        try:
            if self._socket is None:  # kept, so that a process which has no more descriptors can still tell it lives
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.settimeout(_SEND_S)
            self._socket.sendto("\n".join(state).encode(), _path(self._address))
        except OSError as error:
            if self._heard:
                self.log.warn("cannot notify {address}: {error}", address=self._address, error=str(error))
            self._heard = False
        else:
            self._heard = True


def _path(address: str) -> str:
    """As the kernel wants it: a socket without a file has a zero byte where its name in the environment has an @."""
    return "\0" + address[1:] if address.startswith("@") else address


def listening(service: Any) -> str:
    """What listens where under `service`, by port: `peer wire 16001, agent management 16002`.

    That is each of its parts with a name and a `port_number`.
    """
    found = sorted(
        (each.port_number, each.name) for each in _tree(service) if each.name and hasattr(each, "port_number")
    )
    return ", ".join(f"{name} {port}" for port, name in found)


def _tree(service: Any) -> Iterator[Any]:
    yield service
    parts: Iterable[Any] = getattr(service, "services", ())
    for part in parts:
        yield from _tree(part)
