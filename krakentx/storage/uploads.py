"""Upload sessions: `<root>/<id>/data`.

The bytes of a session are written, hashed and summed in the order in which they came, by one thread at a time. The file
is the truth about the offset: what is in it after a crash was received, and is hashed again before more is appended.
"""

from __future__ import annotations

import os
import re
import uuid
from collections import deque
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from krakentx.core.digest import Digest, Hasher
from krakentx.core.errors import Busy, InvalidInput, NotFound
from krakentx.core.metainfo import MetaInfo, PieceLengths, SumBuilder
from krakentx.storage import disk
from krakentx.storage.files import BlobStore
from krakentx.storage.hashing import CHUNK, hash_range
from krakentx.storage.layout import DATA
from krakentx.storage.threads import Shared, Threads, shielded

BATCH = 1 << 20
"""Bytes that one pool job takes at once, when that many wait."""

_ID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}")


@define(eq=False)
class _Part:
    data: bytes
    written: Deferred[None] = field(factory=Deferred)


class Upload:
    """See `interfaces.IUpload`."""

    def __init__(self, upload_id: str, fd: int, offset: int, hasher: Hasher, sums: SumBuilder, owner: UploadStore):
        self.id = upload_id
        self.offset = offset
        self.accepted = offset
        self.touched_at = owner.threads.now()
        self._fd = fd
        self._hasher = hasher
        self._sums = sums
        self._owner = owner
        self._waiting: deque[_Part] = deque()
        self._turn = DeferredLock()
        self._draining = False
        self._over = False

    @property
    def busy(self) -> bool:
        """Something is being done with it."""
        return self._turn.locked

    async def write(self, data: bytes) -> None:
        """Append. What is handed in while an earlier write is under way is written together, about 1 MiB at a time.

        A caller who gives up waiting does not take the bytes back.

        Raises:
            OutOfSpace: the disk is full; the session lives on at its old offset, and writes that waited behind this
                one fail with it. NotFound: the session is over.
        """
        if data:
            part = _Part(data)
            self._waiting.append(part)
            self.accepted += len(data)
            if not self._draining:
                self._draining = True
                Shared(self._drain())
            await part.written

    async def _drain(self) -> None:
        await self._turn.acquire()
        try:
            while self._waiting:
                await self._write_batch()
        finally:
            self._draining = False
            self._turn.release()

    async def _write_batch(self) -> None:
        batch = [self._waiting.popleft()]
        size = len(batch[0].data)
        while self._waiting and size + len(self._waiting[0].data) <= BATCH:
            batch.append(self._waiting.popleft())
            size += len(batch[-1].data)
        outcome: Failure | None = None
        try:
            self._alive()
            await self._owner.threads.run(self._append, [part.data for part in batch])
            self.offset += size
        except Exception:  # goes on to each of those who wait
            outcome = Failure()
            # What waits behind was meant for the place after these bytes.
            batch.extend(self._waiting)
            self._waiting.clear()
            self.accepted = self.offset
        self.touched_at = self._owner.threads.now()
        for part in batch:
            part.written.callback(outcome)  # a Failure starts the error chain

    def _append(self, parts: list[bytes]) -> None:
        """In a thread: bytes first, then the hash, so that a failed write leaves the hash at the old offset."""
        at = self.offset
        try:
            with disk.space(self._owner.root):
                for data in parts:
                    disk.write_at(self._fd, data, at)
                    at += len(data)
        except BaseException:
            os.ftruncate(self._fd, self.offset)
            raise
        for data in parts:
            self._hasher.update(data)
            self._sums.update(data)

    async def finish(self, digest: Digest) -> MetaInfo:
        """Check the hash, commit to the store, end the session.

        Raises:
            InvalidInput: (`digest`) the bytes hash to something else; the session is over and nothing is left of it.
            OutOfSpace: the disk is full; the session lives on. NotFound: the session is over.
        """
        return await shielded(self._finish(digest))

    async def _finish(self, digest: Digest) -> MetaInfo:
        await self._turn.acquire()
        try:
            self._alive()
            got, meta = await self._owner.threads.run(self._conclude, digest)
            if got == digest:
                await self._owner.take(self.id, meta)
            await self._end()
        finally:
            self._turn.release()
        if got != digest:
            raise InvalidInput("digest", f"the {self.offset} bytes received hash to {got}, not {digest}")
        return meta

    def _conclude(self, digest: Digest) -> tuple[Digest, MetaInfo]:
        """In a thread. Only sha256 was computed while the bytes passed: others are rare and told at the end."""
        hasher = self._hasher
        if digest.algorithm != hasher.algorithm:
            hasher = Hasher(digest.algorithm)
            hash_range(self._fd, hasher, 0, self.offset)
        return hasher.digest(), self._sums.finish(digest)

    async def abort(self) -> None:
        """End the session; nothing is left of it. May be called twice."""
        await shielded(self._abort())

    async def _abort(self) -> None:
        await self._turn.acquire()
        try:
            if not self._over:
                await self._end()
        finally:
            self._turn.release()

    async def _end(self) -> None:
        self._over = True
        os.close(self._fd)
        await self._owner.ended(self.id)

    async def close(self) -> None:
        """Let go of the file; the session stays on disk."""
        await self._turn.acquire()
        if not self._over:
            self._over = True
            os.close(self._fd)
        self._turn.release()

    def _alive(self) -> None:
        if self._over:
            raise NotFound("upload", self.id)


