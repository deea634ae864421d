"""What to ask of whom: requests, payloads, moving, endgame, time-outs, and pieces by HTTP.

The pipeline of a connection is refilled after every outcome of a request: a payload, a duplicate, a corrupt piece, a
refusal, a time-out, a lost connection. Nothing waits for a retry timer.
"""

from __future__ import annotations

from attrs import define, field

from krakentx.core.bitfield import indices
from krakentx.swarm.choice import Choice
from krakentx.swarm.connections import Connections
from krakentx.swarm.effects import FetchFromOrigin, PieceReady, ReceivePiece, Send, SkipPayload, StopFetch, VerifyBlob
from krakentx.swarm.picker import any_of
from krakentx.swarm.state import Conn, Desk, Link, Phase, Torrent
from krakentx.wire.messages import AnnouncePiece, CancelPiece, PiecePayload, PieceRequest

_PATIENCE_MAX = 16.0
_GIVE_UP = 4  # time-outs without a sign until a connection is closed
_MOVE_TRIES = 4
_SLOW = 3.0  # a piece that takes so much longer than others comes slowly
_UNSOLICITED_MAX = 3
_CAREFUL_S = 15.0  # how long suspect pieces are asked of origins only, when they give nothing


@define
class Downloads:
    """The receiving side of all torrents."""

    desk: Desk
    connections: Connections
    choice: Choice = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.choice = Choice(self.desk)

    # ---- asking

    def refill(self, conn: Conn, now: float, *, may_move: bool = True) -> None:
        """Ask a connection for as much as its pipeline holds."""
        torrent = conn.torrent
        if torrent.phase is not Phase.LEECHING or conn.link is not Link.ACTIVE or conn.snubbed:
            return
        if torrent.careful and not conn.peer.origin:
            return
        config = self.desk.config.dispatch
        limit = config.origin_pipeline_limit if conn.peer.origin else config.pipeline_limit
        under_way = len(conn.asked) + (conn.receiving is not None)
        while under_way < limit:
            allowed, room = self.choice.across(conn, now)
            wanted = conn.mask & torrent.open & allowed
            if not (wanted and room):
                if not under_way:
                    self._take_over(conn, now, may_move, allowed)
                return
            piece = self.choice.piece(conn, wanted, now)
            if piece is None:
                return
            self._ask(conn, piece, now)
            under_way += 1

    def refill_all(self, torrent: Torrent, now: float) -> None:
        """Requests came free: offer them to everybody who has room."""
        if torrent.phase is not Phase.LEECHING:
            return
        config = self.desk.config.dispatch
        endgame = torrent.missing.bit_count() <= config.endgame_threshold
        free = torrent.open  # only less in the course of this
        for conn in list(torrent.conns.values()):
            if conn.mask & free or endgame:
                self.refill(conn, now, may_move=False)

    def _ask(self, conn: Conn, piece: int, now: float) -> None:
        torrent = conn.torrent
        if conn.receiving is None and not conn.asked:
            conn.waiting_since = now
            self.desk.alarms.no_later(conn, now + self._timeout(torrent))
        torrent.requests.add(conn, piece, now)
        conn.late &= ~(1 << piece)
        self.desk.emit(Send(conn.id, PieceRequest(piece, 0, torrent.meta.piece_size(piece))))

    def _take_over(self, conn: Conn, now: float, may_move: bool, allowed: int) -> None:
        """A connection has nothing to do, since all it offers was asked of others: let it take one such request."""
        torrent, config = conn.torrent, self.desk.config.dispatch
        waiting = (
            allowed & conn.mask & torrent.missing & torrent.requests.asked & ~(torrent.writing | torrent.fallback.held)
        )
        movable = waiting & torrent.requests.movable
        may_move = may_move and config.move_requests
        if may_move and movable and not self.choice.spared(conn, now) and self._move(conn, movable, now):
            return
        if torrent.missing.bit_count() <= config.endgame_threshold and not config.disable_endgame:
            self._double(conn, waiting, now)

    def _move(self, conn: Conn, movable: int, now: float) -> bool:
        """Take over a request that waits at a busy peer of ours, and cancel it there.

        A new piece appears at one neighbour, everybody queues there, and those who get it next would stand idle since
        it was "already asked for". A peer of the reference ignores CANCEL and would send a second copy.
        """
        torrent, desk = conn.torrent, self.desk
        for _ in range(_MOVE_TRIES):
            piece = any_of(torrent.rarity.rarest(movable), desk.rng)
            holders = torrent.requests.holders(piece)
            if conn not in holders:
                if now - holders[0].asked[piece] >= desk.config.dispatch.move_after_s:
                    self._cancel(torrent, piece)
                    self._ask(conn, piece, now)
                    return True
                desk.alarms.no_later(conn, now + desk.config.dispatch.move_after_s)
            movable &= ~(1 << piece)
            if not movable:
                break
        return False

    def _double(self, conn: Conn, waiting: int, now: float) -> None:
        """Endgame: ask for a second copy of a piece that waits anywhere, or that comes very slowly."""
        torrent, config = conn.torrent, self.desk.config.dispatch
        slow = conn.mask & torrent.missing & torrent.writing & ~torrent.requests.asked
        for piece in indices(slow):
            if conn.receiving != piece and self._slow(torrent, piece, now) is not None:
                self._ask(conn, piece, now)
                return
        for piece in indices(waiting):
            first, *more = torrent.requests.holders(piece)
            if more or first is conn:
                continue
            if now - first.asked[piece] >= config.endgame_patience_s:
                self._ask(conn, piece, now)
                return
        self.desk.alarms.no_later(torrent, now + config.endgame_patience_s)

    def _slow(self, torrent: Torrent, piece: int, now: float) -> Conn | None:
        """The connection that has been receiving `piece` for much longer than pieces take."""
        long_s = max(self.desk.config.dispatch.stall_timeout_s, _SLOW * torrent.takes_s)
        for conn in torrent.conns.values():
            if conn.receiving == piece and conn.receiving_since <= now - long_s:
                return conn
        return None

    def _cancel(self, torrent: Torrent, piece: int) -> None:
        """Take back every request for a piece."""
        for conn in torrent.requests.holders(piece):
            torrent.requests.drop(conn, piece)
            conn.late |= 1 << piece
            if conn.ours:
                self.desk.emit(Send(conn.id, CancelPiece(piece)))
            self.desk.free(torrent)

    # ---- what peers say

    def has(self, conn: Conn, piece: int, now: float) -> None:
        """The peer says that it has one more piece."""
        torrent = conn.torrent
        if piece >= torrent.meta.piece_count:
            self.connections.ban(conn, f"announced piece {piece} of {torrent.meta.piece_count}", now)
            return
        self.assume(conn, piece)
        if torrent.missing >> piece & 1:
            conn.useful_at = now
            self.refill(conn, now)
        elif torrent.phase is Phase.COMPLETE and conn.complete:
            self.connections.close(conn, "both complete")

    def assume(self, conn: Conn, piece: int) -> None:
        """Take it that the peer has one more piece."""
        bit = 1 << piece
        if conn.mask & bit:
            return
        conn.mask |= bit
        if conn.counted:
            torrent = conn.torrent
            if conn.mask == torrent.full:
                conn.counted = False
                torrent.rarity.remove(conn.mask ^ bit)
            else:
                torrent.rarity.add_one(bit)

    def has_all(self, conn: Conn, now: float) -> None:
        """The peer says that it has everything."""
        torrent = conn.torrent
        if conn.counted:
            conn.counted = False
            torrent.rarity.remove(conn.mask)
        conn.mask = torrent.full
        if torrent.phase is Phase.COMPLETE:
            self.connections.close(conn, "both complete")
        else:
            self.refill(conn, now)

    def refused(self, conn: Conn, piece: int, now: float) -> None:
        """The peer cannot give a piece that we asked for: take it for a piece that it does not have."""
        torrent = conn.torrent
        if not torrent.requests.drop(conn, piece):
            return
        conn.waiting_since = now
        if conn.counted:
            torrent.rarity.remove(1 << piece)
        elif conn.complete:  # it counts as partial from now on
            conn.counted = True
            torrent.rarity.add(conn.mask ^ 1 << piece)
        conn.mask &= ~(1 << piece)
        self.desk.free(torrent)

    # ---- bytes

    def offered(self, conn: Conn, payload: PiecePayload, now: float) -> None:
        """A piece is about to come: take it, skip it, or close."""
        torrent, piece = conn.torrent, payload.index
        if payload.offset or not payload.length or payload.length != torrent.meta.piece_size(piece):
            self.connections.ban(conn, f"{payload.length} bytes for piece {piece}", now)
            return
        bit = 1 << piece
        asked_at = conn.asked.get(piece)
        if asked_at is not None:
            torrent.requests.drop(conn, piece)
            self._learn(torrent, now - asked_at)
        elif conn.late & bit:
            conn.late ^= bit
        else:
            conn.unsolicited += 1
            if conn.unsolicited > _UNSOLICITED_MAX:
                self.connections.ban(conn, "sends pieces that nobody asked for", now)
            else:
                self.desk.emit(SkipPayload(conn.id))
            return
        conn.snubbed = False
        conn.waiting_since = now
        if torrent.phase is Phase.LEECHING and torrent.missing & bit and not torrent.fallback.held & bit:
            if torrent.writing & bit:
                slow = self._slow(torrent, piece, now)
                if slow is not None:
                    self.connections.give_up(slow, f"piece {piece} came quicker from another", now)
            if not torrent.writing & bit:
                self._receive(conn, piece, now)
                return
        torrent.duplicates += 1
        self.desk.emit(SkipPayload(conn.id))
        self.desk.free(torrent)

    def _receive(self, conn: Conn, piece: int, now: float) -> None:
        torrent = conn.torrent
        torrent.writing |= 1 << piece
        torrent.gain_at = conn.receiving_since = now
        conn.receiving = piece
        conn.lacked = torrent.missing.bit_count()
        self.desk.emit(ReceivePiece(conn.id, torrent.info_hash, piece))
        self.desk.alarms.no_later(conn, now + self.desk.config.dispatch.stall_timeout_s)
        # It comes: a second copy that has not begun elsewhere is not needed. If this one stalls, it is asked for anew.
        self._cancel(torrent, piece)

    def progressed(self, conn: Conn, now: float) -> None:
        """Bytes of the piece under way came."""
        if conn.receiving is not None:
            conn.waiting_since = conn.torrent.gain_at = now

    def arrived(self, conn: Conn, piece: int, good: bool, now: float) -> None:
        """A piece is there, or it was not what it should be."""
        torrent = conn.torrent
        if conn.receiving != piece:
            return
        conn.receiving = None
        conn.waiting_since = now
        torrent.takes_s += (now - conn.receiving_since - torrent.takes_s) / 8
        torrent.writing &= ~(1 << piece)
        if not good:
            torrent.corrupt += 1
            self.connections.ban(conn, f"piece {piece} is corrupt", now)
            return
        conn.useful_at = conn.gave_at = torrent.gain_at = now
        if conn.peer.origin:
            torrent.trusted |= 1 << piece
            conn.rest_s = (conn.lacked - torrent.missing.bit_count()) * (now - conn.receiving_since)
        else:
            key = conn.peer.peer_id
            torrent.givers[key] = torrent.givers.get(key, 0) | 1 << piece
        torrent.bytes_from_peers += torrent.meta.piece_size(piece)
        torrent.agents_gave += ((0.0 if conn.peer.origin else 1.0) - torrent.agents_gave) / 8
        if not torrent.careful:  # then HTTP is one of the few ways, however well the others work
            for batch in torrent.fallback.stop():
                self.desk.emit(StopFetch(torrent.info_hash, batch))
        self._gained(torrent, piece, "origin" if conn.peer.origin else "peer", now)
        self.refill(conn, now)
        if conn.far:
            self.desk.free(torrent)
        else:
            torrent.near_at = now

    def _gained(self, torrent: Torrent, piece: int, source: str, now: float) -> None:
        bit = 1 << piece
        torrent.missing &= ~bit
        torrent.piece_at = now
        emit = self.desk.emit
        emit(PieceReady(torrent.info_hash, piece, source))
        if torrent.requests.asked & bit:
            self._cancel(torrent, piece)
        news = AnnouncePiece(piece)
        for conn in torrent.conns.values():
            if not conn.mask & bit and conn.link is Link.ACTIVE:
                emit(Send(conn.id, news))
        if not torrent.missing:
            self.verify(torrent)

    def verify(self, torrent: Torrent) -> None:
        """Every piece is there."""
        torrent.phase = Phase.VERIFYING
        self.desk.emit(VerifyBlob(torrent.info_hash))

    # ---- time

    def _timeout(self, torrent: Torrent) -> float:
        return self.desk.config.piece_timeout_s(torrent.meta.piece_length) * torrent.patience

    def _learn(self, torrent: Torrent, waited_s: float) -> None:
        """Where answers take long because the line is thin, a fixed time-out would only throw places in queues away."""
        base = self.desk.config.piece_timeout_s(torrent.meta.piece_length)
        torrent.patience = min(_PATIENCE_MAX, max(1.0, 0.9 * torrent.patience, 2 * waited_s / base))

    def check(self, conn: Conn, now: float) -> float:
        """See whether a connection still answers. Returns when to look again; the connection may be closed by then."""
        torrent, config = conn.torrent, self.desk.config.dispatch
        timeout = self._timeout(torrent)
        if conn.receiving is not None:
            end = min(conn.waiting_since + config.stall_timeout_s, conn.receiving_since + _GIVE_UP * timeout)
            if now >= end:
                self.connections.give_up(conn, f"piece {conn.receiving} stalled", now)
            return end
        if conn.asked or conn.snubbed:
            if now >= conn.waiting_since + _GIVE_UP * timeout:
                self.connections.give_up(conn, "does not answer requests", now)
            elif conn.snubbed or now < conn.waiting_since + timeout:
                return conn.waiting_since + (_GIVE_UP if conn.snubbed else 1) * timeout
            else:
                self._snub(conn)
            return conn.waiting_since + _GIVE_UP * self._timeout(torrent)
        self.refill(conn, now)
        return now + timeout

    def _snub(self, conn: Conn) -> None:
        """Requests timed out: whatever others have, they are asked for it. What nobody else has goes on waiting."""
        torrent = conn.torrent
        conn.snubbed = True
        torrent.patience = min(_PATIENCE_MAX, 2 * torrent.patience)
        elsewhere = 0
        for other in torrent.conns.values():
            if other is not conn and other.link is Link.ACTIVE and not other.snubbed:
                elsewhere |= other.mask
        for piece in list(conn.asked):
            if elsewhere >> piece & 1:
                self._cancel(torrent, piece)
        self.desk.free(torrent)

    # ---- HTTP

    def dare(self, torrent: Torrent, now: float) -> None:
        """Origins give nothing: after a corrupt blob, too, agents are better than nobody."""
        http_works = self.desk.has_fallback and not torrent.fallback.failing
        if torrent.careful and not http_works and now - torrent.piece_at > _CAREFUL_S:
            torrent.careful = False
            self.desk.free(torrent)

    def fetch(self, torrent: Torrent, now: float) -> None:
        """Get pieces by HTTP while the swarm gives nothing."""
        desk, fallback = self.desk, torrent.fallback
        if not desk.has_fallback or torrent.phase is not Phase.LEECHING:
            return
        config = desk.config.fallback
        if torrent.careful or now - torrent.gain_at >= config.after_s:
            fallback.on = True
        if not fallback.on:
            return
        if torrent.readers:
            first = min(start for start, _ in torrent.readers.values())
        else:
            first = desk.rng.randrange(torrent.meta.piece_count)  # hosts in the same trouble bring different pieces
        while batch := fallback.plan(torrent.missing & ~torrent.writing, first, torrent.meta.piece_length, now, config):
            for piece in batch:
                self._cancel(torrent, piece)
            desk.emit(FetchFromOrigin(torrent.info_hash, batch, config.stall_timeout_s))

    def fetched(self, torrent: Torrent, piece: int, now: float) -> None:
        """A piece came by HTTP."""
        if torrent.phase is Phase.LEECHING and torrent.missing >> piece & 1:
            torrent.bytes_from_http += torrent.meta.piece_size(piece)
            torrent.trusted |= 1 << piece
            self._gained(torrent, piece, "http", now)
