"""What the Scheduler needs of the components around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from krakentx.core.digest import Digest
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import AnnounceAnswer, InfoHash, PeerID

__all__ = ["AnnounceAnswer", "IAnnouncer", "IFallback", "IMetaInfoSource"]


class IAnnouncer(Protocol):
    """The tracker, as a peer sees it."""

    async def announce(self, digest: Digest, info_hash: InfoHash, *, complete: bool) -> AnnounceAnswer:
        """Tell of ourselves and ask for peers.

        Raises:
            Unavailable: no tracker answered within its deadline, or none knows anybody.
        """

    def report_lost(self, info_hash: InfoHash, peer: PeerID) -> None:
        """This peer could not be dialled: tell the tracker with the next announce."""


class IMetaInfoSource(Protocol):
    """Where metainfo comes from: the tracker, or the fallback sources when it does not answer soon."""

    async def metainfo(self, namespace: str, digest: Digest) -> MetaInfo:
        """Raises: NotFound (known to be absent), Unavailable."""

    async def strong_sums(self, namespace: str, digest: Digest) -> MetaInfo:
        """Metainfo with strong sums, which an origin makes now if it has none yet.

        Raises:
            Unavailable: nobody that was asked knows of such sums.
        """


class IFallback(Protocol):
    """HTTP sources of whole blobs, for single pieces when peers give nothing."""

    async def fetch(
        self,
        namespace: str,
        digest: Digest,
        start: int,
        stop: int,
        receive: Callable[[bytes], Awaitable[None] | None],
        stall_s: float,
    ) -> None:
        """Get bytes [start, stop) and hand them on in order, exactly as many.

        Nothing more is read until what `receive` returns is done.

        A server that ignores Range is tolerated: what was not asked for is skipped or the connection is cut.

        Raises:
            Unavailable: no source, or no byte for `stall_s`. NotFound: every source says that it has no such blob.
        """
