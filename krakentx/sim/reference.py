"""A likeness of the system that KrakenTX takes the place of: what its scheduler decides, to be held beside the Engine.

It follows that system's rules where they shape a swarm: ten connections a torrent in any direction, and as many at an
origin; candidates dialled in the tracker's order; whoever refuses or hangs up is left alone for 30 s; one torrent
announced per tick; three requests per agent and five per origin; rarest first with the lowest index on ties; no limit
on uploads; an endgame that asks everybody for the last three pieces and cancels nothing; a retry timer of half the
request's time-out. Not of consequence here, and left out: seeders that are put away after five minutes, HTTP.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from random import Random

from attrs import Factory, define

from krakentx.core.bitfield import Bitfield
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import InfoHash, PeerContext, PeerID
from krakentx.swarm import effects as fx
from krakentx.swarm import events as ev
from krakentx.swarm.config import SwarmConfig
from krakentx.swarm.effects import Effect, Send
from krakentx.swarm.events import ConnID, Event
from krakentx.swarm.picker import Rarity, lowest
from krakentx.wire.messages import AnnouncePiece, Complete, Handshake, PieceError, PieceRequest

_MAX_CONNS = 10
_BLACKLIST_S = 30.0
_PIPELINE, _ORIGIN_PIPELINE = 3, 5
_ENDGAME = 3
_TIMEOUT_S, _TIMEOUT_PER_MIB_S = 4.0, 4.0
_INTERVAL_S, _MAX_INTERVAL_S = 5.0, 60.0
_PREEMPT_S, _IDLE_S, _LEECHER_S = 30.0, 30.0, 300.0


@define(eq=False)
class _Peer:
    """A connection, dialling, greeting or active."""

    conn: ConnID
    torrent: _Torrent
    key: PeerID
    origin: bool = False
    active: bool = False
    mask: int = 0
    useful_at: float = 0.0
    asked: dict[int, float] = Factory(dict)  # piece -> when it expires; 0 for one that failed
    receiving: int | None = None


@define(eq=False)
class _Torrent:
    meta: MetaInfo
    missing: int
    rarity: Rarity
    wrote_at: float
    retry_at: float
    complete: bool = False
    peers: dict[PeerID, _Peer] = Factory(dict)
    writing: int = 0
    blacklist: dict[PeerID, float] = Factory(dict)  # until when

    @property
    def full(self) -> int:
        return (1 << self.meta.piece_count) - 1


class ReferenceMind:
    """Takes events and gives effects, as `Engine` does."""

    def __init__(
        self, *, context: PeerContext, config: SwarmConfig, rng: Random, dials: bool = True, fallback: bool = True
    ) -> None:
        self._context = context
        self._dials = dials
        self._torrents: dict[InfoHash, _Torrent] = {}
        self._conns: dict[ConnID, _Peer] = {}
        self._greeting: set[ConnID] = set()
        self._last_conn = 0
        self._queue: deque[InfoHash] = deque()  # whose turn it is to announce
        self._interval_s = _INTERVAL_S
        self._announce_at = _INTERVAL_S
        self._preempt_at = _PREEMPT_S
        self._out: list[Effect] = []
        self._told: float | None = None

    def new_conn(self) -> ConnID:
        """A name for a connection that was just accepted."""
        conn = self._name()
        self._greeting.add(conn)
        return conn

    def _name(self) -> ConnID:
        self._last_conn += 1
        return ConnID(self._last_conn)

    def load(self) -> dict[str, int]:
        """How many things it holds, by kind."""
        return {"torrents": len(self._torrents), "connections": len(self._conns), "handshakes": len(self._greeting)}

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event and say what is to be done."""
        out = self._out = []
        peer = self._conns.get(event.conn) if hasattr(event, "conn") else None
        match event:
            case ev.MessageReceived(message=message) if peer is not None:
                self._message(peer, message, now)
            case ev.TorrentAdded():
                self._added(event, now)
            case ev.PeersOffered():
                self._offered(event, now)
            case ev.AnnounceFailed(torrent=torrent):
                self._ready(torrent)
            case ev.DialSucceeded() if peer is not None:
                out.append(Send(peer.conn, self._greet(peer.torrent, "namespace")))
            case ev.HandshakeReceived(conn=conn, handshake=handshake):
                self._greeted(conn, peer, handshake, now)
            case ev.PayloadOffered(payload=payload) if peer is not None:
                self._payload(peer, payload.index)
            case ev.PayloadOffered(conn=conn):
                out.append(fx.SkipPayload(conn))
            case ev.PieceArrived(index=index, good=good) if peer is not None:
                self._arrived(peer, index, good, now)
            case ev.PieceSent() if peer is not None:
                peer.useful_at = now
            case ev.PeerLost(conn=conn):
                self._greeting.discard(conn)
                if peer is not None:
                    self._lost(peer, now)
            case ev.BlobVerified(torrent=torrent):
                out.append(fx.Finished(torrent))
                out.append(fx.Announce(torrent, True))
            case ev.BlobCorrupt(torrent=torrent):
                out.append(fx.DropPieces(torrent, Bitfield.full(self._torrents[torrent].meta.piece_count)))
                self._drop(self._torrents[torrent], now)
                out.append(fx.Failed(torrent, "the blob does not hash to its name"))
            case ev.Tick():
                self._told = None
                self._tick(now)
        self._wake(now)
        return out

    def _wake(self, now: float) -> None:
        when = self._preempt_at
        if self._dials:
            leeching = [torrent.retry_at for torrent in self._torrents.values() if not torrent.complete]
            when = min([when, self._announce_at, *leeching])
        if self._told is None or when < self._told:
            self._told = when
            self._out.append(fx.WakeAt(max(when, now)))

    # ---- torrents and the tracker

    def _added(self, event: ev.TorrentAdded, now: float) -> None:
        meta = event.meta
        full = (1 << meta.piece_count) - 1
        missing = full & ~event.have.mask
        torrent = _Torrent(meta, missing, Rarity(meta.piece_count), now, now + self._timeout(meta) / 2)
        torrent.complete = not missing
        self._torrents[meta.info_hash] = torrent
        if self._dials:
            self._out.append(fx.Announce(meta.info_hash, torrent.complete))

    def _ready(self, torrent: InfoHash) -> None:
        known = self._torrents.get(torrent)
        if known is not None and not known.complete and torrent not in self._queue:
            self._queue.append(torrent)

    def _offered(self, event: ev.PeersOffered, now: float) -> None:
        self._interval_s = event.interval_s if 0 < event.interval_s <= _MAX_INTERVAL_S else _INTERVAL_S
        self._ready(event.torrent)
        torrent = self._torrents.get(event.torrent)
        if torrent is None or torrent.complete:
            return
        for peer in event.peers:
            if len(torrent.peers) >= _MAX_CONNS:
                return
            key = peer.peer_id
            if key == self._context.peer_id or key in torrent.peers or torrent.blacklist.get(key, 0.0) > now:
                continue
            new = _Peer(self._name(), torrent, key, origin=peer.origin, useful_at=now)
            self._conns[new.conn] = torrent.peers[key] = new
            self._out.append(fx.Dial(new.conn, event.torrent, peer, 5.0))

    def _tick(self, now: float) -> None:
        if self._dials and now >= self._announce_at:
            self._announce_at = now + self._interval_s
            for _ in range(len(self._queue)):
                name = self._queue.popleft()
                torrent = self._torrents.get(name)
                if torrent is None or torrent.complete:
                    continue
                if sum(peer.active for peer in torrent.peers.values()) < _MAX_CONNS:
                    self._out.append(fx.Announce(name, False))
                    break
                self._queue.append(name)
        for torrent in list(self._torrents.values()):
            if not torrent.complete and now >= torrent.retry_at:
                torrent.retry_at = now + self._timeout(torrent.meta) / 2
                self._retry(torrent, now)
        if now >= self._preempt_at:
            self._preempt_at = now + _PREEMPT_S
            self._preempt(now)

    def _preempt(self, now: float) -> None:
        for peer in list(self._conns.values()):
            if peer.active and now - peer.useful_at > _IDLE_S:
                self._close(peer, now)
        for torrent in list(self._torrents.values()):
            if not torrent.complete and now - torrent.wrote_at >= _LEECHER_S:
                self._drop(torrent, now)
                self._out.append(fx.Failed(torrent.meta.info_hash, "torrent timed out"))

    def _drop(self, torrent: _Torrent, now: float) -> None:
        for peer in list(torrent.peers.values()):
            self._close(peer, now)
        del self._torrents[torrent.meta.info_hash]

    # ---- connections

    def _greet(self, torrent: _Torrent, namespace: str) -> Handshake:
        meta = torrent.meta
        have = Bitfield(meta.piece_count, torrent.full & ~torrent.missing)
        return Handshake(self._context.peer_id, meta.digest, meta.info_hash, have, namespace)

    def _greeted(self, conn: ConnID, peer: _Peer | None, handshake: Handshake, now: float) -> None:
        if peer is None:
            if conn not in self._greeting:
                return
            self._greeting.remove(conn)
            torrent = self._torrents.get(handshake.info_hash)
            if torrent is None or len(torrent.peers) >= _MAX_CONNS or handshake.peer_id in torrent.peers:
                self._out.append(fx.Close(conn, "refused"))
                return
            peer = _Peer(conn, torrent, handshake.peer_id)
            self._conns[conn] = torrent.peers[peer.key] = peer
            self._out.append(Send(conn, self._greet(torrent, "")))
        peer.active = True
        peer.useful_at = now
        peer.mask = handshake.bitfield.mask
        peer.torrent.rarity.add(peer.mask)
        self._request(peer, now)

    def _close(self, peer: _Peer, now: float) -> None:
        self._out.append(fx.Close(peer.conn, "closed"))
        self._lost(peer, now)

    def _lost(self, peer: _Peer, now: float) -> None:
        torrent = peer.torrent
        del self._conns[peer.conn]
        torrent.peers.pop(peer.key, None)
        if peer.active:
            torrent.rarity.remove(peer.mask)
        if peer.receiving is not None:
            torrent.writing &= ~(1 << peer.receiving)
        if not torrent.complete:
            torrent.blacklist[peer.key] = now + _BLACKLIST_S

    # ---- pieces

    def _timeout(self, meta: MetaInfo) -> float:
        return max(_TIMEOUT_S, ceil(_TIMEOUT_PER_MIB_S * meta.piece_length / 2**20))

    def _request(self, peer: _Peer, now: float, only: int = -1) -> bool:
        """Ask a peer for as much as it may be asked for, of `only` these pieces. Whether anything was asked."""
        torrent = peer.torrent
        if torrent.complete or not peer.active:
            return False
        mine = others = 0
        for other in torrent.peers.values():
            for piece, expires in other.asked.items():
                if expires > now:
                    if other is peer:
                        mine |= 1 << piece
                    else:
                        others |= 1 << piece
        quota = (_ORIGIN_PIPELINE if peer.origin else _PIPELINE) - mine.bit_count()
        wanted = peer.mask & torrent.missing & only & ~mine
        if torrent.missing.bit_count() > _ENDGAME:
            wanted &= ~others
        asked = False
        while quota > 0 and wanted:
            piece = lowest(torrent.rarity.rarest(wanted))
            wanted ^= 1 << piece
            peer.asked[piece] = now + self._timeout(torrent.meta)
            self._out.append(Send(peer.conn, PieceRequest(piece, 0, torrent.meta.piece_size(piece))))
            quota -= 1
            asked = True
        return asked

    def _retry(self, torrent: _Torrent, now: float) -> None:
        for failed in list(torrent.peers.values()):
            for piece, expires in list(failed.asked.items()):
                if expires > now or not torrent.missing >> piece & 1:
                    continue
                for peer in torrent.peers.values():
                    if peer is not failed and peer.mask >> piece & 1 and self._request(peer, now, 1 << piece):
                        break

    def _payload(self, peer: _Peer, piece: int) -> None:
        torrent, bit = peer.torrent, 1 << piece
        if torrent.missing & bit and not torrent.writing & bit:
            torrent.writing |= bit
            peer.receiving = piece
            self._out.append(fx.ReceivePiece(peer.conn, torrent.meta.info_hash, piece))
        else:
            if piece in peer.asked:
                peer.asked[piece] = 0.0
            self._out.append(fx.SkipPayload(peer.conn))

    def _arrived(self, peer: _Peer, piece: int, good: bool, now: float) -> None:
        torrent = peer.torrent
        peer.receiving = None
        torrent.writing &= ~(1 << piece)
        if not good:
            peer.asked[piece] = 0.0
            return
        torrent.missing &= ~(1 << piece)
        torrent.wrote_at = peer.useful_at = now
        for other in torrent.peers.values():
            other.asked.pop(piece, None)
        if not torrent.missing:
            torrent.complete = True
            self._out.append(fx.VerifyBlob(torrent.meta.info_hash))
            for other in list(torrent.peers.values()):
                if other.active and other.mask == torrent.full:
                    self._close(other, now)
                elif other.active:
                    self._out.append(Send(other.conn, Complete()))
            torrent.blacklist.clear()
        self._request(peer, now)
        news = AnnouncePiece(piece)
        self._out += [Send(each.conn, news) for each in torrent.peers.values() if each.active and each is not peer]

    def _message(self, peer: _Peer, message: object, now: float) -> None:
        torrent = peer.torrent
        if isinstance(message, PieceRequest):
            if torrent.missing >> message.index & 1:
                self._out.append(Send(peer.conn, PieceError(message.index, "piece not complete")))
                return
            self._out.append(fx.SendPiece(peer.conn, torrent.meta.info_hash, message.index))
            peer.mask |= 1 << message.index
            peer.useful_at = now
        elif isinstance(message, AnnouncePiece):
            peer.mask |= 1 << message.index
            torrent.rarity.add_one(1 << message.index)
            self._request(peer, now)
        elif isinstance(message, Complete):
            if torrent.complete:
                self._close(peer, now)
            else:
                peer.mask = torrent.full
                self._request(peer, now)
        elif isinstance(message, PieceError) and message.index in peer.asked:
            peer.asked[message.index] = 0.0
