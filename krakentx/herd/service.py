"""Where the central parts meet in one process."""

# mypy: allow-untyped-calls
# twisted.application has no types.

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import maybeDeferred

from krakentx.buildindex.service import BuildIndexService
from krakentx.buildindex.service import build as build_build_index
from krakentx.herd.config import HerdConfig, wired
from krakentx.herd.origins import LocalOrigins
from krakentx.herd.redis import RedisServer
from krakentx.origin.service import OriginService
from krakentx.origin.service import build as build_origin
from krakentx.proxy.service import ProxyService
from krakentx.proxy.service import build as build_proxy
from krakentx.testfs.service import TestfsService
from krakentx.testfs.service import build as build_testfs
from krakentx.tracker.service import TrackerService
from krakentx.tracker.service import build as build_tracker
from krakentx.web.component import Component


class HerdService(Component):
    """The central parts. They start in the order in which they need each other."""

    testfs: TestfsService
    origin: OriginService
    tracker: TrackerService
    build_index: BuildIndexService
    proxy: ProxyService

    async def _stop(self) -> None:
        # The proxy first: what it has under way still needs the others.
        await maybeDeferred(self.proxy.disownServiceParent)
        await super()._stop()


def build(config: HerdConfig, *, reactor: Any, rng: random.Random | None = None) -> HerdService:
    """Put a herd together; `config.data_dir` must be set.

    Raises:
        ConfigError, InvalidInput: something in the configuration cannot be.
    """
    config = wired(config)
    assert config.data_dir is not None
    rng = rng or random.Random()
    herd = HerdService()
    pool = herd.storage_pool(reactor)
    if config.redis.spawn:
        RedisServer(config.redis, config.data_dir / "redis", reactor=reactor).setServiceParent(herd)
    herd.testfs = build_testfs(config.testfs, reactor=reactor)
    herd.origin = build_origin(config.origin, reactor=reactor, rng=rng, pool=pool)
    herd.tracker = build_tracker(config.tracker, reactor=reactor, rng=rng)
    herd.build_index = build_build_index(config.build_index, reactor=reactor, rng=rng, pool=pool)
    herd.proxy = build_proxy(
        config.proxy,
        reactor=reactor,
        rng=rng,
        pool=pool,
        local=lambda store: LocalOrigins(herd.origin.origin, store, reactor),
        lengths=config.origin.metainfogen.piece_lengths,
    )
    for part in (herd.testfs, herd.origin, herd.tracker, herd.build_index, herd.proxy):
        part.setServiceParent(herd)
    return herd
