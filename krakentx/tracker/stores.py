"""Peers in memory, and peers in redis with the memory beside it."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from krakentx.core.peer import PeerInfo
from krakentx.tracker.interfaces import Announcement
from krakentx.tracker.peers import PeerMemory

_SWEEP_EVERY_S = 1.0
_SWEPT_TORRENTS = 200


class LocalStore:
    """An `IPeerStore` in memory; knows only who announced here, and forgets at a restart."""

    log = Logger()

    def __init__(self, memory: PeerMemory, clock: IReactorTime) -> None:
        self.memory = memory
        self._clock = clock
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = clock

    async def exchange(self, announcement: Announcement, limit: int) -> list[PeerInfo]:
        """Record the peer, and name at most `limit` random others of its torrent."""
        self.note(announcement)
        if not limit:
            return []
        peer, now = announcement.peer, self._clock.seconds()
        return self.memory.sample(announcement.info_hash, limit, peer.peer_id, now, peer.zone)

    async def record(self, announcements: Sequence[Announcement]) -> None:
        """Only record peers, and what they say of others."""
        for announcement in announcements:
            self.note(announcement)

    def note(self, announcement: Announcement) -> None:
        """Only record the peer, and what it says of others."""
        now, memory, peer = self._clock.seconds(), self.memory, announcement.peer
        if announcement.failed:
            memory.report(announcement.info_hash, announcement.failed, peer.peer_id, now)
        if announcement.stopped:
            memory.leave(announcement.info_hash, peer.peer_id, now)
        else:
            memory.announce(announcement.info_hash, peer, now, announcement.again_s)

    def _sweep(self) -> None:
        self.memory.sweep(self._clock.seconds(), _SWEPT_TORRENTS)

    def start(self) -> None:
        """Begin to forget silent peers."""
        self._sweeping.start(_SWEEP_EVERY_S, now=False).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self.log.failure("silent peers are no longer forgotten", failure=failure)

    async def stop(self) -> None:
        """Forget no more."""
        if self._sweeping.running:
            self._sweeping.stop()
