"""Which host to ask: lists of hosts, their order, and what is known of their health.

Health is passive: whoever gets no answer from a host says so, and the host is then asked last, never excluded. So a
list in which everything failed is still tried, and a host that came back is found again by being asked.
"""

from __future__ import annotations

import random
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHostResolution,
    IReactorPluggableNameResolver,
    IReactorTime,
    IResolutionReceiver,
)
from twisted.logger import Logger
from zope.interface import implementer

from krakentx.clients.config import HostsConfig, PassiveConfig
from krakentx.core.digest import Digest
from krakentx.core.errors import Unavailable
from krakentx.core.hashring import ranked
from krakentx.core.peer import format_address, parse_address
from krakentx.storage.threads import Shared

T = TypeVar("T")

_LOOKUP_TIMEOUT_S = 5.0


def normalise(text: str, default_port: int) -> str:
    """`host:port` as it labels a node of the ring; an IPv6 address in brackets, the port filled in.

    Raises:
        InvalidInput: no host, or no valid port.
    """
    return format_address(*parse_address(text.strip(), default_port))


def own_addresses(hostname: str, port: int) -> tuple[str, ...]:
    """The labels by which a list may name this process, the likeliest first."""
    names = [hostname] if hostname else [socket.gethostname(), socket.getfqdn()]
    try:
        found = [str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(names[0], None)]
    except OSError:
        found = []
    names += [*found, "127.0.0.1", "::1", "localhost", "host.docker.internal"]
    return tuple(dict.fromkeys(format_address(name, port) for name in names))


@define
class PassiveHealth:
    """Remembers which hosts gave no answer lately."""

    clock: IReactorTime
    config: PassiveConfig = field(factory=PassiveConfig)
    _failures: dict[str, deque[float]] = field(factory=dict, init=False)

    def failed(self, host: str) -> None:
        """Note that this host gave no answer, or answered that it is in trouble."""
        times = self._failures.setdefault(host, deque(maxlen=max(1, self.config.fails)))
        times.append(self.clock.seconds())

    def passed(self, host: str) -> None:
        """Note a proper answer: what was before is forgotten."""
        self._failures.pop(host, None)

    def healthy(self, host: str) -> bool:
        """False when it failed `fails` times in a row within the last `fail_timeout`."""
        times = self._failures.get(host)
        if times is None or len(times) < max(1, self.config.fails):
            return True
        return self.clock.seconds() - times[0] >= self.config.fail_timeout_s

    def shaky(self, host: str) -> bool:
        """True when its last answer was a failure: worth trying another one first."""
        times = self._failures.get(host)
        return times is not None and self.clock.seconds() - times[-1] < self.config.fail_timeout_s

    def keep(self, hosts: Sequence[str]) -> None:
        """Forget hosts that are in the list no more."""
        for gone in self._failures.keys() - set(hosts):
            del self._failures[gone]


