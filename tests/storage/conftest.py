"""A small pool, and stores below a fresh folder."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import frozen
from twisted.internet import reactor
from twisted.python.threadpool import ThreadPool

from krakentx.core.digest import Digest
from krakentx.core.metainfo import MetaInfo, PieceLengths, SumBuilder
from krakentx.storage.files import BlobStore
from krakentx.storage.pieces import PartialStore
from krakentx.storage.uploads import UploadStore

LENGTHS = PieceLengths(((0, 64), (1024, 256), (1 << 20, 1 << 16)))


@frozen
class Sample:
    data: bytes
    digest: Digest
    meta: MetaInfo


@pytest.fixture
def sample() -> Callable[..., Sample]:
    """Factory of blobs: size in bytes, and a seed."""

    def make(size: int, seed: int = 0, algorithm: str = "sha256") -> Sample:
        data = random.Random(seed).randbytes(size)
        digest = Digest.of(data, algorithm)
        sums = SumBuilder(LENGTHS)
        sums.update(data)
        return Sample(data, digest, sums.finish(digest))

    return make


@pytest.fixture(scope="session")
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool(1, 4, "storage")
    pool.start()
    yield pool
    pool.stop()


@pytest.fixture
def store(tmp_path: Path, pool: ThreadPool) -> BlobStore:
    return BlobStore(tmp_path / "cache", reactor=reactor, pool=pool)


@pytest.fixture
def partials(tmp_path: Path, store: BlobStore, pool: ThreadPool) -> PartialStore:
    return PartialStore(tmp_path / "download", store, reactor=reactor, pool=pool)


@pytest.fixture
def make_uploads(tmp_path: Path, store: BlobStore, pool: ThreadPool) -> Callable[..., UploadStore]:
    def make(**changes: object) -> UploadStore:
        settings = {"reactor": reactor, "idle_s": 3600.0, "limit": 100} | changes
        return UploadStore(tmp_path / "uploads", store, LENGTHS, pool=pool, **settings)

    return make


@pytest.fixture
def uploads(make_uploads: Callable[..., UploadStore]) -> UploadStore:
    return make_uploads()


def files_below(root: Path) -> list[str]:
    """Every file, relative."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
