"""Where the objects of a build-index meet."""

# mypy: allow-untyped-calls
# twisted.application has no types.

from __future__ import annotations

import random
from typing import Any

from twisted.python.threadpool import ThreadPool

from krakentx.backend.manager import build_backends
from krakentx.buildindex.api import build_index_app
from krakentx.buildindex.config import BuildIndexConfig
from krakentx.buildindex.dependencies import Dependencies
from krakentx.buildindex.logic import BuildIndex
from krakentx.buildindex.neighbours import Neighbours
from krakentx.buildindex.queues import REPLICATE, WRITE_BACK, TagQueue
from krakentx.buildindex.store import TagStore
from krakentx.clients.buildindex import BuildIndexClient
from krakentx.clients.cluster import OriginCluster
from krakentx.clients.config import HostsConfig
from krakentx.clients.hosts import HostPool, own_addresses
from krakentx.clients.memo import Memo
from krakentx.queue.store import TaskStore
from krakentx.queue.worker import Worker
from krakentx.storage.threads import Threads
from krakentx.web.client import HttpClient
from krakentx.web.component import Component
from krakentx.web.metrics import HttpMetrics, Metrics
from krakentx.web.service import HttpService

ORIGIN_PORT = 15002
_CONNECT_S = 2.0
_LIST_TTL_S = 1.0


class BuildIndexService(Component):
    """A build-index, listening while it runs."""

    http: HttpService
    index: BuildIndex


def build(
    config: BuildIndexConfig,
    *,
    reactor: Any,
    rng: random.Random | None = None,
    pool: ThreadPool | None = None,
) -> BuildIndexService:
    """Put a build-index together; `config.data_dir` must be set.

    Args:
        pool: for the disk; by default one of its own.

    Raises:
        ConfigError, InvalidInput: something in the configuration cannot be.
    """
    assert config.data_dir is not None, "the caller chooses the data folder"
    rng = rng or random.Random()
    service = BuildIndexService()
    pool = pool or service.storage_pool(reactor)
    metrics = Metrics("build-index")
    http = HttpClient(reactor, connect_s=_CONNECT_S, rng=rng)
    service.around(end=http.close)

    def hosts(where: HostsConfig, port: int) -> HostPool:
        return HostPool(where, default_port=port, reactor=reactor, rng=rng)

    backends = build_backends(config.backends, client=http, reactor=reactor, pool=pool)
    store = TagStore(config.store.cache_dir or config.data_dir / "tags", Threads(reactor, pool))
    origin_hosts = hosts(config.origin.hosts, ORIGIN_PORT)
    origins = OriginCluster(http, origin_hosts, reactor)
    source = config.localdb.source or config.data_dir / "build-index.db"
    tasks = TaskStore(source, reactor=reactor, pool=pool, limit=config.writeback.limit)
    service.around(end=tasks.close)
    queue = TagQueue(
        store=store,
        tasks=tasks,
        find=backends.find,
        origins=origins,
        remote=lambda address: BuildIndexClient(http, hosts(HostsConfig(static=(address,)), config.port)),
        remotes=config.remotes,
    )
    queue.writer = Worker(tasks, {WRITE_BACK: queue.write}, config.writeback, reactor=reactor, rng=rng)
    queue.replicator = Worker(tasks, {REPLICATE: queue.send}, config.tag_replication, reactor=reactor, rng=rng)
    writing = metrics.gauge("writeback_waiting", "Tags that are not in the backend yet.")
    writing.set_function(lambda: queue.writer.waiting)
    sending = metrics.gauge("replication_waiting", "Tags that other clusters do not have yet.")
    sending.set_function(lambda: queue.replicator.waiting)
    cluster = hosts(config.cluster.hosts, config.port)
    index = service.index = BuildIndex(
        store=store,
        find=backends.find,
        queue=queue,
        neighbours=Neighbours(
            cluster, BuildIndexClient(http, cluster), own_addresses(config.hostname, config.port), config.tagserver
        ),
        dependencies=Dependencies(origins, config.tag_types),
        lists=Memo(reactor, ttl_s=_LIST_TTL_S, limit=1000),
        check=config.tagserver.check_dependencies,
        write_through=config.tag_store.write_through,
    )
    told = config.origin.hosts.dns or rng.choice(origin_hosts.static or ("",))
    app = build_index_app(
        index,
        queue,
        origin=lambda: told,
        metrics=metrics,
        ready={"origins": origins.readiness},
        reactor=reactor,
    )
    service.http = HttpService(
        "build-index",
        app.resource(),
        config.port,
        config.interface,
        reactor=reactor,
        setting="--port or build_index.port",
        metrics=HttpMetrics(metrics),
    )
    for part in (queue.writer, queue.replicator, service.http):
        part.setServiceParent(service)
    return service
