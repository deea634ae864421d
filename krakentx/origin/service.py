"""Where the objects of an origin meet."""

# mypy: allow-untyped-calls
# twisted.application has no types.

from __future__ import annotations

import random
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from krakentx.backend.manager import build_backends
from krakentx.clients.cluster import OriginCluster
from krakentx.clients.config import HostsConfig
from krakentx.clients.hosts import HostPool, own_addresses
from krakentx.clients.origin import OriginClient
from krakentx.core.digest import Digest
from krakentx.core.errors import ConfigError, KrakenError, NotFound, Pending
from krakentx.core.peer import PeerContext
from krakentx.origin.api import origin_app
from krakentx.origin.config import OriginConfig
from krakentx.origin.line import Line
from krakentx.origin.logic import Origin
from krakentx.origin.refresh import Refresher
from krakentx.origin.replicas import Replicator
from krakentx.origin.ring import Ring
from krakentx.origin.uploads import Uploads
from krakentx.origin.writeback import KIND, WriteBack
from krakentx.peer.address import announced_ip, make_peer_id
from krakentx.peer.links import LINES_A_MINUTE
from krakentx.peer.metrics import SwarmCollector
from krakentx.peer.quiet import Quiet
from krakentx.peer.scheduler import Scheduler
from krakentx.peer.tlsrenewal import renewed_tls
from krakentx.queue.store import TaskStore
from krakentx.queue.worker import Worker
from krakentx.storage.files import BlobStore
from krakentx.storage.sweeper import BlobSweeper, UploadSweeper
from krakentx.storage.threads import Threads
from krakentx.storage.uploads import UploadStore
from krakentx.swarm.engine import Engine
from krakentx.swarm.patch import patched
from krakentx.web.access import allowed
from krakentx.web.client import HttpClient
from krakentx.web.component import Component
from krakentx.web.metrics import HttpMetrics, Metrics
from krakentx.web.service import HttpService

_log = Logger()

_UPLOAD_SWEEP_S = 600.0
_CONNECT_S = 2.0
_ANYWHERE = "192.0.2.1:80"  # of a network for documentation: the way there is the way out


class OriginService(Component):
    """An origin, listening while it runs."""

    http: HttpService
    scheduler: Scheduler
    origin: Origin
    context: PeerContext


