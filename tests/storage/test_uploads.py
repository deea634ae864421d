"""Upload sessions."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from krakentx.core.digest import Digest
from krakentx.core.errors import Busy, InvalidInput, NotFound, OutOfSpace
from krakentx.storage import disk
from krakentx.storage.files import BlobStore
from krakentx.storage.uploads import Upload, UploadStore


def _start(work: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(work)


def _left(uploads: UploadStore) -> list[Path]:
    return list(uploads.root.iterdir())


@pytest_twisted.ensureDeferred
async def test_what_was_uploaded_is_in_the_store_with_its_metainfo(uploads, store, sample) -> None:
    blob = sample(5000)
    upload = await uploads.create()
    for at in range(0, 5000, 700):
        await upload.write(blob.data[at : at + 700])
        assert upload.offset == min(5000, at + 700)
    meta = await upload.finish(blob.digest)
    assert meta == blob.meta == store.metainfo(blob.digest)
    assert store.path(blob.digest).read_bytes() == blob.data
    assert _left(uploads) == [] and len(uploads) == 0


@pytest_twisted.ensureDeferred
async def test_writes_that_are_not_awaited_arrive_in_order(uploads, store, sample) -> None:
    blob = sample(300_000)
    upload = await uploads.create()
    pending = [_start(upload.write(blob.data[at : at + 1000])) for at in range(0, 300_000, 1000)]
    await gatherResults(pending)
    await upload.finish(blob.digest)
    assert store.path(blob.digest).read_bytes() == blob.data


@pytest_twisted.ensureDeferred
async def test_blob_of_zero_bytes(uploads, store) -> None:
    empty = Digest.of(b"")
    upload = await uploads.create()
    await upload.write(b"")
    meta = await upload.finish(empty)
    assert meta.piece_count == 0
    with store.open(empty) as blob:
        assert blob.size == 0


@pytest_twisted.ensureDeferred
async def test_sha512_is_told_only_at_the_end(uploads, store, sample) -> None:
    blob = sample(3000, algorithm="sha512")
    upload = await uploads.create()
    await upload.write(blob.data)
    assert await upload.finish(blob.digest) == blob.meta
    assert store.stat(blob.digest) == 3000


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest_twisted.ensureDeferred
async def test_wrong_digest_leaves_nothing(uploads, store, sample, algorithm) -> None:
    wanted = Digest.of(b"something else", algorithm)
    upload = await uploads.create()
    await upload.write(sample(100).data)
    with pytest.raises(InvalidInput) as caught:
        await upload.finish(wanted)
    assert caught.value.what == "digest"
    assert _left(uploads) == [] and store.stat(wanted) is None
    for over in (lambda: uploads.get(upload.id), lambda: upload.write(b"x"), lambda: upload.finish(wanted)):
        with pytest.raises(NotFound):
            await over()


@pytest_twisted.ensureDeferred
async def test_abort_leaves_nothing_even_during_a_write(uploads, sample) -> None:
    upload = await uploads.create()
    writing = _start(upload.write(sample(2_000_000).data))
    await upload.abort()
    await writing
    await upload.abort()
    assert _left(uploads) == []
    with pytest.raises(NotFound):
        await uploads.get(upload.id)


@pytest_twisted.ensureDeferred
async def test_session_survives_a_restart_at_its_true_offset(uploads, make_uploads, store, sample) -> None:
    blob = sample(9000)
    upload = await uploads.create()
    await upload.write(blob.data[:5000])
    restarted = make_uploads()
    first, second = await gatherResults([_start(restarted.get(upload.id)), _start(restarted.get(upload.id))])
    assert first is second and first.offset == 5000
    await first.write(blob.data[5000:])
    await first.finish(blob.digest)
    assert store.path(blob.digest).read_bytes() == blob.data
    assert _left(restarted) == []


@pytest_twisted.ensureDeferred
async def test_other_leftovers_are_gone_at_the_start(uploads, make_uploads) -> None:
    (uploads.root / "stray").write_bytes(b"x")
    (uploads.root / "0b7e32f1-54a5-4c3c-9b0a-1b0c9f0cbb55").mkdir()  # removed half before the crash
    assert len(make_uploads()) == 0 and _left(uploads) == []


@pytest_twisted.ensureDeferred
async def test_unknown_or_hostile_id(uploads) -> None:
    for upload_id in ("", "..", "../../etc/passwd", "0b7e32f1-54a5-4c3c-9b0a-1b0c9f0cbb55"):
        with pytest.raises(NotFound):
            await uploads.get(upload_id)


@pytest_twisted.ensureDeferred
async def test_twenty_uploads_of_one_blob(uploads, store, sample) -> None:
    blob = sample(200_000)

    async def push(abandoned: bool) -> None:
        upload = await uploads.create()
        for at in range(0, 200_000, 30_000):
            await upload.write(blob.data[at : at + 30_000])
        if abandoned:
            await upload.abort()
        else:
            assert await upload.finish(blob.digest) == blob.meta

    await gatherResults([_start(push(abandoned=i % 7 == 6)) for i in range(20)])
    assert store.path(blob.digest).read_bytes() == blob.data
    assert _left(uploads) == []
    assert [path.name for path in store.path(blob.digest).parent.parent.iterdir()] == [blob.digest.hex]
    assert [path.name for path in store.path(blob.digest).parents[2].iterdir()] == [blob.digest.hex[2:4]]


class _FullDisk:
    """Takes `room` bytes in short writes, then is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self._pwrite = os.pwrite
        monkeypatch.setattr(disk.os, "pwrite", self)

    def __call__(self, fd: int, data: memoryview, offset: int) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        written = self._pwrite(fd, bytes(data[: min(self.room, 999)]), offset)
        self.room -= written
        return written


