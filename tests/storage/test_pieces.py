"""Partial blobs."""

from __future__ import annotations

import errno
import os
import random
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from krakentx.core.digest import Digest
from krakentx.core.errors import Conflict, Corrupt, InvalidInput, NotFound, OutOfSpace
from krakentx.core.metainfo import MetaInfo
from krakentx.storage import pieces as pieces_module
from krakentx.storage.pieces import PartialBlob, PartialStore


def _fill(blob: PartialBlob, data: bytes, pieces: Any) -> None:
    for piece in pieces:
        start = blob.meta.offset(piece)
        os.pwrite(blob.fileno(), data[start : start + blob.meta.piece_size(piece)], start)
        blob.mark(piece)


@pytest.fixture
def reopen(partials: PartialStore, store: Any, pool: Any) -> Any:
    return lambda: PartialStore(partials.root, store, reactor=reactor, pool=pool)


def _left(partials: PartialStore) -> list[str]:
    return [path.name for path in partials.root.rglob("*") if path.is_file()]


@pytest_twisted.ensureDeferred
async def test_pieces_in_any_order_become_a_blob_of_the_cache(partials, store, sample) -> None:
    sample_ = sample(3_000_000)
    partial = await partials.open(sample_.meta)
    order = list(range(sample_.meta.piece_count))
    random.Random(1).shuffle(order)
    _fill(partial, sample_.data, order[:-1])
    assert partials.find(sample_.digest) == sample_.meta and partials.is_pinned(sample_.digest)
    with pytest.raises(Conflict):
        await partial.commit()
    _fill(partial, sample_.data, order[-1:])
    await gatherResults([Deferred.fromCoroutine(partial.verify()), Deferred.fromCoroutine(partial.commit())])
    assert store.path(sample_.digest).read_bytes() == sample_.data
    assert store.metainfo(sample_.digest) == sample_.meta
    assert os.pread(partial.fileno(), 100, 0) == sample_.data[:100]
    partial.close()
    partial.close()
    assert _left(partials) == [] and partials.find(sample_.digest) is None and not partials.is_pinned(sample_.digest)


@pytest_twisted.ensureDeferred
async def test_layout_is_that_of_the_reference(partials, sample) -> None:
    sample_ = sample(1000)
    partial = await partials.open(sample_.meta)
    _fill(partial, sample_.data, [1])
    hex_ = sample_.digest.hex
    folder = partials.root / hex_[:2] / hex_[2:4] / hex_
    assert (folder / "data").stat().st_size == 1000
    status = bytearray(sample_.meta.piece_count)
    status[1] = 1
    assert (folder / "_status").read_bytes() == status
    assert MetaInfo.from_json((folder / "_torrentmeta").read_bytes()) == sample_.meta
    (record,) = partials.records()
    assert record.digest == sample_.digest
    assert not await partials.evict(sample_.digest)
    partial.close()
    assert await partials.evict(sample_.digest)


@pytest_twisted.ensureDeferred
async def test_blob_of_zero_bytes_is_complete_at_once(partials, store, sample) -> None:
    empty = sample(0)
    partial = await partials.open(empty.meta)
    assert partial.have.complete
    await partial.commit()
    partial.close()
    assert store.stat(empty.digest) == 0


@pytest_twisted.ensureDeferred
async def test_resume_believes_only_what_matches_its_sum(partials, reopen, store, sample) -> None:
    sample_ = sample(2000)
    partial = await partials.open(sample_.meta)
    _fill(partial, sample_.data, [0, 2, 4])
    partial.close()
    folder = store.root.parent / "download" / sample_.digest.hex[:2] / sample_.digest.hex[2:4] / sample_.digest.hex
    with open(folder / "data", "r+b") as file:  # a loss of power may leave zeros where the status says "here"
        file.seek(sample_.meta.offset(2))
        file.write(b"\0" * 10)
    resumed = await reopen().open(sample_.meta)
    assert list(resumed.have) == [0, 4]
    assert (folder / "_status").read_bytes()[:5] == b"\1\0\0\0\1"
    _fill(resumed, sample_.data, range(sample_.meta.piece_count))
    await resumed.commit()
    resumed.close()
    assert store.path(sample_.digest).read_bytes() == sample_.data


