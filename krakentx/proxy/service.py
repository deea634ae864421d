"""Where the objects of a proxy meet."""

# mypy: allow-untyped-calls
# twisted.application has no types.

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.python.threadpool import ThreadPool

from krakentx.clients.buildindex import BuildIndexClient
from krakentx.clients.cluster import OriginCluster
from krakentx.clients.config import HostsConfig
from krakentx.clients.hosts import HostPool
from krakentx.clients.tags import Tags
from krakentx.core.metainfo import PieceLengths
from krakentx.proxy.api import management_app
from krakentx.proxy.config import ProxyConfig
from krakentx.proxy.interfaces import IOrigins
from krakentx.proxy.logic import Blobs, Push, PushedTags
from krakentx.proxy.origins import RemoteOrigins
from krakentx.proxy.prefetch import Limits, Prefetcher
from krakentx.registry.api import registry_app
from krakentx.storage.files import BlobStore
from krakentx.storage.sweeper import BlobSweeper, UploadSweeper
from krakentx.storage.threads import Threads
from krakentx.storage.uploads import UploadStore
from krakentx.web.access import guarded
from krakentx.web.client import HttpClient
from krakentx.web.component import Component
from krakentx.web.metrics import HttpMetrics, Metrics
from krakentx.web.service import HttpService

ORIGIN_PORT, BUILD_INDEX_PORT = 15002, 15004
# Origins in other processes cut blobs themselves; only in the herd do the sums computed here count.
_ANY_LENGTHS = PieceLengths(((0, 4 << 20),))


class ProxyService(Component):
    """A proxy, listening while it runs."""

    registries: list[HttpService]
    management: HttpService
    uploads: UploadStore
    push: Push

    @property
    def port_number(self) -> int:
        """The first registry port in use."""
        return self.registries[0].port_number


def build(
    config: ProxyConfig,
    *,
    reactor: Any,
    rng: random.Random | None = None,
    pool: ThreadPool | None = None,
    local: Callable[[BlobStore], IOrigins] | None = None,
    lengths: PieceLengths = _ANY_LENGTHS,
) -> ProxyService:
    """Put a proxy together; `config.data_dir` must be set.

    Args:
        pool: for disk and hashing; by default one of its own.
        local: makes the origins of this process, which take blobs from the given store; by default those of
            `config.origin` are asked over HTTP.
        lengths: how `local` origins cut blobs into pieces.

    Raises:
        ConfigError, InvalidInput: an address or network of the configuration is none.
    """
    assert config.data_dir is not None, "the caller chooses the data folder"
    rng = rng or random.Random()
    service = ProxyService()
    pool = pool or service.storage_pool(reactor)
    metrics = Metrics("proxy")
    http = HttpClient(reactor, rng=rng)
    service.around(end=http.close)

    def hosts(hosts_config: HostsConfig, port: int) -> HostPool:
        return HostPool(hosts_config, default_port=port, reactor=reactor, rng=rng)

    castore = config.castore
    store = BlobStore(castore.cache_dir or config.data_dir / "cache", reactor=reactor, pool=pool)
    uploads = service.uploads = UploadStore(
        castore.upload_dir or config.data_dir / "upload",
        store,
        lengths,
        reactor=reactor,
        pool=pool,
        idle_s=castore.upload_cleanup.tti_s,
        limit=castore.max_uploads,
        persist=True,
    )
    service.around(end=uploads.close)
    cluster = OriginCluster(http, hosts(config.origin.hosts, ORIGIN_PORT), reactor)
    index = BuildIndexClient(http, hosts(config.build_index.hosts, BUILD_INDEX_PORT))
    origins: IOrigins
    if local is not None:
        origins = local(store)
    else:
        origins = RemoteOrigins(cluster, store, config.data_dir / "fetch", Threads(reactor, pool), reactor)
        origins.setServiceParent(service)
    tags = Tags(index)
    push = service.push = Push(origins, store, uploads, keep=local is None)
    server = config.server
    limits = Limits(server.prefetch_min_blob_size_bytes, server.prefetch_max_blob_size_bytes, server.prefetch_parallel)
    leftovers = push.leftovers()
    service.around(begin=lambda: service.own(push.drop(leftovers)))
    prefetcher = Prefetcher(origins, tags, limits, reactor)
    sweepers = (
        UploadSweeper(uploads, castore.upload_cleanup.interval_s, reactor=reactor),
        BlobSweeper(store, castore.cache_cleanup, reactor=reactor, pool=pool),
    )
    for part in (prefetcher, *sweepers):
        part.setServiceParent(service)

    app = registry_app(blobs=Blobs(origins), tags=PushedTags(tags), push=push)
    registry = guarded(app.resource(), "allowed_cidrs", config.allowed_cidrs)
    counted = HttpMetrics(metrics)
    service.registries = [
        HttpService(
            "proxy registry", registry, port, config.interface, reactor=reactor, setting="--port", metrics=counted
        )
        for port in config.port
    ]
    ready = {"origin": cluster.readiness, "build-index": index.readiness}
    service.management = HttpService(
        "proxy management",
        management_app(prefetcher=prefetcher, metrics=metrics, ready=ready, reactor=reactor).resource(),
        server.port,
        server.interface,
        reactor=reactor,
        setting="--server-port or proxy.server.port",
        metrics=counted,
    )
    for listening in (*service.registries, service.management):
        listening.setServiceParent(service)
    return service
