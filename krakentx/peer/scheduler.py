"""Scheduler: the peer of a process, as a service. Blobs are asked of it; sockets, files and timers are its own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.logger import Logger, LogLevel

from krakentx.core.digest import Digest
from krakentx.core.errors import KrakenError, NotFound, Unavailable
from krakentx.core.peer import InfoHash, PeerContext, PeerID
from krakentx.peer.counters import Counters
from krakentx.peer.executor import Executor
from krakentx.peer.factories import AcceptFactory, listen
from krakentx.peer.interfaces import IAnnouncer, IFallback, IMetaInfoSource
from krakentx.peer.protocol import PeerProtocol
from krakentx.peer.rates import Toll
from krakentx.peer.secure import BulkPort
from krakentx.peer.shelf import Shelf
from krakentx.peer.streams import ArrivingBlob
from krakentx.peer.tlsconfig import PeerTls
from krakentx.peer.torrents import Torrent
from krakentx.peer.turns import IEngine
from krakentx.storage.interfaces import IBlobReader, IBlobStore, IPartialStore
from krakentx.swarm.config import BandwidthConfig, SwarmConfig
from krakentx.swarm.events import ConnID, ReaderID, TorrentRemoved
from krakentx.wire.messages import Handshake
from krakentx.wire.session import Role

STOP_S = 2.0


class ISchedulerEngine(IEngine, Protocol):
    """What the Scheduler asks of the Engine besides `handle`."""

    @property
    def config(self) -> SwarmConfig:
        """The limits in use."""

    def new_conn(self) -> ConnID:
        """An id for an accepted connection."""

    def configure(self, config: SwarmConfig) -> None:
        """Go on with other limits."""

    def blacklist(self, now: float) -> list[tuple[PeerID, InfoHash, float]]:
        """Who is banned, for which torrent, for how many more seconds."""


class Scheduler(MultiService):
    """Brings blobs in by the swarm and gives them out to it.

    Args:
        engine: makes every decision.
        context: who we are, as announced.
        cache: complete blobs.
        partials: where blobs arrive; None for an origin, which has its blobs otherwise.
        announcer: the tracker; None = never announce.
        metainfo: where metainfo comes from; None with `partials`.
        fallback: HTTP sources for single pieces; None = peers only.
        port: of the peer wire; 0 = any.
        interface: address to listen on; "" = all.
        stall_s: seconds without any progress of its download after which a reader gets an error.
        absent: told of a namespace and blob that a peer greeted for and that is not on our disk; an origin fetches it
            from its backend then.
        tls: how to encrypt; None = the plain wire only.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        engine: ISchedulerEngine,
        context: PeerContext,
        cache: IBlobStore,
        partials: IPartialStore | None,
        announcer: IAnnouncer | None,
        metainfo: IMetaInfoSource | None,
        fallback: IFallback | None,
        port: int,
        interface: str = "",
        stall_s: float = 60.0,
        absent: Callable[[str, Digest], None] | None = None,
        tls: PeerTls | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.setName("peer wire")  # type: ignore[no-untyped-call]
        self.context = context
        self.counters = Counters()
        self._reactor = reactor
        self._engine = engine
        self._cache = cache
        self._partials = partials
        self._port = port
        self._interface = interface
        self._stall_s = stall_s
        self._absent = absent
        self.tls = tls
        self._readers = count(1)
        self._listening: BulkPort | None = None
        config = engine.config
        self._factory = AcceptFactory(self._accept, config.conn.max_pending_handshakes, self.counters)
        self._executor = Executor(
            reactor=reactor,
            engine=engine,
            config=config,
            announcer=announcer,
            metainfo=metainfo,
            fallback=fallback,
            counters=self.counters,
            greet=self._greeted,
            door=self._factory,
            tls=tls,
        )
        self._shelf = Shelf(
            reactor=reactor,
            cache=cache,
            partials=partials,
            metainfo=metainfo,
            known=self._known,
            loaded=lambda torrent, wanted: self._executor.add(torrent, wanted=wanted),
        )

    # --- life

    def startService(self) -> None:
        """Listen.

        Raises:
            CannotListenError: the port is taken, or the interface is not ours.
        """
        self._listening = listen(self._reactor, self._port, self._factory, self._interface, self.tls)
        super().startService()  # type: ignore[no-untyped-call]
        self.log.info("peer wire listens on port {port}", port=self.port_number)

    @property
    def port_number(self) -> int:
        """The port that we listen on; the wished one before the start."""
        return self._port if self._listening is None else int(self._listening.getHost().port)  # type: ignore[no-untyped-call]

    async def _stop(self) -> None:
        if self._listening is not None:
            listening, self._listening = self._listening, None
            await listening.stopListening()  # type: ignore[no-untyped-call]
        self._executor.stop()
        deadline = self._reactor.seconds() + STOP_S
        while self._executor.links.sockets and self._reactor.seconds() < deadline:
            await deferLater(self._reactor, 0.01)

    def stopService(self) -> Deferred[Any]:
        """Close everything; who waits for a blob gets `Unavailable`."""
        stopped = super().stopService()  # type: ignore[no-untyped-call]
        return DeferredList([Deferred.fromCoroutine(self._stop()), *([stopped] if stopped is not None else [])])

    # --- blobs

    async def open(self, namespace: str, digest: Digest) -> IBlobReader:
        """Open a blob for reading: from the cache at once, otherwise while it arrives.

        Raises:
            NotFound: it is known to be absent. Unavailable: no metainfo came. OutOfSpace: the disk is full.
        """
        try:
            return self._cache.open(digest)
        except NotFound:
            torrent = await self._wanted(namespace, digest)
        return ArrivingBlob(torrent, ReaderID(next(self._readers)), self._executor.feed, self._reactor, self._stall_s)

    async def download(self, namespace: str, digest: Digest) -> None:
        """Bring a blob into the cache. Who stops waiting does not stop the download.

        Raises:
            NotFound, Unavailable, OutOfSpace: as `open`. Corrupt: it does not hash to its name.
        """
        if self._cache.stat(digest) is None:
            await (await self._wanted(namespace, digest)).in_cache()

    async def _wanted(self, namespace: str, digest: Digest) -> Torrent:
        if not self.running:
            raise Unavailable("the scheduler", "is not running")
        known = self._known(digest)
        if known is not None and known.committed:
            # Its file was evicted from the cache while we still held it.
            self._drop(known, "the blob was evicted")
        torrent = await self._shelf.wanted(namespace, digest)
        if torrent.error is not None:
            raise torrent.error
        torrent.namespace = torrent.namespace or namespace
        self._executor.want(torrent)
        return torrent

    async def remove(self, digest: Digest) -> bool:
        """Forget a blob and delete its bytes, whole or partial; who waits for it gets an error.

        Returns:
            False when there was nothing.

        Raises:
            Conflict: it is not yet in the backend.
        """
        try:
            await self._shelf.idle(digest)
        except KrakenError as error:
            self.log.debug("{digest} was not opened before its removal: {error}", digest=str(digest), error=str(error))
        torrent = self._known(digest)
        if torrent is not None:
            self._drop(torrent, "torrent manually removed")
            await torrent.settled()
        partial = self._partials is not None and await self._partials.delete(digest)
        return await self._cache.delete(digest) or partial or torrent is not None

    def _drop(self, torrent: Torrent, reason: str) -> None:
        # First here, so that nothing refers to the old one should the Engine hear of it only in a later turn.
        self._executor.drop(torrent, NotFound("blob", torrent.digest))
        self._executor.feed(TorrentRemoved(torrent.info_hash, reason))

    def _known(self, digest: Digest) -> Torrent | None:
        return next((each for each in self._executor.torrents.values() if each.digest == digest), None)

    # --- state

    def blacklist(self) -> list[tuple[PeerID, InfoHash, float]]:
        """Who is banned, for which torrent, for how many more seconds."""
        return self._engine.blacklist(self._reactor.seconds())

    async def probe(self) -> None:
        """Return when the reactor and the Engine are alive.

        Raises:
            Unavailable: stopped.
        """
        await deferLater(self._reactor, 0)
        if not self.running:
            raise Unavailable("the scheduler", "has been stopped")

    def configure(self, config: SwarmConfig) -> None:
        """Go on with other limits; connections and downloads live on."""
        self._engine.configure(config)
        self._executor.configure(config)
        self._factory.limit = config.conn.max_pending_handshakes

    @property
    def bandwidth(self) -> BandwidthConfig:
        """The limits in use."""
        return self._engine.config.conn.bandwidth

    @property
    def torrent_count(self) -> int:
        """Torrents in memory."""
        return len(self._executor.torrents)

    @property
    def connection_count(self) -> int:
        """Connections that the Engine knows."""
        return len(self._executor.links.conns)

    def toll(self, digest: Digest) -> Toll:
        """Where pieces of a blob pay that leave by another way than the peer wire."""
        torrent = self._known(digest)
        return Toll(self._executor.links.traffic.egress, digest if torrent is None else torrent.info_hash)

    # --- accepted connections

    def _accept(self) -> PeerProtocol:
        return self._executor.links.build(Role.ACCEPTOR)

    def _greeted(self, peer: PeerProtocol, handshake: Handshake) -> None:
        self._executor.tasks.own(self._introduce(peer, handshake))

    async def _introduce(self, peer: PeerProtocol, handshake: Handshake) -> None:
        """Let the Engine see a handshake, after it has heard of the torrent when that is on our disk."""
        if handshake.info_hash not in self._executor.torrents:
            try:
                if await self._shelf.stored(handshake.digest) is None and self._absent is not None:
                    self._absent(handshake.namespace, handshake.digest)
            except (KrakenError, OSError) as error:
                text = "{digest} could not be opened: {error}"
                digest = str(handshake.digest)
                self._executor.links.tell(peer, LogLevel.info, text, digest=digest, error=str(error))
        if not peer.closing:
            peer.conn = self._engine.new_conn()
            self._executor.links.welcome(peer, handshake)
