"""Executor: carries out what the Engine decided. Decides nothing of its own.

Effects on connections are for `links`; here is what concerns torrents, the tracker and the fallback sources.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from krakentx.core.errors import KrakenError, Unavailable
from krakentx.core.peer import InfoHash, PeerID
from krakentx.peer.counters import Counters
from krakentx.peer.fetch import StorageError, fetch_pieces
from krakentx.peer.interfaces import IAnnouncer, IFallback, IMetaInfoSource
from krakentx.peer.links import LINES_A_MINUTE, IDoor, Links
from krakentx.peer.protocol import PeerProtocol
from krakentx.peer.quiet import Quiet
from krakentx.peer.tasks import Tasks
from krakentx.peer.tlsconfig import PeerTls
from krakentx.peer.torrents import Torrent
from krakentx.peer.turns import IEngine, Turns
from krakentx.peer.verify import verify_blob
from krakentx.swarm import effects as fx
from krakentx.swarm import events as ev
from krakentx.swarm.config import SwarmConfig
from krakentx.wire.messages import Handshake

_ANNOUNCE_TROUBLE_S = 60.0
"""Between two lines of the log about announces that failed; the others are `debug`."""


class Executor:
    """The hands of one Engine.

    Args:
        greet, door, tls: see `Links`.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        engine: IEngine,
        config: SwarmConfig,
        announcer: IAnnouncer | None,
        metainfo: IMetaInfoSource | None,
        fallback: IFallback | None,
        counters: Counters,
        greet: Callable[[PeerProtocol, Handshake], None],
        door: IDoor,
        tls: PeerTls | None = None,
    ) -> None:
        self.torrents: dict[InfoHash, Torrent] = {}
        self._reactor = reactor
        self._config = config
        self._counters = counters
        self._announcer = announcer
        self._metainfo = metainfo
        self._fallback = fallback
        self._stopped = False
        self._told_announce: float | None = None
        self._fetching: dict[Torrent, dict[tuple[int, ...], Deferred[ev.FetchProblem | None]]] = {}
        self._quiet = Quiet(reactor, LINES_A_MINUTE)
        self._turns = Turns(engine, reactor, self._execute, self._handled, self._broken, lambda: counters.sent_bytes)
        self.feed = self._turns.feed
        self.tasks = Tasks()
        self.links = Links(
            reactor=reactor,
            config=config,
            counters=counters,
            tasks=self.tasks,
            torrents=self.torrents,
            feed=self.feed,
            congested=lambda: self._turns.congested,
            greet=greet,
            door=door,
            unreachable=self._unreachable,
            tls=tls,
        )
        self._do: dict[type[fx.Effect], Callable[[Any], None]] = {
            fx.Announce: self._announce,
            fx.Dial: self.links.dial,
            fx.Send: self.links.send,
            fx.SendPiece: self.links.send_piece,
            fx.ReceivePiece: self.links.receive_piece,
            fx.SkipPayload: self.links.skip_payload,
            fx.Close: self.links.close,
            fx.Ban: self._ban,
            fx.FetchFromOrigin: self._fetch,
            fx.StopFetch: self._stop_fetch,
            fx.VerifyBlob: self._verify,
            fx.DropPieces: self._drop_pieces,
            fx.PieceReady: self._piece_ready,
            fx.Finished: self._finished,
            fx.Failed: self._failed,
            fx.Forget: self._forget,
            fx.WakeAt: lambda effect: self._turns.wake_at(effect.when),
        }

    def configure(self, config: SwarmConfig) -> None:
        """Take over limits that are ours and not the Engine's."""
        self._config = config
        self.links.configure(config)

    # --- turns

    def _execute(self, effect: fx.Effect) -> None:
        self._do[type(effect)](effect)

    def _handled(self, event: ev.Event) -> None:
        if isinstance(event, ev.HandshakeReceived):
            self.links.greeting_handled(event)

    def _broken(self, event: ev.Event) -> None:
        conn = getattr(event, "conn", None)
        if conn is not None:
            self.links.abort(conn)

    def _ban(self, effect: fx.Ban) -> None:
        self._quiet.emit(
            str(effect.torrent),
            self.log,
            LogLevel.warn,
            "banned {peer} for {torrent} for {remaining_s:.0f} s: {reason}",
            peer=str(effect.peer),
            torrent=str(effect.torrent),
            remaining_s=effect.until - self._reactor.seconds(),
            reason=effect.reason,
        )

    # --- tracker and fallback

    def _unreachable(self, torrent: InfoHash, peer: PeerID) -> None:
        if self._announcer is not None:
            self._announcer.report_lost(torrent, peer)

    def _announce(self, effect: fx.Announce) -> None:
        self.tasks.own(self._announced(effect))

    async def _announced(self, effect: fx.Announce) -> None:
        torrent = self.torrents.get(effect.torrent)
        try:
            if self._announcer is None or torrent is None:
                raise Unavailable("the tracker", "there is none")
            work = self._announcer.announce(torrent.digest, effect.torrent, complete=effect.complete)
            timeout_s = self._config.announce.answer_timeout_s
            answer = await Deferred.fromCoroutine(work).addTimeout(timeout_s, self._reactor)
        except (KrakenError, TimeoutError) as error:
            self._tell_failed_announce(effect.torrent, str(error) or "no answer in time")
            self.feed(ev.AnnounceFailed(effect.torrent))
        except CancelledError:
            raise
        except Exception:  # our bug, and yet the next announce must come
            self.log.failure("announce of {torrent} failed", torrent=str(effect.torrent))
            self.feed(ev.AnnounceFailed(effect.torrent))
        else:
            self.feed(ev.PeersOffered(effect.torrent, answer.peers, answer.interval_s))

    def _tell_failed_announce(self, torrent: InfoHash, why: str) -> None:
        """One line a minute is enough: a tracker that is down fails every announce of every torrent."""
        now = self._reactor.seconds()
        again = self._told_announce is not None and now - self._told_announce < _ANNOUNCE_TROUBLE_S
        if not again:
            self._told_announce = now
        level = LogLevel.debug if again else LogLevel.warn
        self.log.emit(level, "announce of {torrent} failed: {why}", torrent=str(torrent), why=why)

    def _fetch(self, effect: fx.FetchFromOrigin) -> None:
        torrent = self.torrents.get(effect.torrent)
        if torrent is None or self._fallback is None:
            self.feed(ev.FetchEnded(effect.torrent, effect.pieces, ev.FetchProblem.UNAVAILABLE))
            return
        torrent.hold()

        def on_piece(index: int) -> None:
            self._counters.received_fallback_bytes += torrent.meta.piece_size(index)
            self._about(torrent, ev.PieceFetched(effect.torrent, index))

        ingress = self.links.traffic.ingress
        work = fetch_pieces(self._fallback, torrent, effect.pieces, effect.stall_s, self._reactor, ingress, on_piece)
        task = Deferred.fromCoroutine(work)
        self._fetching.setdefault(torrent, {})[effect.pieces] = task
        task.addBoth(self._fetched, effect, torrent)

    def _stop_fetch(self, effect: fx.StopFetch) -> None:
        torrent = self.torrents.get(effect.torrent)
        task = self._fetching.get(torrent, {}).get(effect.pieces) if torrent else None
        if task is not None:
            task.cancel()

    def _fetched(self, result: ev.FetchProblem | Failure | None, effect: fx.FetchFromOrigin, torrent: Torrent) -> None:
        self._fetching.get(torrent, {}).pop(effect.pieces, None)
        torrent.release()
        if isinstance(result, Failure):
            if isinstance(result.value, StorageError):
                self._about(torrent, ev.StorageFailed(effect.torrent, torrent.storage_trouble(result.value.error)))
            elif not result.check(CancelledError):
                self.log.failure("fetching pieces of {digest} failed", digest=str(torrent.digest), failure=result)
            result = ev.FetchProblem.UNAVAILABLE
        self._about(torrent, ev.FetchEnded(effect.torrent, effect.pieces, result))

    def _about(self, torrent: Torrent, event: ev.Event) -> None:
        """Feed an event of work that may outlive its torrent: one of the same name may have come in its place."""
        if self.torrents.get(torrent.info_hash) is torrent:
            self.feed(event)

    # --- torrents

    def add(self, torrent: Torrent, *, wanted: bool) -> None:
        """Hand a torrent to the Engine."""
        if self._stopped:
            self.drop(torrent, Unavailable("the scheduler", "has been stopped"))
            return
        self.torrents[torrent.info_hash] = torrent
        self.log.info(
            "Added new torrent {torrent}: {digest}, {size_bytes} bytes in {pieces} pieces, {have} of them here",
            torrent=str(torrent.info_hash),
            digest=str(torrent.digest),
            size_bytes=torrent.meta.length,
            pieces=torrent.meta.piece_count,
            have=len(torrent.have),
        )
        self._tell_of(torrent, wanted)

    def want(self, torrent: Torrent) -> None:
        """Someone here wants a torrent that the Engine knows."""
        if not torrent.wanted and not torrent.verified:
            self._tell_of(torrent, True)

    def _tell_of(self, torrent: Torrent, wanted: bool) -> None:
        if wanted:
            torrent.wanted = True
            torrent.added_at = torrent.progress_at = self._reactor.seconds()
        self.feed(ev.TorrentAdded(torrent.meta, torrent.have, torrent.namespace, wanted))

    def _verify(self, effect: fx.VerifyBlob) -> None:
        torrent = self.torrents.get(effect.torrent)
        if torrent is not None and torrent.partial is not None:
            self.tasks.own(self._verified(torrent))

    async def _verified(self, torrent: Torrent) -> None:
        event = await verify_blob(torrent, self._metainfo, self._reactor)
        if event is not None:
            self._about(torrent, event)

    def _drop_pieces(self, effect: fx.DropPieces) -> None:
        torrent = self.torrents.get(effect.torrent)
        if torrent is not None:
            torrent.drop_pieces(effect.pieces)

    def _piece_ready(self, effect: fx.PieceReady) -> None:
        torrent = self.torrents.get(effect.torrent)
        if torrent is not None:
            torrent.piece_ready(effect.index, effect.source, self._reactor.seconds())

    def _finished(self, effect: fx.Finished) -> None:
        torrent = self.torrents.get(effect.torrent)
        if torrent is None:
            return
        torrent.set_committed()
        self._counters.completed += 1
        elapsed_s = max(self._reactor.seconds() - torrent.added_at, 1e-6)
        by_source = torrent.bytes_by_source
        total = max(1, sum(by_source.values()))
        self.log.info(
            "Torrent complete: {digest} downloaded {size_bytes} bytes in {elapsed_s:.2f} s, speed {rate:.1f} MiB/s, "
            "{peers:.0%} from peers, {fallback:.0%} from fallback ({fallback_bytes} bytes)",
            digest=str(torrent.digest),
            size_bytes=torrent.meta.length,
            elapsed_s=elapsed_s,
            rate=sum(by_source.values()) / elapsed_s / 2**20,
            peers=(by_source["peer"] + by_source["origin"]) / total,
            fallback=by_source["http"] / total,
            fallback_bytes=by_source["http"],
            torrent=str(torrent.info_hash),
        )

    def _failed(self, effect: fx.Failed) -> None:
        torrent = self.torrents.get(effect.torrent)
        if torrent is not None:
            self._counters.failed += 1
            error = torrent.error_of(effect.reason)
            self.log.warn("download of {digest} failed: {error}", digest=str(torrent.digest), error=str(error))
            self.drop(torrent, error)

    def _forget(self, effect: fx.Forget) -> None:
        torrent = self.torrents.get(effect.torrent)
        if torrent is not None:
            self.log.debug("put away {torrent}", torrent=str(effect.torrent))
            self.drop(torrent, Unavailable("the swarm", "the torrent was put away"))

    def drop(self, torrent: Torrent, error: KrakenError) -> None:
        """Close a torrent which the Engine has forgotten; who waits for it gets the error."""
        if self.torrents.get(torrent.info_hash) is torrent:
            del self.torrents[torrent.info_hash]
        for task in list(self._fetching.pop(torrent, {}).values()):
            task.cancel()
        torrent.failed(error)
        torrent.close()

    def stop(self) -> None:
        """Close every connection, cancel every task, fail whoever waits. Nothing is fed to the Engine any more."""
        self._stopped = True
        self._turns.stop()
        self.tasks.stop()
        self.links.stop()
        for torrent in list(self.torrents.values()):
            self.drop(torrent, Unavailable("the scheduler", "has been stopped"))
