"""Where the objects of a tracker meet."""

# mypy: allow-untyped-calls
# twisted.application has no types.

from __future__ import annotations

import random
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import LogLevel
from twisted.web.resource import IResource

from krakentx.clients.cluster import OriginCluster
from krakentx.clients.hosts import HostPool
from krakentx.tracker.api import tracker_resource
from krakentx.tracker.config import TrackerConfig
from krakentx.tracker.interfaces import IPeerStore
from krakentx.tracker.logic import Tracker
from krakentx.tracker.origins import Origins
from krakentx.tracker.peers import PeerMemory
from krakentx.tracker.redis import RedisStore, connect
from krakentx.tracker.stores import LocalStore
from krakentx.web.client import HttpClient
from krakentx.web.metrics import HttpMetrics, Metrics
from krakentx.web.service import HttpService

ORIGIN_PORT = 15002
_CONNECT_S = 2.0


class TrackerService(MultiService):
    """A tracker, listening while it runs."""

    def __init__(self, http: HttpService, store: IPeerStore, client: HttpClient) -> None:
        super().__init__()
        self.http = http
        self._store = store
        self._client = client
        http.setServiceParent(self)

    def startService(self) -> None:
        """Start the peer store, then listen."""
        self._store.start()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Stop listening, then everything below."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await maybeDeferred(super().stopService)
        await self._store.stop()
        await self._client.close()


def build(config: TrackerConfig, *, reactor: Any, rng: random.Random | None = None) -> TrackerService:
    """Put a tracker together.

    Raises:
        InvalidInput: an address of the configuration is none.
    """
    rng = rng or random.Random()
    metrics = Metrics("tracker")
    client = HttpClient(reactor, connect_s=_CONNECT_S, rng=rng)
    pool = HostPool(config.origin.hosts, default_port=ORIGIN_PORT, reactor=reactor, rng=rng)
    origins = Origins(OriginCluster(client, pool, reactor), config.originstore, config.trackerserver, reactor)
    redis = config.peerstore.redis
    remember_s = redis.peer_set_window_size_s * redis.max_peer_set_windows if redis.enabled else 0.0
    memory = PeerMemory(config.peerstore.local, rng, remember_s=remember_s)
    metrics.gauge("peers", "Peers of all torrents in memory.").set_function(lambda: memory.count)
    metrics.gauge("torrents", "Torrents in memory.").set_function(lambda: memory.torrents)
    store: IPeerStore = LocalStore(memory, reactor)
    if redis.enabled:
        store = RedisStore(LocalStore(memory, reactor), connect(redis), redis, reactor)
    tracker = Tracker(store, origins, config.trackerserver, config.peerhandoutpolicy, reactor, rng)
    metrics.gauge("announce_interval_seconds", "After how long unfinished peers shall announce again.").set_function(
        lambda: tracker.pace.interval_s
    )
    resource: IResource = tracker_resource(tracker, origins, metrics, ready=origins.check, reactor=reactor)
    http = HttpService(
        "tracker",
        resource,
        config.port,
        config.interface,
        reactor=reactor,
        setting="--port or tracker.port",
        level=LogLevel.debug,  # each agent announces every few seconds: a line for each would be most of the work
        metrics=HttpMetrics(metrics),
    )
    return TrackerService(http, store, client)
