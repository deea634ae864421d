"""The Engine: folds events into effects. It has no socket, no clock and no thread.

One class decides for an agent, for an origin (`dials=False`: it only answers) and for every host of a simulation. What
it knows is in `state`; the rules are in `connections` (who), `downloads` (what to ask), `uploads` (what to give),
`announce` (when to tell the tracker) and `torrents` (begin, end, and what happens when nothing happens). This module
is the door: it hands each event to the part that knows, and what came free to all who may use it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import Random
from typing import Any

from attrs import frozen

from krakentx.core.peer import InfoHash, PeerContext, PeerID
from krakentx.swarm import events as ev
from krakentx.swarm.config import SwarmConfig
from krakentx.swarm.connections import Connections
from krakentx.swarm.downloads import Downloads
from krakentx.swarm.effects import Close, Effect, Send, SendPiece, WakeAt
from krakentx.swarm.events import ConnID, Event
from krakentx.swarm.state import Conn, Desk, Link, Phase, Torrent
from krakentx.swarm.torrents import Torrents
from krakentx.swarm.uploads import Uploads
from krakentx.wire.messages import AnnouncePiece, CancelPiece, Complete, PieceError, PieceRequest


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
        self._uploads = Uploads(config, rng, self._desk.behind)
        self._connections = Connections(self._desk, self._uploads)
        self._downloads = Downloads(self._desk, self._connections)
        self._torrents = Torrents(self._desk, self._connections, self._downloads, self._uploads)
        self._told = inf  # the last `WakeAt`

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
        _HANDLERS[type(event)](self, event, now)
        if desk.freed:
            self._share(now)
        if now >= self._uploads.look_at:
            self._give(now)
        if desk.alarms.sooner < self._told:
            when = desk.alarms.next()
            if when is not None and when < self._told:
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

    def _give(self, now: float) -> None:
        """Let pieces leave that wait for a slot."""
        desk, uploads = self._desk, self._uploads
        for conn, piece in uploads.start(now):
            desk.emit(SendPiece(conn, desk.conns[conn].torrent.info_hash, piece))
        if uploads.waiting:
            desk.alarms.no_later(uploads, uploads.look_at)

    @property
    def config(self) -> SwarmConfig:
        """The settings in use."""
        return self._desk.config

    def configure(self, config: SwarmConfig) -> None:
        """Use other settings from the next event on."""
        self._desk.config = config
        self._uploads.configure(config)

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

    # ---- torrents

    def _torrent_added(self, event: ev.TorrentAdded, now: float) -> None:
        self._torrents.add(event, now)

    def _torrent_removed(self, event: ev.TorrentRemoved, now: float) -> None:
        if torrent := self._desk.torrents.get(event.torrent):
            self._torrents.end(torrent, event.reason)

    def _storage_failed(self, event: ev.StorageFailed, now: float) -> None:
        if torrent := self._desk.torrents.get(event.torrent):
            self._torrents.end(torrent, event.reason)

    def _blob_verified(self, event: ev.BlobVerified, now: float) -> None:
        torrent = self._desk.torrents.get(event.torrent)
        if torrent is not None and torrent.phase is Phase.VERIFYING:
            self._torrents.verified(torrent, now)

    def _blob_corrupt(self, event: ev.BlobCorrupt, now: float) -> None:
        torrent = self._desk.torrents.get(event.torrent)
        if torrent is not None and torrent.phase is Phase.VERIFYING:
            self._torrents.corrupt(torrent, event.bad, now)

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
        self._torrents.look(torrent, now)

    def _announce_failed(self, event: ev.AnnounceFailed, now: float) -> None:
        torrent = self._desk.torrents.get(event.torrent)
        if torrent is not None:
            torrent.announcer.failed(now, self._desk.config.announce)
            self._torrents.look(torrent, now)

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
        if request.offset or request.length != torrent.meta.piece_size(index):
            problem = "reading / writing chunk of piece not supported"
        elif index >= torrent.meta.piece_count or torrent.missing >> index & 1:
            problem = "piece not complete"
        elif not self._uploads.add(conn.id, index, torrent.given if torrent.phase is Phase.COMPLETE else None):
            problem = "too many requests"
        else:
            # Only what can be had is of use: else anybody could hold a place, and the torrent, by asking for nothing.
            conn.useful_at = torrent.used_at = now
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
        self._uploads.sent(conn.id, event.index, now)
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
        self._told = inf
        self._uploads.look(event.sent, now)
        alarms = self._desk.alarms
        due = []
        while (key := alarms.due(now)) is not None:
            due.append(key)
        for key in due:
            if isinstance(key, Torrent):
                if self._desk.torrents.get(key.info_hash) is key:
                    self._torrents.look(key, now)
            elif isinstance(key, Uploads):
                key.look_at = now
            elif key.id in self._desk.conns:
                self._torrents.check(key, now)


_HANDLERS: dict[type[Event], Callable[[Engine, Any, float], None]] = {
    ev.TorrentAdded: Engine._torrent_added,
    ev.TorrentRemoved: Engine._torrent_removed,
    ev.PeersOffered: Engine._peers_offered,
    ev.AnnounceFailed: Engine._announce_failed,
    ev.DialSucceeded: Engine._dial_succeeded,
    ev.HandshakeReceived: Engine._handshake_received,
    ev.MessageReceived: Engine._message_received,
    ev.PayloadOffered: Engine._payload_offered,
    ev.PieceArrived: Engine._piece_arrived,
    ev.PieceProgress: Engine._piece_progress,
    ev.StorageFailed: Engine._storage_failed,
    ev.PieceSendBegan: Engine._piece_send_began,
    ev.PieceSent: Engine._piece_sent,
    ev.PeerLost: Engine._peer_lost,
    ev.ReaderWants: Engine._reader_wants,
    ev.ReaderGone: Engine._reader_gone,
    ev.PieceFetched: Engine._piece_fetched,
    ev.FetchEnded: Engine._fetch_ended,
    ev.BlobVerified: Engine._blob_verified,
    ev.BlobCorrupt: Engine._blob_corrupt,
    ev.Tick: Engine._tick,
}
