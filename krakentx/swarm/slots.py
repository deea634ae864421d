"""Whom to connect to: candidates of a torrent, and who is to be left alone for how long."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from random import Random

from attrs import define

from krakentx.core.peer import InfoHash, PeerID, PeerInfo
from krakentx.swarm.config import ConnStateConfig

MAX_ENTRIES = 10_000
_REMEMBER_S = 600.0
_LONGEST_FAILURE_PAUSE_S = 60.0


@define
class _Entry:
    banned_until: float = 0.0
    paused_until: float = 0.0
    strikes: int = 0  # bans so far; each doubles the next
    failures: int = 0  # dials in a row that failed

    @property
    def until(self) -> float:
        return max(self.banned_until, self.paused_until)


class Blacklist:
    """Bans and pauses of (torrent, peer), both with an end.

    A ban is for bytes that lied or a protocol that was broken; it grows and holds in both directions. A pause is for a
    peer that is away or has no room; it only keeps us from dialling.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[InfoHash, PeerID], _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def ban(self, torrent: InfoHash, peer: PeerID, now: float, config: ConnStateConfig, weight: int = 1) -> float:
        """Ban, longer than the last time. Returns when the ban ends; `now` when bans are turned off."""
        if config.disable_blacklist:
            return now
        entry = self._entry(torrent, peer, now)
        entry.strikes += weight
        length = min(config.blacklist_duration_s * 2.0 ** min(entry.strikes - 1, 30), config.max_blacklist_duration_s)
        entry.banned_until = max(entry.banned_until, now + length)
        return entry.banned_until

    def pause(self, torrent: InfoHash, peer: PeerID, until: float, now: float) -> None:
        """Do not dial before `until`."""
        entry = self._entry(torrent, peer, now)
        entry.paused_until = max(entry.paused_until, until)

    def dial_failed(self, torrent: InfoHash, peer: PeerID, now: float, config: ConnStateConfig) -> None:
        """Pause longer with each dial in a row that failed."""
        entry = self._entry(torrent, peer, now)
        pause = min(config.dial_failure_pause_s * 2.0 ** min(entry.failures, 30), _LONGEST_FAILURE_PAUSE_S)
        entry.failures += 1
        entry.paused_until = max(entry.paused_until, now + pause)

    def reached(self, torrent: InfoHash, peer: PeerID) -> None:
        """A dial succeeded: the peer is there."""
        entry = self._entries.get((torrent, peer))
        if entry is not None:
            entry.failures = 0

    def banned(self, torrent: InfoHash, peer: PeerID, now: float) -> bool:
        """Nothing is to be had with this peer."""
        entry = self._entries.get((torrent, peer))
        return entry is not None and now < entry.banned_until

    def shunned(self, torrent: InfoHash, peer: PeerID, now: float) -> bool:
        """Not to be dialled now."""
        entry = self._entries.get((torrent, peer))
        return entry is not None and (now < entry.paused_until or now < entry.banned_until)

    def bans(self, now: float) -> list[tuple[PeerID, InfoHash, float]]:
        """Who is banned, for which torrent, for how many seconds more."""
        return [
            (peer, torrent, entry.banned_until - now)
            for (torrent, peer), entry in self._entries.items()
            if entry.banned_until > now
        ]

    def _entry(self, torrent: InfoHash, peer: PeerID, now: float) -> _Entry:
        key = (torrent, peer)
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= MAX_ENTRIES:
                self._purge(now)
            entry = self._entries[key] = _Entry()
        return entry

    def _purge(self, now: float) -> None:
        live = [item for item in self._entries.items() if item[1].until + _REMEMBER_S > now]
        live.sort(key=lambda item: item[1].until, reverse=True)
        self._entries = dict(live[: MAX_ENTRIES * 3 // 4])


class Candidates:
    """Peers that the tracker named for one torrent, newest news last, bounded."""

    def __init__(self) -> None:
        self._peers: dict[PeerID, PeerInfo] = {}
        self.origins: frozenset[PeerID] = frozenset()

    def __len__(self) -> int:
        return len(self._peers)

    def offer(self, peers: Iterable[PeerInfo], limit: int) -> int:
        """Take a hand-out; the oldest give way beyond `limit`. Returns how many were not known before."""
        fresh = 0
        for peer in peers:
            fresh += self._peers.pop(peer.peer_id, None) is None
            self._peers[peer.peer_id] = peer
        while len(self._peers) > limit:
            del self._peers[next(iter(self._peers))]
        self.origins = frozenset(peer.peer_id for peer in self._peers.values() if peer.origin)
        return fresh

    def choose(
        self,
        taken: Container[PeerID],
        shunned: Callable[[PeerInfo], bool],
        complete_first: bool,
        rng: Random,
        preferred: Callable[[PeerInfo], bool] = lambda _peer: False,
    ) -> PeerInfo | None:
        """Whom to dial now.

        Args:
            complete_first: we have nobody yet who holds everything. One such peer is enough: if all new hosts filled
                their slots with origins, most would be refused and the rest would not know each other.
            preferred: who of the others comes first.
        """
        free = [peer for key, peer in self._peers.items() if key not in taken and not shunned(peer)]
        first = [peer for peer in free if peer.complete or peer.origin] if complete_first else []
        free = first or [peer for peer in free if preferred(peer)] or free
        return rng.choice(free) if free else None
