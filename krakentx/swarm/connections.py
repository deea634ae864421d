"""Who is connected: dialling, handshakes, room for others, ends.

Rules, and why:

- An unfinished torrent dials at most half of its connections. If all hosts of a rollout dialled all they may, nobody
  would have room to answer, and those with nothing to give would fill the slots of everybody (case S01).
- A refusal costs nothing: the next candidate is dialled at once, the one who refused is left alone for two seconds.
- Where zones are named, one dial in four goes to another zone: near peers give most, far ones bring what is new. Who
  has few near ones all the same dials more of them after a moment, in the place of far ones.
- When two peers dial each other at once, the dial of the smaller peer id lives. Both sides know both ids, so both
  decide alike.
- The id in an incoming handshake is only claimed. A broken handshake closes its connection and bans nobody, else
  anybody could have others banned.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define

from krakentx.core.bitfield import Bitfield
from krakentx.core.peer import PeerID, PeerInfo
from krakentx.swarm.effects import Ban, Close, Dial, Send
from krakentx.swarm.events import ConnID, Lost
from krakentx.swarm.state import Conn, Desk, Link, Phase, Torrent
from krakentx.swarm.uploads import Uploads
from krakentx.wire.messages import CANCEL, CHUNKS, Complete, Handshake, PieceError

FEATURES = frozenset({CANCEL, CHUNKS})

_FAR_PART = 4  # one dial in so many goes to another zone; one in eight was far too few
_DIAL_GRACE_S = 1.0  # the executor ends a dial; this is for one that forgets


@define
class Connections:
    """The connections of all torrents."""

    desk: Desk
    uploads: Uploads

    # ---- opening

    def fill(self, torrent: Torrent, now: float, more: int = 0) -> None:
        """Dial candidates while an unfinished torrent has slots for it.

        Args:
            more: dial so many even beyond the usual share of the slots. Peers of our zone take the place of idle far
                ones; others are dialled only until there are as many connections as are wanted.
        """
        desk = self.desk
        limits = desk.config.connstate
        if not desk.dials or torrent.phase is not Phase.LEECHING:
            return

        def shunned(peer: PeerInfo) -> bool:
            careful = torrent.careful and not peer.origin
            enough = torrent.dialled >= limits.dialled_limit and len(torrent.conns) >= limits.wanted_conn
            beyond = enough and desk.far(peer.zone)
            return careful or beyond or desk.blacklist.shunned(torrent.info_hash, peer.peer_id, now)

        def preferred(peer: PeerInfo) -> bool:
            return desk.far(peer.zone) == far_next

        most = max(limits.dialled_limit, torrent.dialled + more)
        while torrent.dialled < most and len(desk.conns) < limits.max_total_conn:
            full = len(torrent.conns) >= limits.max_open_conn
            leaving = self._too_far(torrent) if full and torrent.dialled >= limits.dialled_limit else None
            if full and leaving is None:
                return
            agents = (conn.peer for conn in torrent.conns.values() if conn.outgoing and not conn.peer.origin)
            far_next = sum(desk.far(agent.zone) for agent in agents) < max(1, limits.dialled_limit // _FAR_PART)
            peer = torrent.candidates.choose(
                torrent.conns,
                shunned,
                not any(conn.peer.complete or conn.peer.origin for conn in torrent.conns.values()),
                desk.rng,
                preferred,
            )
            if peer is None:
                return
            if leaving is not None:
                self.close(leaving, "gives way to a nearer one")
            self._add(Conn(desk.new_conn(), torrent, peer, True, Link.DIALLING, now, now, now))
            conn = torrent.conns[peer.peer_id]
            desk.emit(Dial(conn.id, torrent.info_hash, peer, limits.dial_timeout_s))
            desk.alarms.set(conn, now + limits.dial_timeout_s + _DIAL_GRACE_S)

    def lacking(self, torrent: Torrent) -> int:
        """How many more to dial: whom few others dial would get less than they do.

        Those who come first find few of their zone, and fill up with far ones before the others are there. Far ones
        count for their part only.
        """
        wanted = self.desk.config.connstate.wanted_conn
        far = sum(conn.far for conn in torrent.conns.values())
        return wanted - (len(torrent.conns) - far) - min(far, wanted // _FAR_PART)

    def dialled(self, conn: Conn, now: float) -> None:
        """TCP is up: speak first."""
        if conn.link is not Link.DIALLING:
            return
        conn.link = Link.SHAKING
        conn.since = conn.heard_at = now
        self.desk.alarms.set(conn, now + self.desk.config.conn.handshake_timeout_s)
        self._greet(conn, conn.torrent.namespace)

    def answered(self, conn: Conn, handshake: Handshake, now: float) -> bool:
        """The reply to our handshake came. True when the connection is active now."""
        torrent = conn.torrent
        if conn.link is not Link.SHAKING:
            self.ban(conn, "a second handshake", now)
        elif handshake.peer_id != conn.peer.peer_id:
            # Somebody else answers at that address: nothing is known against the peer itself.
            self.desk.blacklist.dial_failed(torrent.info_hash, conn.peer.peer_id, now, self.desk.config.connstate)
            self.close(conn, f"dialled {conn.peer.peer_id}, got {handshake.peer_id}")
        elif problem := _mismatch(torrent, handshake):
            self.ban(conn, problem, now)
        else:
            self.desk.blacklist.reached(torrent.info_hash, conn.peer.peer_id)
            self._activate(conn, handshake, now)
            return True
        return False

    def accept(self, conn_id: ConnID, handshake: Handshake, now: float) -> Conn | None:
        """The first message of an incoming connection came. Returns the connection when it is active now."""
        torrent = self.desk.torrents.get(handshake.info_hash)
        refusal = "no such torrent" if torrent is None else self._refusal(torrent, handshake, now)
        if torrent is None or refusal:
            self.desk.emit(Close(conn_id, refusal))
            return None
        peer = PeerInfo(handshake.peer_id, "", 0, complete=handshake.bitfield.complete, zone=handshake.zone)
        conn = Conn(conn_id, torrent, peer, False, Link.ACTIVE, now, now, now)
        self._add(conn)
        self._greet(conn, "")
        self._activate(conn, handshake, now)
        torrent.used_at = now
        return conn

    def _refusal(self, torrent: Torrent, handshake: Handshake, now: float) -> str:
        """Why an incoming connection cannot be had; empty when it can. Makes room where that is right."""
        desk, key = self.desk, handshake.peer_id
        if key == desk.context.peer_id:
            return "connected to ourselves"
        if problem := _mismatch(torrent, handshake):
            return problem
        if desk.blacklist.banned(torrent.info_hash, key, now):
            return "banned"
        if torrent.phase is Phase.COMPLETE and handshake.bitfield.complete:
            return "both complete"
        old = torrent.conns.get(key)
        if old is not None:
            if old.link is Link.ACTIVE:
                replace = now - old.heard_at > desk.config.connstate.useless_after_s  # it came back before we noticed
            else:
                replace = key < desk.context.peer_id
            if not replace:
                return "already connected"
            self.close(old, "replaced by an incoming connection")
        if not self._room(torrent) and not self._make_room(torrent, handshake, now):
            return "at capacity"
        return ""

    def _room(self, torrent: Torrent) -> bool:
        limits = self.desk.config.connstate
        incoming = len(torrent.conns) - torrent.dialled
        reserved = limits.dialled_limit if self.desk.dials and torrent.phase is Phase.LEECHING else 0
        return (
            len(self.desk.conns) < limits.max_total_conn
            and len(torrent.conns) < limits.max_open_conn
            and incoming < max(1, limits.max_open_conn - reserved)
        )

    def _make_room(self, torrent: Torrent, handshake: Handshake, now: float) -> bool:
        """Let an incoming connection that is of use take the place of one that is of none."""
        if torrent.phase is Phase.LEECHING and not handshake.bitfield.mask & torrent.missing:
            return False
        idle = [conn for conn in self._useless(torrent, now) if not conn.outgoing]
        if not idle:
            return False
        self.close(min(idle, key=lambda conn: conn.useful_at), "gives way to another")
        return self._room(torrent)

    def _too_far(self, torrent: Torrent) -> Conn | None:
        """Of the incoming connections to other zones the one that was of no use for longest, if they are too many."""
        far = [conn for conn in torrent.conns.values() if conn.far and not (conn.outgoing or conn.peer.origin)]
        if len(far) * _FAR_PART <= len(torrent.conns):
            return None
        idle = (conn for conn in far if conn.receiving is None and not self.uploads.busy(conn.id))
        return min(idle, key=lambda conn: conn.useful_at, default=None)

    def _useless(self, torrent: Torrent, now: float) -> Iterator[Conn]:
        """Connections that brought and took nothing for a while and promise nothing."""
        before = now - self.desk.config.connstate.useless_after_s
        for conn in torrent.conns.values():
            if (
                conn.link is Link.ACTIVE
                and conn.useful_at < before
                and conn.receiving is None
                and not conn.asked
                and not (torrent.phase is Phase.LEECHING and conn.offers)
                and not self.uploads.busy(conn.id)
            ):
                yield conn

    def rotate(self, torrent: Torrent, now: float) -> None:
        """A stalled download with no free slot drops the dialled peer that is of least use, for another one."""
        if torrent.dialled < self.desk.config.connstate.dialled_limit:
            return
        idle = [conn for conn in self._useless(torrent, now) if conn.outgoing]
        if idle:
            conn = min(idle, key=lambda conn: conn.useful_at)
            self._pause(conn, now)
            self.close(conn, "brings nothing")

    # ---- ending

    def lost(self, conn: Conn, reason: Lost, now: float) -> None:
        """The connection is gone: give back all it held, and remember what that says about the peer."""
        desk, torrent, key = self.desk, conn.torrent, conn.peer.peer_id
        self._remove(conn)
        if reason is Lost.PROTOCOL:
            self._ban(torrent, key, "broke the protocol", now, 1)
        elif reason is Lost.CLEAN or (reason is Lost.RESET and conn.link is not Link.DIALLING):
            self._pause(conn, now)
        elif reason is not Lost.LOCAL:
            desk.blacklist.dial_failed(torrent.info_hash, key, now, desk.config.connstate)

    def close(self, conn: Conn, reason: str) -> None:
        """End a connection; nothing is held against the peer."""
        self._remove(conn)
        self.desk.emit(Close(conn.id, reason))

    def give_up(self, conn: Conn, reason: str, now: float) -> None:
        """End a connection whose peer does not answer (any more): it may be dead."""
        self.desk.blacklist.dial_failed(conn.torrent.info_hash, conn.peer.peer_id, now, self.desk.config.connstate)
        self.close(conn, reason)

    def ban(self, conn: Conn, reason: str, now: float) -> None:
        """End a connection whose peer lied or broke the protocol, and leave it alone."""
        self._ban(conn.torrent, conn.peer.peer_id, reason, now, 1)
        self.close(conn, reason)

    def suspect(self, torrent: Torrent, pieces: int, now: float) -> None:
        """The whole was corrupt: part from whoever gave one of `pieces`, for longer from a lone giver.

        Nor does anybody get them from us: one that is leaving just now may be written again under the reader.
        """
        givers = [key for key, gave in torrent.givers.items() if gave & pieces]
        for key in givers:
            del torrent.givers[key]
            self._ban(torrent, key, "gave pieces of a corrupt blob", now, 2 if len(givers) == 1 else 1)
            if conn := torrent.conns.get(key):
                self.close(conn, "gave pieces of a corrupt blob")
        for conn in list(torrent.conns.values()):
            refused = self.uploads.retract(conn.id, pieces)
            if refused is None:
                self.close(conn, "is being given a corrupt piece")
            else:
                for piece in refused:
                    self.desk.emit(Send(conn.id, PieceError(piece, "piece not complete")))

    def close_all(self, torrent: Torrent, reason: str) -> None:
        """End every connection of a torrent."""
        for conn in list(torrent.conns.values()):
            self.close(conn, reason)

    def completed(self, torrent: Torrent) -> None:
        """The torrent is complete: tell it, and part from those who need nothing."""
        for conn in list(torrent.conns.values()):
            if conn.link is not Link.ACTIVE or conn.complete:
                self.close(conn, "both complete" if conn.link is Link.ACTIVE else "no longer needed")
            else:
                self.desk.emit(Send(conn.id, Complete()))

    # ---- the books

    def _add(self, conn: Conn) -> None:
        self.desk.conns[conn.id] = conn
        conn.torrent.conns[conn.peer.peer_id] = conn
        conn.torrent.dialled += conn.outgoing

    def _remove(self, conn: Conn) -> None:
        desk, torrent = self.desk, conn.torrent
        if desk.conns.pop(conn.id, None) is None:
            return
        del torrent.conns[conn.peer.peer_id]
        torrent.dialled -= conn.outgoing
        torrent.requests.release(conn)
        if conn.receiving is not None:
            torrent.writing &= ~(1 << conn.receiving)
        if conn.counted:
            torrent.rarity.remove(conn.mask)
        self.uploads.drop(conn.id)
        desk.alarms.cancel(conn)
        desk.free(torrent)

    def _greet(self, conn: Conn, namespace: str) -> None:
        torrent = conn.torrent
        neighbours = frozenset(
            other.peer.peer_id for other in torrent.conns.values() if other.link is Link.ACTIVE and other is not conn
        )
        have = Bitfield(torrent.meta.piece_count, torrent.have)
        digest, info_hash = torrent.meta.digest, torrent.info_hash
        me = self.desk.context.peer_id
        self.desk.emit(
            Send(
                conn.id, Handshake(me, digest, info_hash, have, namespace, neighbours, FEATURES, self.desk.context.zone)
            )
        )

    def _activate(self, conn: Conn, handshake: Handshake, now: float) -> None:
        torrent = conn.torrent
        conn.link = Link.ACTIVE
        conn.since = conn.heard_at = conn.useful_at = conn.waiting_since = conn.gave_at = now
        conn.mask = handshake.bitfield.mask
        conn.had = conn.mask.bit_count()
        conn.ours = CANCEL in handshake.features
        conn.far = self.desk.far(handshake.zone or conn.peer.zone)
        conn.counted = torrent.phase is not Phase.COMPLETE and not conn.complete
        if conn.counted:
            torrent.rarity.add(conn.mask)
        self.desk.alarms.set(conn, now + self.desk.config.conn_tti_s)

    def _pause(self, conn: Conn, now: float) -> None:
        until = now + self.desk.config.connstate.refusal_pause_s
        self.desk.blacklist.pause(conn.torrent.info_hash, conn.peer.peer_id, until, now)

    def _ban(self, torrent: Torrent, key: PeerID, reason: str, now: float, weight: int) -> None:
        until = self.desk.blacklist.ban(torrent.info_hash, key, now, self.desk.config.connstate, weight)
        if until > now:
            self.desk.emit(Ban(torrent.info_hash, key, until, reason))


def _mismatch(torrent: Torrent, handshake: Handshake) -> str:
    """What in a handshake does not fit the torrent; empty when all does."""
    meta = torrent.meta
    if handshake.info_hash != torrent.info_hash or handshake.digest != meta.digest:
        return f"handshake for torrent {handshake.info_hash}, expected {torrent.info_hash}"
    if handshake.bitfield.size != meta.piece_count:
        return f"bitfield of {handshake.bitfield.size} bits for {meta.piece_count} pieces"
    return ""
