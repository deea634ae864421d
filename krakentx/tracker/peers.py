"""Who announced which torrent: the peers in memory.

A peer is handed out until it has been silent for too long. How long that is, it says itself: our agents tell within
what time they will announce again (`again`), and are dropped after twice that. Peers of the reference tell nothing:
while downloading they announce every few seconds, so five minutes of silence mean they are gone; when complete they
announce once and never again, so they are kept for hours, and it takes reports of others to drop them.

A report (`failed_peers`) says that a peer could not be reached. After the first one it is named only when there is
room, and no more to who reported it; a second one from somebody else takes it out. Its next announce clears both, and
after a minute they are forgotten: so a liar can do little, and a host that vanished is gone from the answers within one
announce interval of two others. Who reports mostly peers that have just announced is itself cut off, and not believed.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Container, Iterable, MutableSequence
from itertools import islice

from attrs import define, field, frozen

from krakentx.core.peer import InfoHash, PeerID, PeerInfo
from krakentx.swarm.handout import near_quota
from krakentx.tracker.config import LocalStoreConfig

_REPORTS = 2
_REPORT_S = 60.0
_JUST_S = 10.0
_SLACK_S = 5.0
_MIN_AGAIN_S = 1.0


@define(eq=False)
class _Entry:
    peer: PeerInfo
    seen: float
    expires: float
    reporters: dict[PeerID, float] = field(factory=dict)  # until when each is believed

    def is_gone(self, now: float) -> bool:
        if self.reporters:
            self.reporters = {peer: until for peer, until in self.reporters.items() if now < until}
        return now >= self.expires or len(self.reporters) >= _REPORTS


@define(eq=False)
class _Swarm:
    entries: dict[PeerID, _Entry] = field(factory=dict)
    order: list[_Entry] = field(factory=list)  # the same entries; shuffled a little by every sample
    zones: dict[str, list[_Entry]] = field(factory=dict)  # those that named a zone; shuffled like `order`

    def add(self, entry: _Entry) -> None:
        self.entries[entry.peer.peer_id] = entry
        self.order.append(entry)
        self.settle(entry)

    def settle(self, entry: _Entry) -> None:
        if entry.peer.zone:
            self.zones.setdefault(entry.peer.zone, []).append(entry)

    def move(self, entry: _Entry, peer: PeerInfo) -> None:
        """The peer has come back elsewhere."""
        if entry.peer.zone:
            self._leave(entry)
        entry.peer = peer
        self.settle(entry)

    def _leave(self, entry: _Entry) -> None:
        rest = [other for other in self.zones.pop(entry.peer.zone) if other is not entry]
        if rest:
            self.zones[entry.peer.zone] = rest

    def purge(self, now: float, keep_s: float) -> None:
        self.order = [entry for entry in self.order if now < entry.expires + keep_s]
        self.entries = {entry.peer.peer_id: entry for entry in self.order}
        self.zones = {}
        for entry in self.order:
            self.settle(entry)


@frozen
class Known:
    """What the memory says of a peer that somebody else names."""

    gone: bool
    suspect: bool


class PeerMemory:
    """Peers of all torrents; pure, `now` in monotonic seconds.

    Args:
        remember_s: how long a silent peer is still known to be silent, for a store that others share.
    """

    def __init__(self, config: LocalStoreConfig, rng: random.Random, *, remember_s: float = 0.0) -> None:
        self._config = config
        self._rng = rng
        self._remember_s = remember_s
        self._swarms: OrderedDict[InfoHash, _Swarm] = OrderedDict()  # whose turn it is to be swept, or to go, first
        self.count = 0

    @property
    def torrents(self) -> int:
        """Torrents with a peer, silent ones included."""
        return len(self._swarms)

    def announce(self, info_hash: InfoHash, peer: PeerInfo, now: float, again_s: float | None = None) -> None:
        """Note that a peer is there.

        Args:
            again_s: within what time it promised to announce again; None when it promised nothing.
        """
        swarm = self._swarms.get(info_hash)
        if swarm is None:
            swarm = self._swarms[info_hash] = _Swarm()
        else:
            self._swarms.move_to_end(info_hash)
        if again_s is not None:
            ttl = min(self._config.ttl_s, 2 * max(_MIN_AGAIN_S, again_s) + _SLACK_S)
        else:
            ttl = self._config.ttl_s if peer.complete else self._config.leecher_ttl_s
        entry = swarm.entries.get(peer.peer_id)
        if entry is None:
            if len(swarm.entries) >= self._config.max_torrent_peers:
                self._purge(swarm, now)
                if len(swarm.entries) >= self._config.max_torrent_peers:
                    return
            swarm.add(_Entry(peer, now, now + ttl))
            self.count += 1
            self._make_room()
            return
        if entry.peer.zone != peer.zone:
            swarm.move(entry, peer)
        entry.peer, entry.seen, entry.expires = peer, now, now + ttl
        if entry.reporters:
            entry.reporters.clear()

    def leave(self, info_hash: InfoHash, peer: PeerID, now: float) -> None:
        """Note that a peer has stopped giving this torrent."""
        swarm = self._swarms.get(info_hash)
        entry = swarm.entries.get(peer) if swarm else None
        if entry is not None:
            entry.expires = now

    def report(self, info_hash: InfoHash, failed: Iterable[PeerID], reporter: PeerID, now: float) -> None:
        """Note that `reporter` could not reach these peers."""
        swarm = self._swarms.get(info_hash)
        if swarm is None:
            return
        entries = [swarm.entries[peer] for peer in failed if peer in swarm.entries and peer != reporter]
        alive = sum(now - entry.seen < _JUST_S for entry in entries)
        if alive * 2 > len(entries):
            return
        for entry in entries:
            entry.reporters[reporter] = now + _REPORT_S

    def known(self, info_hash: InfoHash, peer: PeerID, now: float) -> Known:
        """Whether a peer is known to be gone, or suspected to be."""
        swarm = self._swarms.get(info_hash)
        entry = swarm.entries.get(peer) if swarm else None
        return Known(entry.is_gone(now), bool(entry.reporters)) if entry else Known(gone=False, suspect=False)

    def sample(self, info_hash: InfoHash, limit: int, asking: PeerID, now: float, zone: str = "") -> list[PeerInfo]:
        """At most `limit` random peers without the one that asks, and without those that it could not reach.

        Args:
            zone: where that one stands: peers of it come first, but leave room for others.
        """
        swarm = self._swarms.get(info_hash)
        if swarm is None:
            return []
        near = swarm.zones.get(zone)
        chosen = self._draw(near, near_quota(limit), asking, now) if near else []
        if len(chosen) < limit:
            known = {peer.peer_id for peer in chosen}
            chosen += self._draw(swarm.order, limit - len(chosen), asking, now, known)
        return chosen

    def _draw(
        self, order: MutableSequence[_Entry], limit: int, asking: PeerID, now: float, known: Container[PeerID] = ()
    ) -> list[PeerInfo]:
        rng = self._rng
        good: list[PeerInfo] = []
        suspect: list[PeerInfo] = []
        end = len(order)
        at = 0
        while at < end and len(good) < limit:  # a shuffle that stops when it has enough
            other = at + int(rng.random() * (end - at))
            entry = order[other]
            order[other] = order[at]
            order[at] = entry
            at += 1
            peer_id = entry.peer.peer_id
            if peer_id == asking or peer_id in known or entry.is_gone(now) or asking in entry.reporters:
                continue
            (suspect if entry.reporters else good).append(entry.peer)
        return (good + suspect)[:limit]

    def sweep(self, now: float, swarms: int) -> None:
        """Forget what is long silent in the next few torrents; call it every second or so."""
        for info_hash in self._oldest(swarms):
            swarm = self._swarms[info_hash]
            self._purge(swarm, now)
            if not swarm.entries:
                del self._swarms[info_hash]

    def _oldest(self, count: int) -> list[InfoHash]:
        """The torrents whose turn it is, which then go to the end of the row."""
        oldest = list(islice(self._swarms, count))
        for info_hash in oldest:
            self._swarms.move_to_end(info_hash)
        return oldest

    def _purge(self, swarm: _Swarm, now: float) -> None:
        before = len(swarm.entries)
        swarm.purge(now, self._remember_s)
        self.count -= before - len(swarm.entries)

    def _make_room(self) -> None:
        while self.count > self._config.max_peers and len(self._swarms) > 1:
            _, swarm = self._swarms.popitem(last=False)
            self.count -= len(swarm.entries)
