"""Where the objects of an agent meet."""

# mypy: allow-untyped-calls
# twisted.application has no types.

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from typing import Any

from twisted.python.threadpool import ThreadPool

from krakentx.agent.api import management_app
from krakentx.agent.config import ORIGIN_PORT, AgentConfig, fallback_hosts
from krakentx.agent.logic import Blobs
from krakentx.agent.preload import Containerd, Docker, Preloader
from krakentx.clients.buildindex import BuildIndexClient, BuildIndexTimeouts
from krakentx.clients.config import HostsConfig, PassiveConfig
from krakentx.clients.fallback import HttpFallback
from krakentx.clients.hosts import HostPool
from krakentx.clients.metainfo import MetaInfoSources
from krakentx.clients.tags import Tags
from krakentx.clients.tracker import TrackerClient
from krakentx.core.digest import Digest
from krakentx.core.peer import PeerContext
from krakentx.peer.address import announced_ip, make_peer_id
from krakentx.peer.metrics import SwarmCollector
from krakentx.peer.scheduler import Scheduler
from krakentx.peer.tlsrenewal import renewed_tls
from krakentx.registry.api import registry_app
from krakentx.storage.files import BlobStore
from krakentx.storage.pieces import PartialStore
from krakentx.storage.sweeper import BlobSweeper
from krakentx.swarm.engine import Engine
from krakentx.web.access import allowed, guarded
from krakentx.web.client import HttpClient
from krakentx.web.component import Component
from krakentx.web.metrics import HttpMetrics, Metrics
from krakentx.web.service import HttpService

TRACKER_PORT, BUILD_INDEX_PORT = 15003, 15004


class AgentService(Component):
    """An agent, listening while it runs."""

    registry: HttpService
    management: HttpService
    scheduler: Scheduler
    cache: BlobStore


def build(
    config: AgentConfig,
    *,
    reactor: Any,
    rng: random.Random | None = None,
    env: Mapping[str, str] = os.environ,
    pool: ThreadPool | None = None,
) -> AgentService:
    """Put an agent together; `config.data_dir` must be set.

    Args:
        env: where HERD_HOST_IP is looked up.
        pool: for disk and hashing; by default one of its own.

    Raises:
        ConfigError, InvalidInput: an address of the configuration is none, or no own address is to be found.
    """
    assert config.data_dir is not None, "the caller chooses the data folder"
    rng = rng or random.Random()
    service = AgentService()
    pool = pool or service.storage_pool(reactor)
    metrics = Metrics("agent")
    http = HttpClient(reactor, rng=rng)
    service.around(end=http.close)

    def hosts(hosts_config: HostsConfig, port: int, health: PassiveConfig, replicas: int = 3) -> HostPool:
        return HostPool(hosts_config, default_port=port, reactor=reactor, rng=rng, health=health, replicas=replicas)

    context = _context(config)
    tracker = TrackerClient(
        http,
        hosts(config.tracker.hosts, TRACKER_PORT, config.tracker.healthcheck, config.tracker.hashring.max_replica),
        context,
        reactor,
    )
    fallback = HttpFallback(http, hosts(fallback_hosts(config, env), ORIGIN_PORT, PassiveConfig()), reactor)
    metainfo = MetaInfoSources(tracker, fallback, reactor, config.metainfo_patience_s)
    index = BuildIndexClient(
        http,
        hosts(config.build_index.hosts, BUILD_INDEX_PORT, config.build_index.healthcheck),
        BuildIndexTimeouts(get_s=config.tag_timeout_s),
    )
    tags = Tags(index)

    cache = service.cache = BlobStore(config.store.cache_dir or config.data_dir / "cache", reactor=reactor, pool=pool)
    partials = PartialStore(
        config.store.download_dir or config.data_dir / "download", cache, reactor=reactor, pool=pool
    )
    scheduler = service.scheduler = Scheduler(
        reactor=reactor,
        engine=Engine(context=context, config=config.scheduler, rng=rng, fallback=bool(fallback.pool)),
        context=context,
        cache=cache,
        partials=partials,
        announcer=tracker,
        metainfo=metainfo,
        fallback=fallback if fallback.pool else None,
        port=config.peer_port,
        interface=config.interface,
        stall_s=config.stall_timeout_s,
        tls=renewed_tls(config.tls, service, reactor=reactor, pool=pool),
    )
    for swept, cleanup in ((cache, config.store.cache_cleanup), (partials, config.store.download_cleanup)):
        BlobSweeper(swept, cleanup, reactor=reactor, pool=pool).setServiceParent(service)
    scheduler.setServiceParent(service)
    metrics.registry.register(SwarmCollector("agent", scheduler))

    blobs = Blobs(scheduler, cache, partials, metainfo, reactor, config.stat_timeout_s)
    app = registry_app(blobs=blobs, tags=tags, push=None, outage_is_absence=config.outage_status == 404)
    counted = HttpMetrics(metrics)
    service.registry = HttpService(
        "agent registry",
        guarded(app.resource(), "allowed_cidrs", config.allowed_cidrs),
        config.agent_registry_port,
        config.interface,
        reactor=reactor,
        setting="--agent-registry-port",
        metrics=counted,
    )

    def own_registry() -> str:
        return f"127.0.0.1:{service.registry.port_number}"

    runtime = config.container_runtime
    docker = Docker(config.docker, reactor=reactor, registry=own_registry, timeout_s=runtime.timeout_s)
    service.around(end=docker.close)
    containerd = Containerd(runtime.containerd, reactor, own_registry, runtime.timeout_s)
    probe = Digest.of(context.peer_id)  # any digest will do: it only chooses which tracker of the ring is asked

    async def tracker_ready() -> None:
        await tracker.readiness(probe)

    management = management_app(
        blobs=blobs,
        tags=tags,
        scheduler=scheduler,
        settings=config.scheduler,
        preloader=Preloader({"docker": docker, "containerd": containerd}),
        admins=allowed("admin_cidrs", config.admin_cidrs),
        ready={"scheduler": scheduler.probe, "build-index": index.readiness, "tracker": tracker_ready},
        metrics=metrics,
        reactor=reactor,
    )
    service.management = HttpService(
        "agent management",
        management.resource(),
        config.agent_server_port,
        config.interface,
        reactor=reactor,
        setting="--agent-server-port",
        metrics=counted,
    )
    for part in (service.registry, service.management):
        part.setServiceParent(service)
    return service


def _context(config: AgentConfig) -> PeerContext:
    trackers = config.tracker.hosts
    ip = announced_ip(config.peer_ip, trackers.static[0] if trackers.static else trackers.dns)
    return PeerContext(
        ip=ip,
        port=config.peer_port,
        peer_id=make_peer_id(config.peer_id_factory, ip, config.peer_port),
        zone=config.zone,
        cluster=config.cluster,
        tls=config.tls.on,
    )
