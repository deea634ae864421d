"""What the tracker's parts need of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import frozen

from krakentx.core.digest import Digest
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import InfoHash, PeerID, PeerInfo


@frozen
class Announcement:
    """One announce, as understood.

    Args:
        again_s: within what time the peer promised to announce again; None when it promised nothing.
        failed: peers that it could not reach.
        stopped: it gives this torrent no longer.
    """

    digest: Digest
    info_hash: InfoHash
    peer: PeerInfo
    again_s: float | None = None
    failed: tuple[PeerID, ...] = ()
    stopped: bool = False


class IPeerStore(Protocol):
    """Who has what."""

    async def record(self, announcements: Sequence[Announcement]) -> None:
        """Only record peers, and what they say of others."""

    async def exchange(self, announcement: Announcement, limit: int) -> list[PeerInfo]:
        """Record the peer, and name at most `limit` random others of its torrent."""

    def start(self) -> None:
        """Begin whatever goes on by itself."""

    async def stop(self) -> None:
        """End it, and wait until it has ended."""


class IOrigins(Protocol):
    """The origins, as the tracker asks them."""

    async def peers(self, digest: Digest) -> list[PeerInfo]:
        """The owners of a blob that can be reached; empty when none can."""

    async def metainfo(self, namespace: str, digest: Digest, *, strong: bool = False) -> MetaInfo:
        """With `strong`, an origin makes strong sums if it has none. Raises: NotFound, Pending, Unavailable."""
