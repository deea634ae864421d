"""Whole peers on the loopback: a Scheduler with its Engine and its disk."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.python.threadpool import ThreadPool

from krakentx.core.peer import PeerContext, PeerID
from krakentx.peer.scheduler import Scheduler
from krakentx.storage.files import BlobStore
from krakentx.storage.pieces import PartialStore
from krakentx.swarm.config import SwarmConfig
from krakentx.swarm.engine import Engine
from tests.peer.swarm import Blob, FakeAnnouncer, FakeTracker, Peer, make_blob


@pytest.fixture(scope="session")
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool(1, 4, "storage")
    pool.start()
    yield pool
    pool.stop()


@pytest.fixture
def blob() -> Callable[..., Blob]:
    """Factory of blobs: size in bytes, piece length, seed."""
    return make_blob


@pytest.fixture
def tracker() -> FakeTracker:
    return FakeTracker()


Make = Callable[..., Peer]


@pytest.fixture
def make_peer(tmp_path: Path, tracker: FakeTracker, pool: ThreadPool) -> Make:
    """A peer that is not started."""
    made = 0

    def make(
        *,
        origin: bool = False,
        root: Path | None = None,
        config: SwarmConfig | None = None,
        fallback: Any = None,
        ip: str = "127.0.0.1",
        interface: str = "127.0.0.1",
        port: int = 0,
        **options: Any,
    ) -> Peer:
        nonlocal made
        made += 1
        root = root or tmp_path / f"peer{made}"
        root.mkdir(exist_ok=True)
        context = PeerContext(ip, 1, PeerID(made.to_bytes(20, "big")), origin=origin)
        context = evolve(context, tls=options.get("tls") is not None)
        cache = BlobStore(root / "cache", reactor=reactor, pool=pool)
        partials = None if origin else PartialStore(root / "download", cache, reactor=reactor, pool=pool)
        engine = Engine(
            context=context,
            config=config or SwarmConfig(),
            rng=random.Random(made),
            dials=not origin,
            fallback=fallback is not None,
        )
        announcer = FakeAnnouncer(tracker)
        scheduler = Scheduler(
            reactor=reactor,
            engine=engine,
            context=context,
            cache=cache,
            partials=partials,
            announcer=None if origin else announcer,
            metainfo=None if origin else tracker,
            fallback=fallback,
            port=port,
            interface=interface,
            **options,
        )
        announcer.scheduler = scheduler
        return Peer(scheduler, engine, cache, partials, root)

    return make


@pytest_twisted.async_yield_fixture
async def peer(make_peer: Make):  # type: ignore[no-untyped-def]
    """A peer that is running; all are stopped after the test."""
    running: list[Peer] = []

    async def run(**options: Any) -> Peer:
        each = make_peer(**options)
        each.scheduler.startService()
        running.append(each)
        return each

    yield run
    for each in running:
        await each.scheduler.stopService()