def build(
    config: OriginConfig,
    *,
    reactor: Any,
    rng: random.Random | None = None,
    pool: ThreadPool | None = None,
) -> OriginService:
    """Put an origin together; `config.data_dir` must be set.

    Args:
        pool: for disk and hashing; by default one of its own.

    Raises:
        ConfigError, InvalidInput: something in the configuration cannot be.
    """
    assert config.data_dir is not None, "the caller chooses the data folder"
    rng = rng or random.Random()
    service = OriginService()
    pool = pool or service.storage_pool(reactor)
    threads = Threads(reactor, pool)
    metrics = Metrics("origin")
    http = HttpClient(reactor, connect_s=_CONNECT_S, rng=rng)
    service.around(end=http.close)
    backends = build_backends(config.backends, client=http, reactor=reactor, pool=pool)

    castore, lengths = config.castore, config.metainfogen.piece_lengths
    store = BlobStore(castore.cache_dir or config.data_dir / "cache", reactor=reactor, pool=pool)
    upload_dir = castore.upload_dir or config.data_dir / "upload"

    def sessions(name: str, persist: bool) -> UploadStore:
        uploads = UploadStore(
            upload_dir / name,
            store,
            lengths,
            reactor=reactor,
            pool=pool,
            idle_s=config.blobserver.upload_idle_s,
            limit=config.blobserver.max_uploads,
            persist=persist,
        )
        service.around(end=uploads.close)
        UploadSweeper(uploads, _UPLOAD_SWEEP_S, reactor=reactor).setServiceParent(service)
        return uploads

    public, quiet = sessions("public", True), sessions("quiet", False)
    members = HostPool(
        config.cluster, default_port=config.port, reactor=reactor, rng=rng, replicas=config.hashring.max_replica
    )
    me = own_addresses(config.hostname, config.port)
    ring = Ring(members, http, me=me, ring=config.hashring, health=config.healthcheck, reactor=reactor)
    ring.check_membership(members.static)
    replicas = Replicator(
        ring,
        store,
        partial(OriginClient, http),
        stagger_s=config.blobserver.duplicate_write_back_stagger_s,
        clock=reactor,
        rng=rng,
    )
    service.around(end=replicas.stop)

    source = config.localdb.source or config.data_dir / "origin.db"
    tasks = TaskStore(source, reactor=reactor, pool=pool, limit=config.writeback.limit)
    service.around(end=tasks.close)
    writeback = WriteBack(backends.find, store, tasks)
    writeback.worker = Worker(tasks, {KIND: writeback.run}, config.writeback, reactor=reactor, rng=rng)
    refresher = Refresher(
        find=backends.find,
        store=store,
        uploads=quiet,
        config=config.blobrefresh,
        clock=reactor,
        fetched=replicas.fetched,
    )
    service.around(end=refresher.stop)

    ip = _own_ip(config.peer_ip)
    context = service.context = PeerContext(
        ip=ip,
        port=config.peer_port,
        peer_id=make_peer_id(config.peer_id_factory, ip, config.peer_port),
        zone=config.zone,
        origin=True,
        tls=config.tls.on,
    )
    scheduler = service.scheduler = Scheduler(
        reactor=reactor,
        engine=Engine(context=context, config=config.scheduler, rng=rng, dials=False, fallback=False),
        context=context,
        cache=store,
        partials=None,
        announcer=None,
        metainfo=None,
        fallback=None,
        port=config.peer_port,
        interface=config.interface,
        absent=Healer(refresher, reactor),
        tls=renewed_tls(config.tls, service, reactor=reactor, pool=pool),
    )
    origin = service.origin = Origin(
        store=store,
        public=Uploads(public),
        quiet=Uploads(quiet),
        refresher=refresher,
        replicas=replicas,
        writeback=writeback,
        ring=ring,
        seeder=scheduler,
        lengths=lengths,
        threads=threads,
    )

    async def replicate(namespace: str, digest: Digest, remote: str) -> None:
        await origin.prefetch(namespace, digest)
        other = HostPool(HostsConfig(static=(remote,)), default_port=config.port, reactor=reactor, rng=rng)
        size = await origin.stat(namespace, digest)
        store.pin(digest)
        try:
            await OriginCluster(http, other, reactor).upload(namespace, digest, store.path(digest), size)
        finally:
            store.unpin(digest)

    current = config.scheduler

    def configure(data: object) -> None:
        nonlocal current
        current = patched(current, data)
        scheduler.configure(current)

    app = origin_app(
        origin,
        context=lambda: attrs.evolve(context, port=scheduler.port_number),  # known only now for port 0
        line=Line(
            reactor,
            max(1, config.blobserver.fetches),
            config.blobserver.fetch_wait_s,
            config.blobserver.max_waiting_fetches,
        ),
        toll=scheduler.toll,
        replicate=replicate,
        configure=configure,
        admin=allowed("admin_cidrs", config.admin_cidrs),
        metrics=metrics,
        ready={"peer": scheduler.probe},
        reactor=reactor,
    )
    service.http = HttpService(
        "origin",
        app.resource(),
        config.port,
        config.interface,
        reactor=reactor,
        setting="--blobserver-port or origin.port",
        metrics=HttpMetrics(metrics),
    )
    if config.backends:
        # Without a backend nothing else has these blobs.
        BlobSweeper(store, castore.cache_cleanup, reactor=reactor, pool=pool).setServiceParent(service)
    metrics.registry.register(SwarmCollector("origin", scheduler))
    waiting = metrics.gauge("writeback_waiting", "Blobs that are not in the backend yet.")
    waiting.set_function(lambda: writeback.worker.waiting)
    metrics.gauge("refreshes", "Blobs being fetched from the backend.").set_function(lambda: refresher.running)
    for part in (ring, writeback.worker, scheduler, service.http):
        part.setServiceParent(service)
    return service


def _own_ip(explicit: str) -> str:
    """Where peers reach this origin; on a host without any network only those of the host itself can."""
    try:
        return announced_ip(explicit, _ANYWHERE)
    except ConfigError as error:
        if explicit:
            raise
        _log.warn("announcing 127.0.0.1, so peers on other hosts cannot come here: {error}", error=str(error))
        return "127.0.0.1"


class Healer:
    """A peer asks for a blob that this origin has lost: fetch it, so that the next try finds it.

    The tracker remembers metainfo for some minutes, so agents come here without anybody having asked for it over HTTP.
    Strangers can ask for anything: how many fetches there are is the refresher's to bound, and lines of the log ours.
    """

    log = Logger()

    def __init__(self, refresher: Refresher, clock: IReactorTime) -> None:
        self._refresher = refresher
        self._quiet = Quiet(clock, LINES_A_MINUTE)

    def __call__(self, namespace: str, digest: Digest) -> None:
        Deferred.fromCoroutine(self._refresher.ensure(namespace, digest)).addErrback(self._failed, digest)

    def _failed(self, failure: Failure, digest: Digest) -> None:
        if failure.check(Pending, NotFound):
            return
        if failure.check(KrakenError):
            text = "{digest} cannot be brought back: {error}"
            about = "blobs that peers ask for"
            self._quiet.emit(about, self.log, LogLevel.warn, text, digest=str(digest), error=str(failure.value))
        else:
            self.log.failure("{digest} cannot be brought back", failure=failure, digest=str(digest))
