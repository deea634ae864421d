"""What the rest of the house sees of the disk.

Small metadata calls (`stat`, `open`) are plain functions: they take microseconds. Whatever may take longer returns a
coroutine and does its work in the storage thread pool.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol

from attrs import frozen
from typing_extensions import Self

from krakentx.core.bitfield import Bitfield
from krakentx.core.digest import Digest
from krakentx.core.metainfo import MetaInfo


class IBlobReader(Protocol):
    """An open blob whose bytes may still be arriving.

    The same shape for a blob in the cache, for one that the swarm is bringing, and for one that a backend is bringing:
    `web.bodies.send_blob` streams any of them.
    """

    digest: Digest
    size: int

    def fileno(self) -> int:
        """The file which holds the bytes at their own offsets; valid until `close`."""

    async def wait(self, offset: int, stop: int) -> int:
        """Wait until at least one verified byte at `offset` may be served.

        Args:
            offset: of the next byte that the reader needs.
            stop: end (exclusive) of what the reader will want; a hint for what to fetch first.

        Returns:
            End (exclusive) of the run of bytes from `offset` that may be served now, at most `stop`. The last bytes of
            a blob are released only when the whole has passed its sha256.

        Raises:
            Unavailable: nothing came for too long. Corrupt: the blob does not hash to its name. NotFound: it is gone.
        """

    def close(self) -> None:
        """Release the file and tell the source that this reader wants no more. May be called twice."""


@frozen
class BlobRecord:
    """What eviction needs to know of one blob."""

    digest: Digest
    size_bytes: int
    modified_at: float  # seconds since the epoch
    accessed_at: float
    persist: bool  # not yet in the backend: never evict


class OpenBlob(Protocol):
    """A complete blob of the cache, pinned against eviction while open; also an `IBlobReader`."""

    digest: Digest
    size: int

    def fileno(self) -> int:
        """The open file."""

    async def wait(self, offset: int, stop: int) -> int:
        """At once: `stop`."""

    def close(self) -> None:
        """Unpin and close."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class IBlobStore(Protocol):
    """Complete blobs by digest: `<root>/<hex[0:2]>/<hex[2:4]>/<hex>/data`, side files beside `data`."""

    root: Path

    def stat(self, digest: Digest) -> int | None:
        """Size in bytes, or None when absent."""

    def open(self, digest: Digest) -> OpenBlob:
        """Open for reading and note the access.

        Raises:
            NotFound: it is not here.
        """

    def metainfo(self, digest: Digest) -> MetaInfo | None:
        """The stored metainfo, or None."""

    async def set_metainfo(self, meta: MetaInfo) -> None:
        """Store metainfo beside its blob, atomically."""

    async def commit(self, source: Path, digest: Digest, meta: MetaInfo | None, *, keep_source: bool = False) -> None:
        """Take a file whose hash was verified by the caller into the cache: fsync, side files, atomic rename.

        An existing blob of that name is kept and the source dropped. With `keep_source` the file is hard-linked.

        Raises:
            OutOfSpace: the disk is full.
        """

    async def delete(self, digest: Digest) -> bool:
        """Remove it. False when it was not here.

        Raises:
            Conflict: it is persisted (not yet in the backend).
        """

    def set_persist(self, digest: Digest, value: bool) -> None:
        """Mark as not (or no longer) waiting for the backend."""

    def pin(self, digest: Digest) -> None:
        """Count one more user: a pinned blob is not evicted."""

    def unpin(self, digest: Digest) -> None:
        """Count one user less."""

    def records(self) -> Iterator[BlobRecord]:
        """All blobs; reads the disk, so call it in a thread."""


class IPartialBlob(Protocol):
    """A blob that is arriving: a sparse file of full length and one status byte for each verified piece."""

    meta: MetaInfo
    have: Bitfield

    def fileno(self) -> int:
        """The open file, readable and writable at any offset; stays valid after `commit` until `close`."""

    def mark(self, piece: int) -> None:
        """Remember a piece whose sum matched. The status byte is written after the bytes."""

    def forget(self, pieces: Bitfield) -> None:
        """The inverse of `mark`, for pieces that are to be written again."""

    async def misfits(self) -> Bitfield:
        """Sum every piece in a thread, as it lies in the file: those that do not match, or are not here."""

    async def verify(self) -> None:
        """Hash the whole in a thread. Readers may have the last bytes when this returned, before `commit` is through.

        Raises:
            Corrupt: it does not hash to its name; `forget` what is wrong.
        """

    async def commit(self) -> None:
        """Hash the whole in a thread, then move it into the cache with its metainfo.

        Raises:
            Corrupt: it does not hash to its name; `forget` what is wrong.
            OutOfSpace: the disk is full.
        """

    def close(self) -> None:
        """Close the file. What is on disk stays and can be resumed."""


class IPartialStore(Protocol):
    """The download folder."""

    async def open(self, meta: MetaInfo) -> IPartialBlob:
        """Create, or resume: pieces with a status byte are read and checked again against their sums.

        Raises:
            OutOfSpace: the disk is full.
        """

    def find(self, digest: Digest) -> MetaInfo | None:
        """The metainfo of a partial blob on disk, or None."""

    async def delete(self, digest: Digest) -> bool:
        """Drop the partial blob. False when there was none."""


class IUpload(Protocol):
    """One upload session: bytes are hashed, summed and written while they pass, in the storage thread pool."""

    id: str
    offset: int  # bytes received and written
    accepted: int  # those, and what waits to be written: where the next write goes

    async def write(self, data: bytes) -> None:
        """Append. The caller waits for the result before sending more than it wants to hold in memory.

        Raises:
            OutOfSpace: the disk is full; the session lives on at its old offset.
        """

    async def finish(self, digest: Digest) -> MetaInfo:
        """Check the hash, commit to the store, end the session.

        Raises:
            InvalidInput: (`digest`) the bytes hash to something else; the session is over and nothing is left of it.
        """

    async def abort(self) -> None:
        """End the session; nothing is left of it."""


class IUploadStore(Protocol):
    """All sessions. Sessions survive a restart at their true offset; idle ones end after a time."""

    async def create(self) -> IUpload:
        """Begin a session.

        Raises:
            OutOfSpace: the disk is full. Busy: too many sessions are open.
        """

    async def get(self, upload_id: str) -> IUpload:
        """Find a session, after a restart too (its bytes are hashed again).

        Raises:
            NotFound: unknown, or over.
        """
