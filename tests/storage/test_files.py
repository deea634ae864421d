"""The cache."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from krakentx.core.digest import Digest
from krakentx.core.errors import Conflict, Corrupt, NotFound, OutOfSpace
from krakentx.storage import disk
from krakentx.storage.files import BlobStore
from krakentx.storage.layout import decode_time


@pytest.fixture
def put(tmp_path: Path, store: BlobStore, sample: Callable[..., Any]) -> Callable[..., Any]:
    async def put(size: int = 1000, seed: int = 0, **options: Any) -> Any:
        blob = sample(size, seed)
        source = tmp_path / f"source-{size}-{seed}"
        source.write_bytes(blob.data)
        await store.commit(source, blob.digest, blob.meta, **options)
        return blob

    return put


def _names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest_twisted.ensureDeferred
async def test_layout_is_that_of_the_reference(put, store, tmp_path) -> None:
    blob = await put(persist=True)
    hex_ = blob.digest.hex
    folder = f"{hex_[:2]}/{hex_[2:4]}/{hex_}"
    assert _names(store.root) == [f"{folder}/_persist", f"{folder}/_torrentmeta", f"{folder}/data"]
    assert (store.root / folder / "_persist").read_text() == "true"
    assert (store.root / folder / "_torrentmeta").read_bytes() == blob.meta.to_json()
    assert not (tmp_path / "source-1000-0").exists()


@pytest_twisted.ensureDeferred
async def test_open_reads_pins_and_notes_the_access(put, store) -> None:
    blob = await put()
    with store.open(blob.digest) as opened:
        assert (opened.digest, opened.size) == (blob.digest, 1000)
        assert await opened.wait(10, 900) == 900
        assert os.pread(opened.fileno(), 2000, 0) == blob.data
        assert store.is_pinned(blob.digest) and not await store.evict(blob.digest)
        opened.close()
    assert not store.is_pinned(blob.digest)
    access = decode_time((store.path(blob.digest).parent / "_last_access_time").read_bytes())
    assert access is not None and abs(access - time.time()) < 5
    (record,) = store.records()
    assert record.accessed_at >= access and record.size_bytes == 1000 and not record.persist
    assert await store.evict(blob.digest)


@pytest_twisted.ensureDeferred
async def test_absent_blob(store) -> None:
    absent = Digest.of(b"absent")
    assert store.stat(absent) is None and store.metainfo(absent) is None
    assert not await store.delete(absent)
    with pytest.raises(NotFound):
        store.open(absent)
    with pytest.raises(NotFound):
        store.set_persist(absent, True)
    assert list(store.records()) == []


@pytest_twisted.ensureDeferred
async def test_reader_survives_a_delete(put, store) -> None:
    blob = await put()
    with store.open(blob.digest) as opened:
        assert await store.delete(blob.digest)
        assert store.stat(blob.digest) is None and _names(store.root) == []
        assert os.pread(opened.fileno(), 2000, 0) == blob.data


@pytest_twisted.ensureDeferred
async def test_what_is_not_in_the_backend_stays(put, store) -> None:
    blob = await put()
    store.set_persist(blob.digest, True)
    with pytest.raises(Conflict):
        await store.delete(blob.digest)
    assert not await store.evict(blob.digest)
    store.set_persist(blob.digest, False)
    store.set_persist(blob.digest, False)
    assert await store.delete(blob.digest)


@pytest_twisted.ensureDeferred
async def test_keep_source_shares_the_bytes(put, store, tmp_path) -> None:
    blob = await put(keep_source=True)
    source = tmp_path / "source-1000-0"
    assert os.path.samefile(source, store.path(blob.digest))


@pytest_twisted.ensureDeferred
async def test_copies_from_another_file_system(put, store, tmp_path, monkeypatch) -> None:
    def refuse(*_args: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(disk.os, "link", refuse)
    blob = await put()
    assert store.path(blob.digest).read_bytes() == blob.data and not (tmp_path / "source-1000-0").exists()


@pytest_twisted.ensureDeferred
async def test_twenty_commits_of_one_blob(store, sample, tmp_path) -> None:
    blob = sample(1000)
    sources = [tmp_path / str(i) for i in range(20)]
    for source in sources:
        source.write_bytes(blob.data)
    await gatherResults([Deferred.fromCoroutine(store.commit(s, blob.digest, blob.meta)) for s in sources])
    assert store.path(blob.digest).read_bytes() == blob.data
    assert not any(source.exists() for source in sources) and len(_names(store.root)) == 2


@pytest_twisted.ensureDeferred
async def test_full_disk_leaves_the_source_and_nothing_else(store, sample, tmp_path, monkeypatch) -> None:
    blob = sample(1000)
    source = tmp_path / "source"
    source.write_bytes(blob.data)

    def full(*_args: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "pwrite", full)
        with pytest.raises(OutOfSpace):
            await store.commit(source, blob.digest, blob.meta)
    assert source.exists() and store.stat(blob.digest) is None and _names(store.root) == []
    await store.commit(source, blob.digest, blob.meta)
    assert store.stat(blob.digest) == 1000


@pytest_twisted.ensureDeferred
async def test_metainfo_must_fit(put, store, sample, tmp_path) -> None:
    blob = await put()
    other = sample(999)
    source = tmp_path / "source"
    source.write_bytes(b"too short")
    with pytest.raises(Corrupt):
        await store.commit(source, other.digest, other.meta)
    with pytest.raises(NotFound):
        await store.set_metainfo(other.meta)
    with pytest.raises(NotFound):
        await store.commit(tmp_path / "nowhere", other.digest, other.meta)
    (store.path(blob.digest).parent / "_torrentmeta").unlink()
    await store.set_metainfo(blob.meta)
    assert BlobStore(store.root, reactor=reactor, pool=store._threads._pool).metainfo(blob.digest) == blob.meta
    assert len(_names(store.root)) == 2


@pytest.fixture
def reopen(store: BlobStore) -> Callable[[], BlobStore]:
    return lambda: BlobStore(store.root, reactor=reactor, pool=store._threads._pool)


@pytest_twisted.ensureDeferred
async def test_blob_of_the_wrong_length_is_absent_until_it_comes_again(put, store, reopen) -> None:
    blob = await put()
    os.truncate(store.path(blob.digest), 500)  # as the reference leaves it after a loss of power
    taken_over = reopen()
    assert taken_over.stat(blob.digest) is None
    with pytest.raises(NotFound):
        taken_over.open(blob.digest)
    assert [record.size_bytes for record in taken_over.records()] == [500]  # it takes room nevertheless
    assert await put() == blob
    assert reopen().stat(blob.digest) == 1000
    assert taken_over.stat(blob.digest) == 1000


@pytest_twisted.ensureDeferred
async def test_a_disk_of_the_reference_is_taken_over(store, sample, reopen) -> None:
    blob = sample(5000)
    folder = store.path(blob.digest).parent
    folder.mkdir(parents=True)
    (folder / "data").write_bytes(blob.data)
    (folder / "_torrentmeta").write_bytes(blob.meta.to_json())
    (folder / "_status").write_bytes(b"\1" * blob.meta.piece_count)
    (folder / "_last_access_time").write_bytes(bytes.fromhex("808084d60d000000"))  # Go's varint of 1.844e9
    (folder / "_persist").write_text("false")
    (store.root / "00").mkdir(exist_ok=True)
    (store.root / "lost+found").mkdir()
    (store.root / "00" / "11").mkdir()
    (store.root / "00" / "11" / "notahash").write_bytes(b"")
    taken_over = reopen()
    assert taken_over.stat(blob.digest) == 5000 and taken_over.metainfo(blob.digest) == blob.meta
    (record,) = taken_over.records()
    assert not record.persist and record.accessed_at >= record.modified_at
    assert await taken_over.delete(blob.digest)
    assert not folder.exists()


@pytest_twisted.ensureDeferred
async def test_side_files_without_data_do_not_stand_in_the_way(put, store, sample) -> None:
    folder = store.path(sample(1000).digest).parent
    folder.mkdir(parents=True)
    (folder / "_torrentmeta").write_bytes(b"{")
    blob = await put()
    assert store.path(blob.digest).read_bytes() == blob.data and store.metainfo(blob.digest) == blob.meta


@pytest_twisted.ensureDeferred
async def test_unreadable_metainfo_counts_as_none(put, store, reopen, sample) -> None:
    blob = await put()
    for content in (b"", b"\0" * 100, b'{"Info":', sample(50).meta.to_json()):
        (store.path(blob.digest).parent / "_torrentmeta").write_bytes(content)
        assert reopen().metainfo(blob.digest) is None


@pytest_twisted.ensureDeferred
async def test_leftovers_of_a_crash_are_swept_at_the_start(put, store, reopen) -> None:
    blob = await put()
    shard = store.root / blob.digest.hex[:2]
    (shard / ".half-made").mkdir()
    (shard / ".half-made" / "data").write_bytes(b"x")
    (shard / ".side-file").write_bytes(b"x")
    assert reopen().stat(blob.digest) == 1000
    assert len(_names(store.root)) == 2


@pytest_twisted.ensureDeferred
async def test_reading_goes_on_when_the_access_cannot_be_noted(put, store, monkeypatch) -> None:
    blob = await put()

    def full(*_args: Any, **_options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk, "write_new", full)
    with store.open(blob.digest) as opened:
        assert opened.size == 1000


@pytest_twisted.ensureDeferred
async def test_both_algorithms_lie_side_by_side(store, sample, tmp_path) -> None:
    for algorithm in ("sha256", "sha512"):
        blob = sample(1000, algorithm=algorithm)
        source = tmp_path / algorithm
        source.write_bytes(blob.data)
        await store.commit(source, blob.digest, blob.meta)
    assert {record.digest.algorithm for record in store.records()} == {"sha256", "sha512"}


@pytest_twisted.ensureDeferred
async def test_an_open_that_fails_midway_leaves_no_descriptor(put, store, pool, monkeypatch) -> None:
    blob = await put()
    fresh = BlobStore(store.root, reactor=reactor, pool=pool)

    def no_more(path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(disk, "read_or_none", no_more)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(OSError, match="Too many"):
            fresh.open(blob.digest)
    assert len(os.listdir("/proc/self/fd")) == before
    assert not fresh.is_pinned(blob.digest)
