"""What the tracker does with an announce."""

from __future__ import annotations

import ipaddress
import random
from collections import OrderedDict

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from krakentx.core.errors import InvalidInput
from krakentx.core.peer import PeerInfo
from krakentx.swarm.handout import hand_out
from krakentx.tracker.config import PolicyConfig, ServerConfig
from krakentx.tracker.interfaces import Announcement, IOrigins, IPeerStore

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
        self._warned: OrderedDict[str, None] = OrderedDict()

    async def announce(self, announcement: Announcement, source: str) -> HandOut:
        """Record a peer and choose others for it.

        Args:
            source: the address from which it asks.

        Raises:
            InvalidInput: (`address`) nobody could ever reach the address that it announces.
        """
        peer = announcement.peer
        notice = check_address(peer.ip, source)
        if notice:
            self._warn(peer, notice)
        limit = 0 if peer.complete or announcement.stopped else self._config.announce_limit
        agents = await self._store.exchange(announcement, limit)
        if not limit:
            return HandOut((), self._config.announce_interval_s, notice)
        asked = Deferred.fromCoroutine(self._origins.peers(announcement.digest))
        if not asked.called:  # mostly it is, from memory, and a timer for nothing costs as much as the rest
            asked.addTimeout(_ORIGINS_WAIT_S, self._clock, onTimeoutCancel=lambda _result, _timeout: [])
        peers = hand_out(peer.peer_id, agents, await asked, limit=limit, policy=self._policy.priority, rng=self._rng)
        return HandOut(peers, self._config.announce_interval_s, notice)

    def _warn(self, peer: PeerInfo, notice: str) -> None:
        if peer.address not in self._warned:
            self._warned[peer.address] = None
            if len(self._warned) > _MAX_WARNED:
                self._warned.popitem(last=False)
            self.log.warn("{peer} {notice}", peer=peer.address, notice=notice)


def check_address(announced: str, source: str) -> str:
    """Whether others can reach an announced address; returns a sentence of warning, or nothing.

    Raises:
        InvalidInput: nobody can.
    """
    try:
        address = ipaddress.ip_address(announced)
    except ValueError:
        if not announced or any(c.isspace() or c in "/:[]" for c in announced) or len(announced) > 253:
            raise InvalidInput("address", f"{announced[:80]!r} is neither an IP address nor a host name") from None
        return ""
    if address.is_unspecified or address.is_multicast:
        raise InvalidInput(
            "address", f"announced {announced}, where nobody can be reached; give the agent --peer-ip (seen: {source})"
        )
    if address.is_loopback and not _is_loopback(source):
        return f"announced {announced} but asks from {source}: other hosts cannot reach it; give it --peer-ip"
    return ""


def _is_loopback(source: str) -> bool:
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
