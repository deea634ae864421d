"""What the proxy needs of the origins, wherever they run."""

from __future__ import annotations

from typing import Protocol

from krakentx.core.digest import Digest
from krakentx.core.metainfo import MetaInfo
from krakentx.storage.interfaces import IBlobReader


class IOrigins(Protocol):
    """The origins: in other processes (`proxy.origins.RemoteOrigins`), or in this one (the herd's)."""

    async def stat(self, namespace: str, digest: Digest) -> int:
        """Size in bytes, by their caches or their backend. Raises: NotFound, Unavailable."""

    async def open(self, namespace: str, digest: Digest) -> IBlobReader:
        """Open for reading; bytes may still be arriving. Raises: NotFound, Unavailable, Busy."""

    async def take(self, namespace: str, meta: MetaInfo) -> None:
        """Hand over a blob of the proxy's store. When this returns the origins answer for it.

        Raises:
            Unavailable: none of them took it. OutOfSpace.
        """

    async def prefetch(self, namespace: str, digest: Digest) -> None:
        """Have them fetch it from their backend, and wait for that. Raises: NotFound, Unavailable."""