@implementer(IResolutionReceiver)
class _Addresses:
    """Collects what the resolver finds."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.done: Deferred[list[str]] = Deferred()

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        """Nothing to prepare."""

    def addressResolved(self, address: IAddress) -> None:
        """One address more."""
        self.found.append(address.host)  # type: ignore[attr-defined]  # IPv4Address and IPv6Address have it

    def resolutionComplete(self) -> None:
        """The end."""
        if not self.done.called:
            self.done.callback(self.found)


class HostPool:
    """One list of hosts with their health.

    Args:
        config: where the names come from; an empty one makes an empty pool.
        default_port: for entries without a port.
        reactor: resolves names of a `dns` list.
        rng: for lists in random order.
        replicas: of the ring, for lists ordered by digest.
    """

    log = Logger()

    def __init__(
        self,
        config: HostsConfig,
        *,
        default_port: int,
        reactor: IReactorTime,
        rng: random.Random,
        health: PassiveConfig | None = None,
        replicas: int = 3,
    ) -> None:
        self._config = config
        self._default_port = default_port
        self._reactor = reactor
        self._rng = rng
        self._replicas = replicas
        self.health = PassiveHealth(reactor, health or PassiveConfig())
        self._hosts = tuple(dict.fromkeys(normalise(text, default_port) for text in config.static))
        self._resolved_at: float | None = None
        self._resolving: Shared[None] | None = None

    def __bool__(self) -> bool:
        return bool(self._config)

    @property
    def static(self) -> tuple[str, ...]:
        """The members of a fixed list; empty for a name that resolves to them."""
        return () if self._config.dns else self._hosts

    async def hosts(self) -> tuple[str, ...]:
        """All members as `host:port`. A name that resolves no more keeps its last answer.

        Raises:
            Unavailable: the list is empty, or its name never resolved.
        """
        now = self._reactor.seconds()
        stale = self._resolved_at is None or now - self._resolved_at >= self._config.ttl_s
        if self._config.dns and stale:
            # One look-up for all who wait: each takes one of the reactor's few threads.
            if self._resolving is None or self._resolving.done:
                self._resolving = Shared(self._resolve())
            await self._resolving.wait()
        if not self._hosts:
            raise Unavailable(self._config.dns or "cluster", "the list of hosts is empty")
        return self._hosts

    async def _resolve(self) -> None:
        name, port = parse_address(self._config.dns, self._default_port)
        receiver = _Addresses()
        resolver = IReactorPluggableNameResolver(self._reactor).nameResolver
        resolver.resolveHostName(receiver, name, port)
        receiver.done.addTimeout(_LOOKUP_TIMEOUT_S, self._reactor, onTimeoutCancel=lambda _result, _s: [])
        found = await receiver.done
        self._resolved_at = self._reactor.seconds()
        if not found:
            self.log.warn("{name} does not resolve; keeping {count} hosts", name=name, count=len(self._hosts))
            return
        hosts = tuple(sorted({format_address(host, port) for host in found}))
        if hosts != self._hosts:
            self._hosts = hosts
            self.health.keep(hosts)

    async def owners(self, digest: Digest) -> list[str]:
        """The replicas of a digest by the ring, the ones in trouble last.

        The order changes only for hosts that failed several times, since all who share a swarm should meet at the same
        one. When every replica is in trouble the next healthy hosts of the ring follow.

        Raises:
            Unavailable: the list is empty.
        """
        order = ranked(digest, await self.hosts())
        first = order[: self._replicas]
        spare = [] if any(map(self.health.healthy, first)) else order[self._replicas :]
        return sorted([*first, *spare], key=lambda host: not self.health.healthy(host))

    async def shuffled(self) -> list[str]:
        """All members in random order, the ones in trouble last.

        Raises:
            Unavailable: the list is empty.
        """
        hosts = list(await self.hosts())
        self._rng.shuffle(hosts)
        return sorted(hosts, key=lambda host: (not self.health.healthy(host), self.health.shaky(host)))


async def first_answer(what: str, hosts: Sequence[str], ask: Callable[[str], Awaitable[T]], health: PassiveHealth) -> T:
    """Ask one host after another until one answers.

    Args:
        what: the hosts are, for the error: `tracker`, `origin`.
        ask: one request with its own deadline; `Unavailable` means: try the next.

    Raises:
        Unavailable: none answered; tells the last reason. Whatever else `ask` raises, at once.
    """
    reasons: list[str] = []
    for host in hosts:
        try:
            answer = await ask(host)
        except Unavailable as error:
            health.failed(host)
            reasons.append(f"{host}: {error.reason}")
            continue
        health.passed(host)
        return answer
    if len(reasons) == 1:
        raise Unavailable(f"{what} {hosts[0]}", reasons[0].partition(": ")[2])
    raise Unavailable(f"every {what} of {len(hosts)}", "; ".join(reasons) or "none is known")