class UploadStore:
    """See `interfaces.IUploadStore`. One process, one object for a root: leftovers are swept when it is made.

    Args:
        lengths: decides the piece length of what is uploaded.
        idle_s: a session nobody touched for so long ends at the next `sweep`.
        limit: of sessions at one time.
        persist: finished blobs appear as waiting for the backend.
    """

    log = Logger()

    def __init__(
        self,
        root: Path,
        store: BlobStore,
        lengths: PieceLengths,
        *,
        reactor: Any,
        pool: ThreadPool,
        idle_s: float,
        limit: int,
        persist: bool = False,
    ) -> None:
        self.root = Path(root)
        self.threads = Threads(reactor, pool)
        self._store = store
        self._lengths = lengths
        self._idle_s = idle_s
        self._limit = limit
        self._persist = persist
        self._sessions: dict[str, Upload | None] = {}  # None: being made, or on disk from an earlier run
        self._loading: dict[str, Shared[Upload]] = {}
        self.root.mkdir(parents=True, exist_ok=True)
        for path in self.root.iterdir():
            if _ID.fullmatch(path.name) and (path / DATA).is_file():
                self._sessions[path.name] = None
            else:
                disk.remove_tree(path)

    def __len__(self) -> int:
        """Sessions that are open."""
        return len(self._sessions)

    async def create(self) -> Upload:
        """Begin a session.

        Raises:
            OutOfSpace: the disk is full. Busy: too many sessions are open.
        """
        if len(self._sessions) >= self._limit:
            await self.sweep()
        if len(self._sessions) >= self._limit:
            raise Busy(f"{self._limit} uploads are open already", retry_after_s=5.0)
        upload_id = str(uuid.uuid4())
        self._sessions[upload_id] = None
        return await self._load_once(upload_id, new=True)

    async def get(self, upload_id: str) -> Upload:
        """Find a session, after a restart too (its bytes are hashed again).

        Raises:
            NotFound: unknown, or over.
        """
        if upload_id not in self._sessions:
            raise NotFound("upload", upload_id[:80])
        upload = self._sessions[upload_id]
        if upload is None:
            upload = await self._load_once(upload_id, new=False)
        upload.touched_at = self.threads.now()
        return upload

    async def sweep(self) -> int:
        """End the sessions that nobody touched for `idle_s`. Returns how many."""
        count = 0
        for upload_id, upload in list(self._sessions.items()):
            loading = self._loading.get(upload_id)
            if (loading is not None and not loading.done) or (upload is not None and upload.busy):
                continue
            touched_at = upload.touched_at if upload is not None else self._modified_at(upload_id)
            if self.threads.now() - touched_at <= self._idle_s:
                continue
            count += 1
            if upload is not None:
                await upload.abort()
            else:
                await self.ended(upload_id)
        return count

    async def close(self) -> None:
        """Let go of all files, after what is under way; the sessions stay on disk."""
        for loading in list(self._loading.values()):
            await loading.wait()
        sessions = [upload for upload in self._sessions.values() if upload is not None]
        self._sessions.clear()
        for upload in sessions:
            await upload.close()

    # -- for Upload

    async def take(self, upload_id: str, meta: MetaInfo) -> None:
        """Move the bytes of a session into the store."""
        await self._store.commit(self.root / upload_id / DATA, meta.digest, meta, persist=self._persist)

    async def ended(self, upload_id: str) -> None:
        """Forget a session and remove what is left of it."""
        self._sessions.pop(upload_id, None)
        self._loading.pop(upload_id, None)
        await self.threads.run(disk.remove_tree, self.root / upload_id)

    # -- within

    async def _load_once(self, upload_id: str, *, new: bool) -> Upload:
        loading = self._loading.get(upload_id)
        if loading is None or loading.done:
            loading = self._loading[upload_id] = Shared(self._load(upload_id, new))
        return await loading.wait()

    async def _load(self, upload_id: str, new: bool) -> Upload:
        try:
            upload = await self.threads.run(self._make if new else self._reopen, upload_id)
        except BaseException:
            self._sessions.pop(upload_id, None)
            self._loading.pop(upload_id, None)
            raise
        self._sessions[upload_id] = upload
        return upload

    def _make(self, upload_id: str) -> Upload:
        folder = self.root / upload_id
        try:
            with disk.space(self.root):
                folder.mkdir()
                fd = os.open(folder / DATA, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except BaseException:
            disk.remove_tree(folder)
            raise
        return Upload(upload_id, fd, 0, Hasher(), SumBuilder(self._lengths), self)

    def _reopen(self, upload_id: str) -> Upload:
        try:
            fd = os.open(self.root / upload_id / DATA, os.O_RDWR)
        except FileNotFoundError as error:
            raise NotFound("upload", upload_id) from error
        hasher, sums = Hasher(), SumBuilder(self._lengths)
        offset = 0
        try:
            while data := os.pread(fd, CHUNK, offset):
                hasher.update(data)
                sums.update(data)
                offset += len(data)
        except BaseException:
            os.close(fd)
            raise
        return Upload(upload_id, fd, offset, hasher, sums, self)

    def _modified_at(self, upload_id: str) -> float:
        try:
            return os.stat(self.root / upload_id / DATA).st_mtime
        except FileNotFoundError:
            return 0.0
