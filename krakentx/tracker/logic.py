"""What the tracker does with an announce."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from krakentx.core.errors import InvalidInput
from krakentx.core.peer import PeerInfo
from krakentx.swarm.handout import hand_out
from krakentx.tracker.config import PolicyConfig, ServerConfig
from krakentx.tracker.interfaces import Announcement, IOrigins, IPeerStore
from krakentx.tracker.pace import Pace

_ORIGINS_WAIT_S = 1.0
"""How long an answer waits for the origins: a peer that has others to ask must not wait for a dead origin."""

_MAX_WARNED = 1000


@frozen
class HandOut:
    """The answer to an announce; `notice` is a sentence for the operator of the peer, or empty."""

    peers: tuple[PeerInfo, ...]
    interval_s: float
    notice: str = ""


class Tracker:
    """Tells peers about each other.

    Nobody to name is an empty list and no error: the peer will ask again, and has its fallback meanwhile.
    """

    log = Logger()

    def __init__(
        self,
        store: IPeerStore,
        origins: IOrigins,
        config: ServerConfig,
        policy: PolicyConfig,
        clock: IReactorTime,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._origins = origins
        self._config = config
        self._policy = policy
        self._clock = clock
        self._rng = rng
        self._warned: set[str] = set()
        self.pace = Pace(config.announce_interval_s, config.max_announces_per_s, clock)

    async def announce(self, announcement: Announcement, source: str) -> HandOut:
        """Record a peer and choose others for it.

        Args:
            source: the address from which it asks.

        Raises:
            InvalidInput: (`address`) nobody could ever reach the address that it announces.
        """
        peer = announcement.peer
        problem = check_address(peer.ip, source)
        notice = f"{peer.address} {problem}" if problem else ""
        if problem:
            self._warn(peer, problem)
        limit = 0 if peer.complete or announcement.stopped else self._config.announce_limit
        agents = await self._store.exchange(announcement, limit)
        if not limit:
            return HandOut((), self.pace.interval_s, notice)
        interval_s = self.pace.asked()
        asked = Deferred.fromCoroutine(self._origins.peers(announcement.digest))
        if not asked.called:  # mostly it is, from memory, and a timer for nothing costs as much as the rest
            asked.addTimeout(_ORIGINS_WAIT_S, self._clock, onTimeoutCancel=lambda _result, _timeout: [])
        origins = await asked
        for origin in origins:
            problem = origin_problem(origin.ip, source)
            if not problem and origin.peer_id in announcement.failed:
                problem = f"is an origin that {source} could not reach; is HERD_HOST_IP its own address, its port open?"
            if problem:
                notice = notice or f"{origin.address} {problem}"
                self._warn(origin, problem)
        peers = hand_out(peer.peer_id, agents, origins, limit=limit, policy=self._policy.priority, rng=self._rng)
        return HandOut(peers, interval_s, notice)

    async def announce_many(self, announcements: Sequence[Announcement], source: str) -> HandOut:
        """Record one peer for many torrents that it has complete; nobody is named to it.

        Raises:
            InvalidInput: (`address`) nobody could ever reach the address that it announces.
        """
        peer = announcements[0].peer
        problem = check_address(peer.ip, source)
        if problem:
            self._warn(peer, problem)
        await self._store.record(announcements)
        return HandOut((), self.pace.interval_s, f"{peer.address} {problem}" if problem else "")

    def _warn(self, peer: PeerInfo, problem: str) -> None:
        if peer.address not in self._warned and len(self._warned) < _MAX_WARNED:
            self._warned.add(peer.address)
            self.log.warn("{peer} {problem}", peer=peer.address, problem=problem)


def check_address(announced: str, source: str) -> str:
    """Whether others can reach an announced address; returns what is wrong with it, or nothing.

    Raises:
        InvalidInput: nobody can.
    """
    address = _parse(announced)
    if address is None:
        if not announced or any(c.isspace() or c in "/:[]" for c in announced) or len(announced) > 253:
            raise InvalidInput("address", f"{announced[:80]!r} is neither an IP address nor a host name")
        return ""
    if address.is_unspecified or address.is_multicast:
        raise InvalidInput(
            "address", f"announced {announced}, where nobody can be reached; give the agent --peer-ip (seen: {source})"
        )
    asking = _parse(source)
    if asking is None or asking.is_loopback:
        return ""  # a neighbour on this host: no telling how others see it
    if address.is_loopback:
        return f"is announced from {source}: no other host can reach that; deploy the agent with AGENT_HOST_IP={source}"
    if address.version == asking.version and address != asking:
        return f"is announced from {source}: if others cannot reach that, deploy the agent with AGENT_HOST_IP={source}"
    return ""


def origin_problem(address: str, source: str) -> str:
    """What is wrong with the address of an origin in the eyes of a peer at `source`, or nothing."""
    origin, asking = _parse(address), _parse(source)
    if origin is None or asking is None or not origin.is_loopback or asking.is_loopback:
        return ""
    return f"is an origin that {source} cannot reach; deploy the herd with HERD_HOST_IP set to its own address"


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address, an IPv4 one that came over IPv6 as itself; None for a name."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
