"""Blobs: GET with ranges, HEAD."""

from __future__ import annotations

from typing import Any

from krakentx.core.digest import Digest
from krakentx.registry.interfaces import IBlobs
from krakentx.web.bodies import blob_headers, send_blob


class BlobRoutes:
    """Reads blobs for clients."""

    def __init__(self, blobs: IBlobs) -> None:
        self._blobs = blobs

    async def get(self, request: Any, repo: str, name: str) -> None:
        """Stream a blob, or a part of it, while it may still be arriving.

        Raises:
            InvalidInput, NotFound, Unavailable, Busy, RangeNotSatisfiable.
        """
        digest = Digest.parse(name)
        reader = await self._blobs.open(repo, digest)
        await send_blob(request, reader, headers={"Docker-Content-Digest": str(digest)})

    async def head(self, request: Any, repo: str, name: str) -> None:
        """What GET would say of the whole; fetches nothing.

        Raises:
            InvalidInput, NotFound, Unavailable.
        """
        digest = Digest.parse(name)
        size = await self._blobs.stat(repo, digest)
        blob_headers(request, size, str(digest), {"Docker-Content-Digest": str(digest)})
