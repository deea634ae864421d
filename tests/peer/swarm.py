"""A tracker and an HTTP source made of dictionaries, and a peer with its disk."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from attrs import Factory, define, evolve, frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from krakentx.core.digest import Digest
from krakentx.core.errors import NotFound, Unavailable
from krakentx.core.metainfo import MetaInfo, PieceLengths, SumBuilder
from krakentx.core.peer import AnnounceAnswer, InfoHash, PeerContext, PeerID, PeerInfo
from krakentx.peer.scheduler import Scheduler
from krakentx.storage.files import BlobStore
from krakentx.storage.interfaces import IBlobReader
from krakentx.storage.pieces import PartialStore
from krakentx.swarm.engine import Engine

MIB = 1 << 20


@frozen
class Blob:
    """Bytes, and what is known of them."""

    data: bytes
    digest: Digest
    meta: MetaInfo


def make_blob(size: int, piece_length: int = MIB, seed: int = 1) -> Blob:
    """A blob of random bytes."""
    data = random.Random(seed).randbytes(size)
    sums = SumBuilder(PieceLengths(((0, piece_length),)))
    sums.update(data)
    digest = Digest.of(data)
    return Blob(data, digest, sums.finish(digest))


@define(eq=False)
class FakeTracker:
    """Announces and metainfo, as a tracker would answer."""

    contexts: dict[PeerID, PeerContext] = Factory(dict)
    peers: dict[InfoHash, dict[PeerID, PeerInfo]] = Factory(dict)
    metas: dict[Digest, MetaInfo] = Factory(dict)
    announces: int = 0
    metainfo_calls: int = 0
    lost: list[PeerID] = Factory(list)
    down: bool = False
    delay_s: float = 0.0
    strong: dict[Digest, MetaInfo] = Factory(dict)  # what an origin knows beyond `metas`

    def seed(self, scheduler: Scheduler, blob: Blob) -> None:
        """Name an origin as a holder of a blob."""
        self.metas[blob.digest] = blob.meta
        info = evolve(scheduler.context.as_peer(complete=True), port=scheduler.port_number)
        self.peers.setdefault(blob.meta.info_hash, {})[info.peer_id] = info

    async def metainfo(self, namespace: str, digest: Digest) -> MetaInfo:
        self.metainfo_calls += 1
        if self.delay_s:
            await deferLater(reactor, self.delay_s)
        if self.down:
            raise Unavailable("tracker:15003", "is down")
        if digest not in self.metas:
            raise NotFound("blob", digest)
        return self.metas[digest]

    async def strong_sums(self, namespace: str, digest: Digest) -> MetaInfo:
        if digest not in self.strong:
            raise Unavailable("every tracker and origin", "knows no strong sums")
        return self.strong[digest]


@define(eq=False)
class FakeAnnouncer:
    """The tracker as one peer sees it."""

    tracker: FakeTracker
    scheduler: Scheduler | None = None

    async def announce(self, digest: Digest, info_hash: InfoHash, *, complete: bool) -> AnnounceAnswer:
        self.tracker.announces += 1
        if self.tracker.down:
            raise Unavailable("tracker:15003", "is down")
        assert self.scheduler is not None
        known = self.tracker.peers.setdefault(info_hash, {})
        others = tuple(known.values())
        me = evolve(self.scheduler.context.as_peer(complete=complete), port=self.scheduler.port_number)
        known[me.peer_id] = me
        return AnnounceAnswer(() if complete else others, 0.5)

    def report_lost(self, info_hash: InfoHash, peer: PeerID) -> None:
        self.tracker.lost.append(peer)


@define(eq=False)
class FakeFallback:
    """An HTTP source."""

    blobs: dict[Digest, bytes] = Factory(dict)
    calls: list[tuple[int, int]] = Factory(list)
    bad_from: int | None = None  # an offset whose byte is sent wrong
    silent: bool = False

    async def fetch(
        self, namespace: str, digest: Digest, start: int, stop: int, receive: Callable[[bytes], None], stall_s: float
    ) -> None:
        self.calls.append((start, stop))
        if self.silent:
            await Deferred()
        if digest not in self.blobs:
            raise NotFound("blob", digest)
        data = bytearray(self.blobs[digest][start:stop])
        if self.bad_from is not None and start <= self.bad_from < stop:
            data[self.bad_from - start] ^= 1
        for at in range(0, len(data), 64 << 10):
            await deferLater(reactor, 0)
            receive(bytes(data[at : at + (64 << 10)]))


@define(eq=False)
class Peer:
    """One peer and its disk."""

    scheduler: Scheduler
    engine: Engine
    cache: BlobStore
    partials: PartialStore | None
    root: Path
    blob: Blob | None = None  # the one that a test is about

    async def keep(self, blob: Blob) -> None:
        """Put a blob into the cache."""
        source = self.root / f"blob-{blob.digest.hex[:8]}"
        source.write_bytes(blob.data)
        await self.cache.commit(source, blob.digest, blob.meta)

    async def read(self, blob: Blob) -> bytes:
        """Open and read a blob to its end."""
        return await read_all(await self.scheduler.open("ns", blob.digest))


async def read_all(reader: IBlobReader) -> bytes:
    """Every byte, as it is released."""
    parts = []
    offset = 0
    try:
        while offset < reader.size:
            end = await reader.wait(offset, reader.size)
            assert offset < end <= reader.size
            parts.append(os.pread(reader.fileno(), end - offset, offset))
            assert len(parts[-1]) == end - offset
            offset = end
    finally:
        reader.close()
    return b"".join(parts)


async def until(true: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for something to become true."""
    ends = reactor.seconds() + timeout_s
    while not true():
        assert reactor.seconds() < ends, "it did not become true in time"
        await deferLater(reactor, 0.01)