@pytest_twisted.ensureDeferred
async def test_metainfo_of_before_strong_sums_works_by_crc_alone(partials, reopen, store, sample) -> None:
    sample_ = sample(2000)
    old = evolve(sample_.meta, strong_sums=b"")
    partial = await partials.open(old)
    _fill(partial, sample_.data, [0, 2])
    partial.close()
    again = reopen()
    assert again.find(sample_.digest) == old
    resumed = await again.open(sample_.meta)  # the same torrent, of which more is known by now
    assert list(resumed.have) == [0, 2]
    _fill(resumed, sample_.data, range(old.piece_count))
    await resumed.commit()
    resumed.close()
    assert store.metainfo(sample_.digest) == sample_.meta


@pytest.mark.parametrize("damage", ["_status", "_torrentmeta", "data", "status too long", "unknown status"])
@pytest_twisted.ensureDeferred
async def test_resume_with_a_file_missing_or_damaged(partials, reopen, sample, damage) -> None:
    sample_ = sample(1000)
    partial = await partials.open(sample_.meta)
    _fill(partial, sample_.data, range(sample_.meta.piece_count))
    partial.close()
    hex_ = sample_.digest.hex
    folder = partials.root / hex_[:2] / hex_[2:4] / hex_
    if damage == "status too long":
        (folder / "_status").write_bytes(b"\1" * 100)
    elif damage == "unknown status":
        (folder / "_status").write_bytes(b"\2" * sample_.meta.piece_count)
    else:
        (folder / damage).unlink()
    resumed = await reopen().open(sample_.meta)
    assert len(resumed.have) == 0 and os.fstat(resumed.fileno()).st_size == 1000
    assert (folder / "_status").read_bytes() == bytes(sample_.meta.piece_count)
    resumed.close()


@pytest_twisted.ensureDeferred
async def test_another_cut_of_the_same_blob_begins_anew(partials, sample) -> None:
    sample_ = sample(1000)
    partial = await partials.open(sample_.meta)
    _fill(partial, sample_.data, [0])
    partial.close()
    other = MetaInfo(sample_.digest, 1000, 1000, (0,))
    partial = await partials.open(other)
    assert len(partial.have) == 0 and partials.find(sample_.digest) == other
    partial.close()


@pytest_twisted.ensureDeferred
async def test_wrong_bytes_are_found_and_can_come_again(partials, store, sample) -> None:
    """Pieces may match their CRC-32 and the whole still be wrong."""
    sample_ = sample(1000)
    count = sample_.meta.piece_count
    partial = await partials.open(sample_.meta)
    _fill(partial, sample_.data[:64] + bytes(128) + sample_.data[192:], range(count))
    for attempt in (partial.commit, partial.verify):
        with pytest.raises(Corrupt):
            await attempt()
    wrong = await partial.misfits()
    assert list(wrong) == [1, 2] and store.stat(sample_.digest) is None
    partial.forget(wrong)
    assert list(partial.have) == [0, *range(3, count)]
    assert list(await partial.misfits()) == [1, 2]
    hex_ = sample_.digest.hex
    status = partials.root / hex_[:2] / hex_[2:4] / hex_ / "_status"
    assert status.read_bytes() == bytes([1, 0, 0] + [1] * (count - 3))
    _fill(partial, sample_.data, wrong)
    await partial.commit()
    partial.close()
    assert store.path(sample_.digest).read_bytes() == sample_.data


@pytest_twisted.ensureDeferred
async def test_one_opener_at_a_time(partials, sample) -> None:
    sample_ = sample(1000)
    partial = await partials.open(sample_.meta)
    with pytest.raises(Conflict):
        await partials.open(sample_.meta)
    partial.close()
    (await partials.open(sample_.meta)).close()


@pytest_twisted.ensureDeferred
async def test_cancelled_open_leaves_nothing_open(partials, sample) -> None:
    sample_ = sample(1000)
    opening = Deferred.fromCoroutine(partials.open(sample_.meta))
    opening.cancel()
    with pytest.raises(CancelledError):
        await opening
    for _ in range(200):
        if not partials.is_pinned(sample_.digest):
            break
        tick: Deferred[None] = Deferred()
        reactor.callLater(0.01, tick.callback, None)
        await tick
    (await partials.open(sample_.meta)).close()


