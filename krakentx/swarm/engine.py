"""The Engine: folds events into effects. It has no socket, no clock and no thread.

One class decides for an agent, for an origin (`dials=False`: it only answers) and for every host of a simulation. What
it knows is in `state`; the rules are in `connections` (who), `downloads` (what to ask), `uploads` (what to give) and
`announce` (when to tell the tracker). This module is the frame around them: the life of a torrent, and time.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import Random
from typing import Any

from attrs import frozen

from krakentx.core.peer import InfoHash, PeerContext, PeerID
from krakentx.swarm import events as ev
from krakentx.swarm.announce import AnnounceTimer
from krakentx.swarm.config import SwarmConfig
from krakentx.swarm.connections import Connections
from krakentx.swarm.downloads import Downloads
from krakentx.swarm.effects import Announce, Close, Effect, Failed, Finished, Forget, Send, SendPiece, WakeAt
from krakentx.swarm.events import ConnID, Event, Lost
from krakentx.swarm.fallback import Fallback
from krakentx.swarm.picker import Rarity
from krakentx.swarm.state import Conn, Desk, Link, Phase, Torrent
from krakentx.swarm.uploads import Uploads
from krakentx.wire.messages import AnnouncePiece, CancelPiece, Complete, PieceError, PieceRequest

_LOOK_S = 0.5  # how often a download looks at itself
_STALLED_S = 1.0  # a download that got no byte for so long wants other peers


@frozen
class TorrentStats:
    """What can be told of one torrent."""

    pieces: int
    pieces_here: int
    complete: bool
    connections: int
    requests: int
    bytes_from_peers: int
    bytes_from_http: int
    duplicates: int
    corrupt: int


class Engine:
    """The scheduler's mind.

    Args:
        context: who we are.
        rng: where all chance comes from; the same seed and the same events give the same effects.
        dials: False for an origin: it has everything, is named by the tracker, and neither dials nor announces.
        fallback: whether pieces can be had by HTTP.
    """

    def __init__(
        self,
        *,
        context: PeerContext,
        config: SwarmConfig,
        rng: Random,
        dials: bool = True,
        fallback: bool = True,
    ) -> None:
        self._desk = Desk(context, config, rng, dials, fallback)
        self._uploads = Uploads(config.upload)
        self._connections = Connections(self._desk, self._uploads)
        self._downloads = Downloads(self._desk, self._connections)
        self._told: float | None = None  # the last `WakeAt`
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            ev.TorrentAdded: self._torrent_added,
            ev.TorrentRemoved: self._torrent_removed,
            ev.PeersOffered: self._peers_offered,
            ev.AnnounceFailed: self._announce_failed,
            ev.DialSucceeded: self._dial_succeeded,
            ev.HandshakeReceived: self._handshake_received,
            ev.MessageReceived: self._message_received,
            ev.PayloadOffered: self._payload_offered,
            ev.PieceArrived: self._piece_arrived,
            ev.PieceProgress: self._piece_progress,
            ev.StorageFailed: self._storage_failed,
            ev.PieceSendBegan: self._piece_send_began,
            ev.PieceSent: self._piece_sent,
            ev.PeerLost: self._peer_lost,
            ev.ReaderWants: self._reader_wants,
            ev.ReaderGone: self._reader_gone,
            ev.PieceFetched: self._piece_fetched,
            ev.FetchEnded: self._fetch_ended,
            ev.BlobVerified: self._blob_verified,
            ev.BlobCorrupt: self._blob_corrupt,
            ev.Tick: self._tick,
        }

    # ---- the outside

    def new_conn(self) -> ConnID:
        """A name for a connection that was just accepted. `PeerLost` must follow some day, as for any other."""
        conn = self._desk.new_conn()
        self._desk.incoming.add(conn)
        return conn

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event and say what is to be done, in that order.

        Args:
            now: monotonic seconds, never less than before.
        """
        desk = self._desk
        out: list[Effect] = []
        desk.emit = out.append
        self._handlers[type(event)](event, now)
        if desk.freed:
            self._share(now)
        if self._uploads.waiting:
            for conn, piece in self._uploads.start(now):
                out.append(SendPiece(conn, desk.conns[conn].torrent.info_hash, piece))
            if self._uploads.waiting:
                desk.alarms.no_later(self._uploads, now + self._uploads.patience_s)
        when = desk.alarms.next()
        if when is not None and (self._told is None or when < self._told):
            self._told = when
            out.append(WakeAt(when))
        return out

    def _share(self, now: float) -> None:
        """Offer what came free to all. Moves nothing, else two peers could hand one request to and fro for ever."""
        desk = self._desk
        freed = list(desk.freed.values())
        for torrent in freed:
            if desk.torrents.get(torrent.info_hash) is torrent:
                self._connections.fill(torrent, now)
                self._downloads.fetch(torrent, now)
                self._downloads.refill_all(torrent, now)
        desk.freed.clear()

    @property
    def config(self) -> SwarmConfig:
        """The settings in use."""
        return self._desk.config

    def configure(self, config: SwarmConfig) -> None:
        """Use other settings from the next event on."""
        self._desk.config = config
        self._uploads.config = config.upload

    def blacklist(self, now: float) -> list[tuple[PeerID, InfoHash, float]]:
        """Who is banned, for which torrent, for how many seconds more."""
        return self._desk.blacklist.bans(now)

    def stats(self, info_hash: InfoHash) -> TorrentStats | None:
        """Figures of one torrent; None when it is not here."""
        torrent = self._desk.torrents.get(info_hash)
        if torrent is None:
            return None
        return TorrentStats(
            pieces=torrent.meta.piece_count,
            pieces_here=torrent.have.bit_count(),
            complete=torrent.phase is Phase.COMPLETE,
            connections=sum(conn.link is Link.ACTIVE for conn in torrent.conns.values()),
            requests=len(torrent.requests),
            bytes_from_peers=torrent.bytes_from_peers,
            bytes_from_http=torrent.bytes_from_http,
            duplicates=torrent.duplicates,
            corrupt=torrent.corrupt,
        )

    def load(self) -> dict[str, int]:
        """How many things the Engine holds, by kind: for metrics, and for tests that nothing leaks."""
        desk = self._desk
        torrents = desk.torrents.values()
        return {
            "torrents": len(desk.torrents),
            "connections": len(desk.conns),
            "handshakes": len(desk.incoming),
            "requests": sum(len(torrent.requests) for torrent in torrents),
            "fetches": sum(len(torrent.fallback) for torrent in torrents),
            "writing": sum(torrent.writing.bit_count() for torrent in torrents),
            "candidates": sum(len(torrent.candidates) for torrent in torrents),
            "uploads": len(self._uploads),
            "active_uploads": self._uploads.active,
            "blacklist": len(desk.blacklist),
            "alarms": len(desk.alarms),
        }

    # ---- the life of a torrent

    def _torrent_added(self, event: ev.TorrentAdded, now: float) -> None:
        desk, info_hash = self._desk, event.meta.info_hash
        torrent = desk.torrents.get(info_hash)
        if torrent is not None and torrent.phase is Phase.COMPLETE and not event.have.complete:
            self._forget(torrent, "its file has gone")  # evicted from the cache: begin anew
            torrent = None
        if torrent is None:
            full = (1 << event.meta.piece_count) - 1
            missing = full & ~event.have.mask
            torrent = desk.torrents[info_hash] = Torrent(
                meta=event.meta,
                info_hash=info_hash,
                namespace=event.namespace,
                full=full,
                missing=missing,
                phase=Phase.HOLDING if missing or event.wanted else Phase.COMPLETE,
                announcer=AnnounceTimer(now, desk.rng),
                fallback=Fallback(now),
                rarity=Rarity(event.meta.piece_count),
                added_at=now,
                piece_at=now,
                gain_at=now,
                used_at=now,
            )
        elif event.wanted and torrent.phase is Phase.COMPLETE:
            desk.emit(Finished(info_hash))
        if event.wanted and torrent.phase is Phase.HOLDING:
            torrent.phase = Phase.LEECHING
            torrent.piece_at = torrent.gain_at = now
            if not torrent.missing:
                self._downloads.verify(torrent)
            desk.free(torrent)
        self._look(torrent, now)

    def _torrent_removed(self, event: ev.TorrentRemoved, now: float) -> None:
        torrent = self._desk.torrents.get(event.torrent)
        if torrent is not None:
            self._end(torrent, event.reason)

    def _storage_failed(self, event: ev.StorageFailed, now: float) -> None:
        torrent = self._desk.torrents.get(event.torrent)
        if torrent is not None:
            self._end(torrent, event.reason)

    def _blob_verified(self, event: ev.BlobVerified, now: float) -> None:
        torrent = self._desk.torrents.get(event.torrent)
        if torrent is None or torrent.phase is not Phase.VERIFYING:
            return
        torrent.phase = Phase.COMPLETE
        torrent.used_at = now
        torrent.givers.clear()
        torrent.readers.clear()
        self._desk.emit(Finished(torrent.info_hash))
        self._connections.completed(torrent)
        torrent.announcer.at_once(now)
        self._look(torrent, now)

    def _blob_corrupt(self, event: ev.BlobCorrupt, now: float) -> None:
        """Each piece fits its sum, the whole does not: somebody forged pieces. Begin again, with care.

        A lone agent that gave is the liar; among several nobody knows, so each is under a suspicion that grows with
        every time. Origins are named by the tracker and are believed, as the metainfo is.
        """
        desk = self._desk
        torrent = desk.torrents.get(event.torrent)
        if torrent is None or torrent.phase is not Phase.VERIFYING:
            return
        torrent.restarts += 1
        if torrent.restarts > desk.config.max_restarts:
            self._end(torrent, "the blob does not hash to its name")
            return
        self._connections.suspect(torrent, now)
        self._connections.close_all(torrent, "begins again")
        torrent.missing = torrent.full
        torrent.phase = Phase.LEECHING
        torrent.careful = True
        torrent.piece_at = torrent.gain_at = now
        desk.free(torrent)
        self._look(torrent, now)

    def _end(self, torrent: Torrent, reason: str) -> None:
        """Forget a torrent; if it was being downloaded, that has failed."""
        failed = torrent.phase in (Phase.LEECHING, Phase.VERIFYING)
        self._forget(torrent, reason)
        if failed:
            self._desk.emit(Failed(torrent.info_hash, reason))

    def _forget(self, torrent: Torrent, reason: str) -> None:
        self._connections.close_all(torrent, reason)
        self._desk.alarms.cancel(torrent)
        del self._desk.torrents[torrent.info_hash]

    # ---- tracker

    def _peers_offered(self, event: ev.PeersOffered, now: float) -> None:
        desk = self._desk
        torrent = desk.torrents.get(event.torrent)
        if torrent is None:
            return
        complete = torrent.phase is Phase.COMPLETE
        fresh = 0
        if not complete:
            others = (peer for peer in event.peers if peer.peer_id != desk.context.peer_id)
            fresh = torrent.candidates.offer(others, desk.config.connstate.max_candidates)
            self._connections.fill(torrent, now)
        torrent.announcer.answered(event.interval_s, fresh > 0, complete, now, desk.config.announce)
        self._look(torrent, now)

    def _announce_failed(self, event: ev.AnnounceFailed, now: float) -> None:
        torrent = self._desk.torrents.get(event.torrent)
        if torrent is not None:
            torrent.announcer.failed(now, self._desk.config.announce)
            self._look(torrent, now)

    # ---- connections

    def _dial_succeeded(self, event: ev.DialSucceeded, now: float) -> None:
        conn = self._desk.conns.get(event.conn)
        if conn is not None:
            self._connections.dialled(conn, now)

    def _handshake_received(self, event: ev.HandshakeReceived, now: float) -> None:
        desk = self._desk
        conn = desk.conns.get(event.conn)
        if conn is not None:
            if self._connections.answered(conn, event.handshake, now):
                self._active(conn, now)
        elif event.conn in desk.incoming:
            desk.incoming.remove(event.conn)
            accepted = self._connections.accept(event.conn, event.handshake, now)
            if accepted is not None:
                self._active(accepted, now)

    def _active(self, conn: Conn, now: float) -> None:
        if conn.torrent.phase is Phase.COMPLETE and conn.complete:
            self._connections.close(conn, "both complete")
        else:
            self._downloads.refill(conn, now)

    def _peer_lost(self, event: ev.PeerLost, now: float) -> None:
        self._desk.incoming.discard(event.conn)
        conn = self._desk.conns.get(event.conn)
        if conn is not None:
            self._connections.lost(conn, event.reason, now)

    def _message_received(self, event: ev.MessageReceived, now: float) -> None:
        conn = self._desk.conns.get(event.conn)
        if conn is None:
            return
        if conn.link is not Link.ACTIVE:
            self._connections.ban(conn, "spoke before the handshake", now)
            return
        conn.heard_at = now
        message = event.message
        if isinstance(message, AnnouncePiece):
            self._downloads.has(conn, message.index, now)
        elif isinstance(message, PieceRequest):
            self._requested(conn, message, now)
        elif isinstance(message, CancelPiece):
            self._uploads.cancel(conn.id, message.index)
        elif isinstance(message, PieceError):
            self._downloads.refused(conn, message.index, now)
        elif isinstance(message, Complete):
            self._downloads.has_all(conn, now)

    # ---- pieces

    def _requested(self, conn: Conn, request: PieceRequest, now: float) -> None:
        torrent, index = conn.torrent, request.index
        conn.useful_at = torrent.used_at = now
        if request.offset or request.length != torrent.meta.piece_size(index):
            problem = "reading / writing chunk of piece not supported"
        elif index >= torrent.meta.piece_count or torrent.missing >> index & 1:
            problem = "piece not complete"
        elif not self._uploads.add(conn.id, index):
            problem = "too many requests"
        else:
            return
        self._desk.emit(Send(conn.id, PieceError(index, problem)))

    def _piece_send_began(self, event: ev.PieceSendBegan, now: float) -> None:
        self._uploads.began(event.conn, event.index, now)

    def _piece_sent(self, event: ev.PieceSent, now: float) -> None:
        conn = self._desk.conns.get(event.conn)
        if conn is None:
            return
        torrent = conn.torrent
        conn.useful_at = conn.heard_at = torrent.used_at = now
        self._uploads.sent(conn.id, event.index, torrent.meta.piece_size(event.index), now)
        # A peer of the reference announces a piece to all but the one who gave it: so take it for arrived.
        self._downloads.assume(conn, event.index)

    def _payload_offered(self, event: ev.PayloadOffered, now: float) -> None:
        conn = self._desk.conns.get(event.conn)
        if conn is None:
            self._desk.emit(Close(event.conn, "no such connection"))
        elif conn.link is not Link.ACTIVE:
            self._connections.ban(conn, "spoke before the handshake", now)
        else:
            conn.heard_at = now
            self._downloads.offered(conn, event.payload, now)

    def _piece_arrived(self, event: ev.PieceArrived, now: float) -> None:
        conn = self._desk.conns.get(event.conn)
        if conn is not None:
            conn.heard_at = now
            self._downloads.arrived(conn, event.index, event.good, now)

    def _piece_progress(self, event: ev.PieceProgress, now: float) -> None:
        conn = self._desk.conns.get(event.conn)
        if conn is not None:
            conn.heard_at = now
            self._downloads.progressed(conn, now)

    def _piece_fetched(self, event: ev.PieceFetched, now: float) -> None:
        torrent = self._desk.torrents.get(event.torrent)
        if torrent is not None:
            self._downloads.fetched(torrent, event.index, now)

    def _fetch_ended(self, event: ev.FetchEnded, now: float) -> None:
        torrent = self._desk.torrents.get(event.torrent)
        if torrent is not None:
            torrent.fallback.ended(event.pieces, event.problem, now, self._desk.config.fallback)
            self._desk.free(torrent)

    def _reader_wants(self, event: ev.ReaderWants, now: float) -> None:
        torrent = self._desk.torrents.get(event.torrent)
        if torrent is not None and torrent.phase is not Phase.COMPLETE:
            torrent.readers[event.reader] = (event.start, min(event.stop, torrent.meta.piece_count))

    def _reader_gone(self, event: ev.ReaderGone, now: float) -> None:
        torrent = self._desk.torrents.get(event.torrent)
        if torrent is not None:
            torrent.readers.pop(event.reader, None)

    # ---- time

    def _tick(self, event: ev.Tick, now: float) -> None:
        self._told = None
        alarms = self._desk.alarms
        due = []
        while (key := alarms.due(now)) is not None:
            due.append(key)
        for key in due:
            if isinstance(key, Torrent):
                if self._desk.torrents.get(key.info_hash) is key:
                    self._look(key, now)
            elif isinstance(key, Conn) and key.id in self._desk.conns:
                self._check(key, now)

    def _check(self, conn: Conn, now: float) -> None:
        """A connection's time has come."""
        config, connections = self._desk.config, self._connections
        if conn.link is not Link.ACTIVE:
            connections.lost(conn, Lost.TIMEOUT, now)
            self._desk.emit(Close(conn.id, "no answer in time"))
            return
        when = self._downloads.check(conn, now)
        if conn.id not in self._desk.conns:
            return
        if not config.disable_preemption:
            stuck = self._uploads.stuck_since(conn.id)
            patience = config.conn_tti_s + config.piece_timeout_s(conn.torrent.meta.piece_length)
            at_rest = conn.receiving is None and not self._uploads.busy(conn.id)
            if stuck is not None and now - stuck > patience:
                connections.give_up(conn, "does not read", now)
                return
            if at_rest and now - conn.heard_at >= config.conn_tti_s:
                connections.close(conn, "idle")
                return
            if at_rest and not conn.torrent.requests.of(conn.id) and now - conn.since >= config.conn_ttl_s:
                connections.close(conn, "old")
                return
            when = min(when, now + config.conn_tti_s)
        self._desk.alarms.no_later(conn, max(when, now + 1e-3))

    def _look(self, torrent: Torrent, now: float) -> None:
        """A torrent looks at itself, and says when to look again."""
        desk, config = self._desk, self._desk.config
        leeching = torrent.phase is Phase.LEECHING
        complete = torrent.phase is Phase.COMPLETE
        wanted = leeching or torrent.phase is Phase.VERIFYING
        when = torrent.piece_at + config.leecher_tti_s if wanted else torrent.used_at + config.seeder_tti_s
        if config.disable_preemption:
            when = inf
        elif now >= when:
            if wanted:
                self._end(torrent, "torrent timed out")
            else:
                self._forget(torrent, "nobody asks for it")
                desk.emit(Forget(torrent.info_hash))
            return
        if leeching:
            when = min(when, now + _LOOK_S)
            self._watch(torrent, now)
        if desk.dials and (leeching or complete):
            if torrent.announcer.take(now, config.announce):
                desk.emit(Announce(torrent.info_hash, complete))
            when = min(when, torrent.announcer.due(config.announce))
        if when < inf:
            desk.alarms.no_later(torrent, max(when, now + 1e-3))

    def _watch(self, torrent: Torrent, now: float) -> None:
        """A download that is short of peers, or gets nothing from them, does something about it."""
        config, connections = self._desk.config, self._connections
        stalled = now - torrent.gain_at > _STALLED_S
        active = sum(conn.link is Link.ACTIVE for conn in torrent.conns.values())
        if stalled or active < config.connstate.dialled_limit:
            torrent.announcer.hurry(config.announce)
        if stalled:
            connections.rotate(torrent, now)
        connections.fill(torrent, now)
        if stalled or torrent.missing.bit_count() <= config.dispatch.endgame_threshold:
            self._downloads.refill_all(torrent, now)
        self._downloads.dare(torrent, now)
        self._downloads.fetch(torrent, now)
