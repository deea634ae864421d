"""What the Distribution API needs of a component: the proxy gives all of it, the agent the reading half.

A `repo` is a repository name without a host (`library/alpine`). 404 only for what is known to be absent: a part that
is down raises `Unavailable`.
"""

from __future__ import annotations

from typing import Protocol

from krakentx.core.digest import Digest
from krakentx.storage.interfaces import IBlobReader, IUpload


class IBlobs(Protocol):
    """Blobs for reading; manifests are blobs too."""

    async def stat(self, repo: str, digest: Digest) -> int:
        """Size in bytes, without fetching the blob.

        Raises:
            NotFound, Unavailable.
        """

    async def open(self, repo: str, digest: Digest) -> IBlobReader:
        """Open for reading; bytes may still be arriving. The caller closes it.

        Raises:
            NotFound, Unavailable, Busy.
        """


class IPush(Protocol):
    """Blobs for writing."""

    async def begin(self, repo: str) -> IUpload:
        """Begin an upload session."""

    async def resume(self, repo: str, upload_id: str) -> IUpload:
        """Find a session.

        Raises:
            NotFound: unknown, or over.
        """

    async def finish(self, repo: str, upload: IUpload, digest: Digest) -> None:
        """End a session: check the hash, keep the blob, hand it to the origins.

        Raises:
            InvalidInput: (`digest`) the bytes hash to something else. Unavailable: no origin took it.
        """

    async def put(self, repo: str, digest: Digest, data: bytes) -> None:
        """Keep a small blob (a manifest) whose digest the caller has checked."""

    async def mount(self, repo: str, digest: Digest, source: str | None) -> bool:
        """True when the blob is there already (in `source`, or anywhere), so that no upload is needed."""


class ITags(Protocol):
    """Tag -> digest of a manifest."""

    async def get(self, repo: str, tag: str) -> Digest:
        """Raises: NotFound, Unavailable."""

    async def put(self, repo: str, tag: str, digest: Digest) -> None:
        """Point the tag at a manifest; after this returns every look-up gives it. Raises: Unavailable."""

    async def tags(self, repo: str) -> list[str]:
        """All tags, sorted by bytes. Raises: NotFound (no such repository), Unavailable."""

    async def repositories(self) -> list[str]:
        """All repository names that have a tag, sorted by bytes. Raises: Unavailable."""