@pytest_twisted.ensureDeferred
async def test_close_while_a_thread_hashes(partials, sample) -> None:
    sample_ = sample(3_000_000)
    partial = await partials.open(sample_.meta)
    _fill(partial, sample_.data, range(sample_.meta.piece_count))
    verifying = Deferred.fromCoroutine(partial.verify())
    partial.close()
    with pytest.raises(Conflict):
        await verifying
    resumed = await partials.open(sample_.meta)
    assert resumed.have.complete
    resumed.close()


@pytest_twisted.ensureDeferred
async def test_close_while_a_thread_looks_for_wrong_pieces(partials, sample) -> None:
    sample_ = sample(3_000_000)
    partial = await partials.open(sample_.meta)
    _fill(partial, sample_.data, range(sample_.meta.piece_count))
    looking = Deferred.fromCoroutine(partial.misfits())
    partial.close()
    assert not await looking
    with pytest.raises(Conflict):
        await partial.misfits()


@pytest_twisted.ensureDeferred
async def test_delete_while_open(partials, store, sample) -> None:
    sample_ = sample(1000)
    partial = await partials.open(sample_.meta)
    assert await partials.delete(sample_.digest) and not await partials.delete(sample_.digest)
    _fill(partial, sample_.data, range(sample_.meta.piece_count))
    assert os.pread(partial.fileno(), 10, 0) == sample_.data[:10]
    with pytest.raises(NotFound):
        await partial.commit()
    partial.close()
    assert _left(partials) == [] and store.stat(sample_.digest) is None


@pytest_twisted.ensureDeferred
async def test_open_says_when_the_disk_has_no_room(partials, sample, monkeypatch) -> None:
    real = os.statvfs(partials.root)

    class Full:
        f_bavail, f_frsize = 0, real.f_frsize

    monkeypatch.setattr(pieces_module.os, "statvfs", lambda _path: Full)
    with pytest.raises(OutOfSpace):
        await partials.open(sample(1000).meta)
    assert _left(partials) == [] and not partials.is_pinned(sample(1000).digest)


@pytest_twisted.ensureDeferred
async def test_mark_outlives_a_full_disk_and_refuses_nonsense(partials, sample, monkeypatch) -> None:
    partial = await partials.open(sample(1000).meta)

    def full(*_args: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pieces_module.os, "pwrite", full)
        partial.mark(0)
    assert 0 in partial.have
    for piece in (-1, partial.meta.piece_count):
        with pytest.raises(InvalidInput):
            partial.mark(piece)
    partial.close()


@pytest_twisted.ensureDeferred
async def test_nothing_to_find(partials) -> None:
    assert partials.find(Digest.of(b"nothing")) is None and not await partials.delete(Digest.of(b"nothing"))


@pytest_twisted.ensureDeferred
async def test_a_crash_between_the_move_and_the_removal_leaves_nothing(tmp_path, store, partials, pool, sample) -> None:
    blob = sample(1000)
    partial = await partials.open(blob.meta)
    os.pwrite(partial.fileno(), blob.data, 0)
    await store.commit(
        partials.root / blob.digest.hex[:2] / blob.digest.hex[2:4] / blob.digest.hex / "data",
        blob.digest,
        blob.meta,
        keep_source=True,
    )
    partial.close()
    assert len(list(partials.records())) == 1
    again = PartialStore(partials.root, store, reactor=reactor, pool=pool)
    assert list(again.records()) == []
    assert store.path(blob.digest).read_bytes() == blob.data


@pytest_twisted.ensureDeferred
async def test_a_file_that_was_cut_below_us_is_an_error_of_the_disk(partials, sample, logs) -> None:
    sample_ = sample(3_000_000)
    partial = await partials.open(sample_.meta)
    for piece in range(sample_.meta.piece_count):
        partial.have = partial.have.with_(piece)
    os.ftruncate(partial.fileno(), 1000)
    with pytest.raises(OSError, match="file ends at 1000"):
        await partial.verify()
    logs.clear()
    partial.close()
