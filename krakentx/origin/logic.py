"""What an origin does; no HTTP, no reactor."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from attrs import define, field

from krakentx.core.digest import Digest
from krakentx.core.errors import Conflict, InvalidInput, KrakenError, NotFound, Pending
from krakentx.core.metainfo import MAX_PIECES, MetaInfo, PieceLengths, SumBuilder
from krakentx.origin.refresh import Refresher
from krakentx.origin.replicas import Replicator
from krakentx.origin.ring import Ring
from krakentx.origin.uploads import Uploads
from krakentx.storage.files import BlobStore
from krakentx.storage.hashing import CHUNK
from krakentx.storage.interfaces import IBlobReader
from krakentx.storage.threads import Shared, Threads

_SUMMING_S = 5.0  # who asks for metainfo waits so long for sums that have to be made, and asks again


class IWriteBack(Protocol):
    """Blobs on their way to the backend."""

    def wanted(self, namespace: str) -> bool:
        """Whether there is a backend for this namespace."""

    async def add(self, namespace: str, digest: Digest, delay_s: float = 0.0) -> None:
        """Remember durably that the blob is to be written, after a delay."""

    async def pending(self, digest: Digest) -> bool:
        """Whether it waits to be written."""

    async def flush(self, digest: Digest) -> None:
        """Write it now. Raises: Unavailable: the backend did not take it. Conflict: there is none for it."""


class ISeeder(Protocol):
    """The peer beside: it must let go of a blob that is deleted."""

    async def remove(self, digest: Digest) -> bool:
        """Forget a blob and delete it. False when it was not here. Raises: Conflict: it is persisted."""


@define(eq=False)
class Origin:
    """Keeps blobs, brings them back from the backend, and hands them to other owners and to the backend."""

    store: BlobStore
    public: Uploads  # finished blobs are marked as waiting for the backend
    quiet: Uploads  # finished blobs are not: others have them
    refresher: Refresher
    replicas: Replicator
    writeback: IWriteBack
    ring: Ring
    seeder: ISeeder
    lengths: PieceLengths
    threads: Threads

    _summing: dict[Digest, Shared[MetaInfo]] = field(factory=dict, init=False)

    # -- uploads

    async def start(self, namespace: str, digest: Digest) -> str:
        """Begin an upload; returns its id.

        Raises:
            Conflict: the blob is here already, and its way to the backend was made sure of again. OutOfSpace, Busy.
        """
        await self._refuse_known(namespace, digest)
        return await self.public.start(digest)

    async def patch(
        self, namespace: str, digest: Digest, uid: str, start: int, end: int, chunks: AsyncIterator[bytes]
    ) -> None:
        """Append bytes [start, end). Raises: as `Uploads.patch`. Conflict: the blob is here already."""
        await self._refuse_known(namespace, digest)
        await self.public.patch(digest, uid, start, end, chunks)

    async def commit(self, namespace: str, digest: Digest, uid: str) -> None:
        """Keep what a client has uploaded, have it written to the backend, and copied to the other owners.

        Raises:
            Conflict: the blob is here already; the upload is dropped. And as `Uploads.finish`.
        """
        try:
            await self._refuse_known(namespace, digest)
        except Conflict:
            await self.public.drop(digest, uid)
            raise
        await self.public.finish(digest, uid)
        await self._arrived(namespace, digest)

    async def commit_copy(self, namespace: str, digest: Digest, uid: str, delay_s: float) -> None:
        """Keep what another origin has uploaded as a copy, and have it written to the backend after a delay.

        Raises: as `commit`.
        """
        if self.store.stat(digest) is not None:
            await self.public.drop(digest, uid)
            raise Conflict(f"blob {digest} is here already")
        await self.public.finish(digest, uid)
        if self.writeback.wanted(namespace):
            await self.writeback.add(namespace, digest, delay_s)
        self.refresher.forget(digest)

    async def _refuse_known(self, namespace: str, digest: Digest) -> None:
        if self.store.stat(digest) is None:
            return
        if self.writeback.wanted(namespace):
            self.store.set_persist(digest, True)
            await self.writeback.add(namespace, digest)
        raise Conflict(f"blob {digest} is here already")

    async def adopt(self, path: Path, digest: Digest, meta: MetaInfo, namespace: str) -> None:
        """Take a file of this process's proxy, by a second name for its bytes; the caller has checked its hash.

        Raises:
            OutOfSpace.
        """
        known = self.store.stat(digest) is not None
        await self.store.commit(path, digest, meta, keep_source=True, persist=True)
        await self._arrived(namespace, digest, copies=not known)

    async def _arrived(self, namespace: str, digest: Digest, *, copies: bool = True) -> None:
        if self.writeback.wanted(namespace):
            await self.writeback.add(namespace, digest)
        self.refresher.forget(digest)
        if copies:
            self.replicas.uploaded(namespace, digest)

    async def start_transfer(self, digest: Digest) -> str:
        """Begin to take a blob from another origin. Raises: Conflict: it is here already. OutOfSpace, Busy."""
        self._refuse_transfer(digest)
        return await self.quiet.start(digest)

    async def patch_transfer(
        self, digest: Digest, uid: str, start: int, end: int, chunks: AsyncIterator[bytes]
    ) -> None:
        """Append bytes [start, end). Raises: as `Uploads.patch`. Conflict: the blob is here already."""
        self._refuse_transfer(digest)
        await self.quiet.patch(digest, uid, start, end, chunks)

    async def commit_transfer(self, digest: Digest, uid: str) -> None:
        """Keep it; no copies, no backend. Raises: as `commit`."""
        try:
            self._refuse_transfer(digest)
        except Conflict:
            await self.quiet.drop(digest, uid)
            raise
        await self.quiet.finish(digest, uid)
        self.refresher.forget(digest)

    def _refuse_transfer(self, digest: Digest) -> None:
        if self.store.stat(digest) is not None:
            raise Conflict(f"blob {digest} is here already")

    # -- reading

    async def stat(self, namespace: str, digest: Digest, *, local: bool = False) -> int:
        """Size in bytes: of the cache, else (unless `local`) of the backend. Raises: NotFound, Unavailable."""
        size = self.store.stat(digest)
        if size is not None:
            return size
        if local:
            raise NotFound("blob", digest)
        return await self.refresher.stat(namespace, digest)

    async def open(self, namespace: str, digest: Digest) -> IBlobReader:
        """Open for reading. Raises: Pending: it is being fetched from the backend. And as `Refresher.ensure`."""
        await self.refresher.ensure(namespace, digest)
        return self.store.open(digest)

    async def metainfo(self, namespace: str, digest: Digest, *, strong: bool = False) -> MetaInfo:
        """How the blob is cut.

        Args:
            strong: make strong sums if those on disk are of before there were any; the cut stays as it is.

        Raises:
            Pending: sums are being made. And as `open`.
        """
        await self.refresher.ensure(namespace, digest)
        meta = self.store.metainfo(digest)
        if meta is None:
            return await self._sum(digest, self.lengths)
        if strong and meta.piece_count and not meta.strong_sums:
            return await self._sum(digest, PieceLengths(((0, meta.piece_length),)))
        return meta

    async def prefetch(self, namespace: str, digest: Digest) -> None:
        """Have it in the cache. Raises: as `open`."""
        await self.refresher.ensure(namespace, digest)

    async def _sum(self, digest: Digest, lengths: PieceLengths) -> MetaInfo:
        """Of a blob that was put here by hand, whose side file was lost, or has no strong sums."""
        summing = self._summing.get(digest)
        if summing is None:
            summing = Shared(self._make_metainfo(digest, lengths))
            if not summing.done:
                self._summing[digest] = summing
        waiting = summing.wait()
        waiting.addTimeout(_SUMMING_S, self.threads.reactor, onTimeoutCancel=_still_summing)
        return await waiting

    async def _make_metainfo(self, digest: Digest, lengths: PieceLengths) -> MetaInfo:
        try:
            with self.store.open(digest) as blob:
                meta = await self.threads.run(_summed, blob.fileno(), digest, lengths)
            await self.store.set_metainfo(meta)
        finally:
            self._summing.pop(digest, None)
        return meta

    # -- upkeep

    async def set_piece_length(self, digest: Digest, piece_length: int) -> None:
        """Cut a blob anew. Raises: NotFound, InvalidInput."""
        size = self.store.stat(digest)
        if size is None:
            raise NotFound("blob", digest)
        if size > MAX_PIECES * piece_length:  # before a sum is kept for each of them
            raise InvalidInput("parameter", f"piece_length={piece_length} makes more than {MAX_PIECES} pieces")
        await self._make_metainfo(digest, PieceLengths(((0, piece_length),)))

    async def delete(self, digest: Digest) -> None:
        """Drop the blob from the cache; the last copy as well when there is no backend for it.

        Raises:
            NotFound: it is not here. Conflict: it is not yet in the backend.
        """
        if self.store.stat(digest) is not None and not await self.writeback.pending(digest):
            self.store.set_persist(digest, False)
        if not await self.seeder.remove(digest):
            raise NotFound("blob", digest)

    async def clean_up(self, now: float, ttl_s: float) -> tuple[list[str], list[str]]:
        """Drop blobs that are older than `ttl_s` or that this origin does not own; first write what is not yet written.

        Args:
            now: seconds since the epoch.

        Returns:
            Hex of the dropped ones, and `hex: problem` of those that stay.
        """
        deleted, problems = [], []
        for record in await self.threads.run(lambda: list(self.store.records())):
            digest = record.digest
            if now - record.modified_at <= ttl_s and self.ring.owns(digest):
                continue
            try:
                if record.persist:
                    await self.writeback.flush(digest)
                await self.seeder.remove(digest)
            except KrakenError as error:
                problems.append(f"{digest.hex}: {error}")
            else:
                deleted.append(digest.hex)
        return deleted, problems


def _still_summing(_result: object, _timeout: float) -> None:
    raise Pending("the sums of the blob are being made")


def _summed(fd: int, digest: Digest, lengths: PieceLengths) -> MetaInfo:
    """Read a whole file and sum its pieces. In a thread."""
    sums = SumBuilder(lengths)
    offset = 0
    while data := os.pread(fd, CHUNK, offset):
        sums.update(data)
        offset += len(data)
    return sums.finish(digest)