@pytest_twisted.ensureDeferred
async def test_full_disk_leaves_the_session_at_its_old_offset(uploads, store, sample, monkeypatch) -> None:
    blob = sample(20_000)
    full = _FullDisk(monkeypatch, room=12_000)
    upload = await uploads.create()
    await upload.write(blob.data[:8000])
    writes = [_start(upload.write(blob.data[at : at + 6000])) for at in (8000, 14_000)]
    for write in writes:
        with pytest.raises(OutOfSpace):
            await write
    assert upload.offset == 8000 and os.stat(uploads.root / upload.id / "data").st_size == 8000
    full.room = 1 << 30
    await upload.write(blob.data[8000:])
    await upload.finish(blob.digest)
    assert store.path(blob.digest).read_bytes() == blob.data


@pytest_twisted.ensureDeferred
async def test_a_caller_that_gives_up_does_not_disturb_the_order(uploads, store, sample) -> None:
    blob = sample(3_000_000)
    upload = await uploads.create()
    first = _start(upload.write(blob.data[:2_000_000]))
    first.addErrback(lambda failure: None)
    first.cancel()
    await upload.write(blob.data[2_000_000:])
    await upload.finish(blob.digest)
    assert store.path(blob.digest).read_bytes() == blob.data


class _Clock:
    """The real reactor with a clock of our own."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def seconds(self) -> float:
        return reactor.seconds() + self.ahead_s

    def callFromThread(self, *args: Any) -> None:
        reactor.callFromThread(*args)


@pytest_twisted.ensureDeferred
async def test_idle_sessions_end_and_their_number_is_bounded(make_uploads: Callable[..., UploadStore]) -> None:
    clock = _Clock()
    uploads = make_uploads(reactor=clock, idle_s=100.0, limit=2)
    idle, busy = await uploads.create(), await uploads.create()
    with pytest.raises(Busy):
        await uploads.create()
    clock.ahead_s = 90.0
    await busy.write(b"still here")
    clock.ahead_s = 150.0
    fresh: Upload = await uploads.create()
    assert {path.name for path in _left(uploads)} == {busy.id, fresh.id}
    with pytest.raises(NotFound):
        await idle.write(b"late")
    await busy.abort()
    await fresh.write(b"abc")
    restarted = make_uploads(reactor=clock, idle_s=100.0)
    assert await restarted.sweep() == 1 and len(restarted) == 0


@pytest_twisted.ensureDeferred
async def test_finished_blobs_can_wait_for_the_backend(make_uploads, store: BlobStore, sample) -> None:
    uploads = make_uploads(persist=True)
    blob = sample(10)
    for _ in range(2):
        upload = await uploads.create()
        await upload.write(blob.data)
        await upload.finish(blob.digest)
        assert store.is_persisted(blob.digest)
        store.set_persist(blob.digest, False)


@pytest_twisted.ensureDeferred
async def test_close_lets_go_of_the_files_and_keeps_the_sessions(uploads, make_uploads) -> None:
    upload = await uploads.create()
    await upload.write(b"abc")
    await uploads.close()
    assert (await make_uploads().get(upload.id)).offset == 3


@pytest_twisted.ensureDeferred
async def test_a_session_that_cannot_be_read_again_leaves_no_descriptor(uploads, make_uploads, monkeypatch) -> None:
    upload = await uploads.create()
    await upload.write(b"x" * 1000)
    await uploads.close()
    restarted = make_uploads()

    def broken(fd: int, size: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "bad sector")

    monkeypatch.setattr(os, "pread", broken)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="bad sector"):
        await restarted.get(upload.id)
    assert len(os.listdir("/proc/self/fd")) == before
