"""A store below a fresh folder, and origins in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool

from krakentx.core.digest import Digest
from krakentx.core.errors import KrakenError, NotFound
from krakentx.core.metainfo import MetaInfo, PieceLengths
from krakentx.storage.files import BlobStore
from krakentx.storage.interfaces import IBlobReader
from krakentx.storage.uploads import UploadStore

LENGTHS = PieceLengths(((0, 1 << 16),))


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
def uploads(tmp_path: Path, store: BlobStore, pool: ThreadPool) -> UploadStore:
    return UploadStore(
        tmp_path / "upload", store, LENGTHS, reactor=reactor, pool=pool, idle_s=60.0, limit=100, persist=True
    )


@define
class Reader:
    """An open blob in memory."""

    digest: Digest
    size: int
    fd: int

    def fileno(self) -> int:
        return self.fd

    async def wait(self, offset: int, stop: int) -> int:
        return stop

    def close(self) -> None:
        os.close(self.fd)


@define
class Origins:
    """An IOrigins in memory, which reads what it takes from the proxy's store."""

    store: BlobStore
    blobs: dict[tuple[str, Digest], bytes] = field(factory=dict)
    trouble: KrakenError | None = None
    gate: Deferred[None] | None = None
    taken: int = 0
    prefetched: list[tuple[str, Digest]] = field(factory=list)

    def add(self, namespace: str, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.blobs[namespace, digest] = data
        return digest

    def _get(self, namespace: str, digest: Digest) -> bytes:
        if self.trouble is not None:
            raise self.trouble
        if (namespace, digest) not in self.blobs:
            raise NotFound("blob", digest)
        return self.blobs[namespace, digest]

    async def stat(self, namespace: str, digest: Digest) -> int:
        return len(self._get(namespace, digest))

    async def open(self, namespace: str, digest: Digest) -> IBlobReader:
        data = self._get(namespace, digest)
        fd = os.memfd_create("blob")
        os.write(fd, data)
        return Reader(digest, len(data), fd)

    async def take(self, namespace: str, meta: MetaInfo) -> None:
        self.taken += 1
        data = self.store.path(meta.digest).read_bytes()
        if self.gate is not None:
            await self.gate
        if self.trouble is not None:
            raise self.trouble
        self.blobs[namespace, meta.digest] = data

    async def prefetch(self, namespace: str, digest: Digest) -> None:
        self._get(namespace, digest)
        self.prefetched.append((namespace, digest))


@pytest.fixture
def origins(store: BlobStore) -> Origins:
    return Origins(store)
