"""A disk that is really full: a small tmpfs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from krakentx.core.errors import OutOfSpace
from krakentx.core.metainfo import PieceLengths
from krakentx.storage import disk
from krakentx.storage.files import BlobStore
from krakentx.storage.pieces import PartialStore
from krakentx.storage.uploads import UploadStore

pytestmark = pytest.mark.integration

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "krakentx-test", str(mount)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"mounting a small disk is not allowed here: {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def _files(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*") if path.is_file()]


@pytest_twisted.ensureDeferred
async def test_upload_fails_cleanly_and_goes_on_when_there_is_room(small_disk, pool, sample) -> None:
    store = BlobStore(small_disk / "cache", reactor=reactor, pool=pool)
    settings: dict[str, Any] = {"reactor": reactor, "pool": pool, "idle_s": 60.0, "limit": 10}
    uploads = UploadStore(small_disk / "uploads", store, PieceLengths(((0, 65536),)), **settings)
    blob = sample(3 * MIB)
    (small_disk / "other").write_bytes(bytes(2 * MIB))
    upload = await uploads.create()
    await upload.write(blob.data[:MIB])
    with pytest.raises(OutOfSpace):
        await upload.write(blob.data[MIB:])
    assert upload.offset == MIB and (small_disk / "uploads" / upload.id / "data").stat().st_size == MIB
    (small_disk / "other").unlink()
    await upload.write(blob.data[MIB:])
    await upload.finish(blob.digest)
    assert store.path(blob.digest).read_bytes() == blob.data
    assert sorted(_files(small_disk)) == ["_torrentmeta", "data"]


@pytest_twisted.ensureDeferred
async def test_download_fails_before_the_first_byte_or_keeps_what_it_has(small_disk, pool, sample) -> None:
    store = BlobStore(small_disk / "cache", reactor=reactor, pool=pool)
    partials = PartialStore(small_disk / "download", store, reactor=reactor, pool=pool)
    with pytest.raises(OutOfSpace):
        await partials.open(sample(6 * MIB).meta)
    assert _files(small_disk) == []

    blob = sample(3 * MIB)
    partial = await partials.open(blob.meta)
    other = small_disk / "other"
    other.write_bytes(bytes(2 * MIB))  # another program takes the room meanwhile
    with pytest.raises(OutOfSpace):
        for piece in range(blob.meta.piece_count):
            start = blob.meta.offset(piece)
            with disk.space(small_disk):
                disk.write_at(partial.fileno(), blob.data[start : start + blob.meta.piece_size(piece)], start)
            partial.mark(piece)
    kept = list(partial.have)
    partial.close()
    assert kept
    with pytest.raises(OutOfSpace):
        await partials.open(blob.meta)
    other.unlink()
    resumed = await partials.open(blob.meta)
    assert list(resumed.have) == kept
    disk.write_at(resumed.fileno(), blob.data, 0)
    for piece in range(blob.meta.piece_count):
        resumed.mark(piece)
    await resumed.commit()
    resumed.close()
    assert store.path(blob.digest).read_bytes() == blob.data
