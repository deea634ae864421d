"""Which piece to ask of a connection: what a reader waits for, what is rare, and what to spare an origin."""

from __future__ import annotations

from attrs import define

from krakentx.swarm.picker import any_of, lowest
from krakentx.swarm.shares import share
from krakentx.swarm.state import Conn, Desk, Link, Torrent

_SPARE_S = 0.05  # how long an idle origin is spared, at least, for a piece that agents hold
_SPARE_MAX_S = 2.0  # and at most: agents that brought much may all be gone, and what nobody brings is its to give
_FRESH_S = 0.01  # and for one that other agents should ask it for
_HEAD_S = 1.0  # how long a reader waits for a piece that another agent should bring
_SEEDED_S = 1.0  # how long a piece of an agent that has everything may take while origins are spared
_TRUST_S = 1.0  # how long the peers of our zone may give nothing before others are asked for what they should give
_CROSSING = 4  # pieces on their way into a zone at once, but one for each of its hosts
_CROSSING_S = 1.0  # one that is not heard of for so long is not counted
_DIAL_HOPE_S = 0.1  # how long such an agent may take to answer a dial


@define
class Choice:
    """Chooses, and remembers nothing but since when a reader waits."""

    desk: Desk

    def piece(self, conn: Conn, wanted: int, now: float) -> int | None:
        """One of `wanted`, or None when this connection should be asked for nothing at the moment."""
        torrent, config = conn.torrent, self.desk.config.dispatch
        trusted = self._seeded_until(conn)
        if now < trusted:
            self.desk.alarms.no_later(conn, trusted)
            return None
        ours = self._share(conn)
        if torrent.readers:
            window = self._window(torrent)
            next_ = wanted & window & (ours | self._head(torrent, now))
            # One of them per connection: hosts that stream the same blob would otherwise all ask for the same pieces.
            if next_ and not any(window >> piece & 1 for piece in conn.asked):
                return lowest(next_)
        if config.piece_request_policy == "default":
            return any_of(wanted, self.desk.rng)
        rarest = torrent.rarity.rarest(wanted)
        fresh = rarest & torrent.rarity.levels[0]
        due = fresh and fresh & self._due(conn)
        if due & ours:
            return any_of(due & ours, self.desk.rng)
        # What is fresh and not ours is being fetched by those whose it is.
        if (fresh and conn.peer.origin) or self.spared(conn, now):
            if conn.asked or conn.receiving is not None:
                return None
            # The more the others bring while it gives one piece, the less would be won by asking it again soon.
            rested_at = conn.gave_at + (_FRESH_S if fresh else min(max(_SPARE_S, conn.rest_s), _SPARE_MAX_S))
            if now < rested_at:
                self.desk.alarms.no_later(conn, rested_at)
                return None
        return any_of(due or rarest, self.desk.rng)

    def across(self, conn: Conn, now: float) -> tuple[int, bool]:
        """What a connection to another zone may be asked for (`locality`); anything, if it is to our own.

        Returns:
            Mask of those pieces, and whether there is room for one more of them on the way into our zone.
        """
        torrent = conn.torrent
        if not conn.far or torrent.careful:
            return torrent.full, True
        here, mates, coming, room_at = 0, [], 0, 0.0
        for other in torrent.conns.values():
            if other.link is not Link.ACTIVE or other.snubbed:
                continue
            if not other.far:
                here |= other.mask
                mates.append(other.peer.peer_id)
            elif now < (hope := other.waiting_since + _CROSSING_S):
                coming += len(other.asked) + (other.receiving is not None)
                room_at = max(room_at, hope)
        allowed = torrent.full
        trusted_until = torrent.near_at + _TRUST_S * torrent.patience
        if mates and now < trusted_until:
            allowed = torrent.rack.divide(mates) & ~here
            self.desk.alarms.no_later(conn, trusted_until)
            if conn.peer.origin and not allowed & torrent.open:
                allowed |= self._unseen(conn, now) & ~here
        if coming * (1 + len(mates)) < _CROSSING:
            return allowed, True
        self.desk.alarms.no_later(conn, room_at)
        return allowed, not coming

    def _unseen(self, conn: Conn, now: float) -> int:
        """Pieces that no agent we know of holds, once this origin has given nothing for long.

        Few of a large zone have a connection to an origin, and it may be that none of those whose piece it is has one.
        """
        torrent = conn.torrent
        unseen = torrent.open & torrent.rarity.levels[0]
        due_at = conn.gave_at + _SPARE_MAX_S
        if not unseen or now >= due_at:
            return unseen
        self.desk.alarms.no_later(conn, due_at)
        return 0

    def _share(self, conn: Conn) -> int:
        """The pieces that this connection should be asked for first: all, unless it is an origin's."""
        torrent = conn.torrent
        if not self._sparing(conn):
            return torrent.full
        agents = (
            other.peer.peer_id
            for other in torrent.conns.values()
            if other.link is Link.ACTIVE and not (other.peer.origin or other.complete or other.snubbed)
        )
        return share(torrent.meta.piece_count, self.desk.context.peer_id, agents)

    def _sparing(self, conn: Conn) -> bool:
        """It is an origin, and what leaves it twice is lost."""
        return conn.peer.origin and self.desk.config.dispatch.spare_origins and not conn.torrent.careful

    def _due(self, conn: Conn) -> int:
        """The pieces that this origin should bring into the swarm, when there are several; all, unless it is one.

        Each origin serves other hosts, and those of one do not know what those of another have just got.
        """
        torrent = conn.torrent
        if not self._sparing(conn):
            return torrent.full
        others = (origin for origin in torrent.candidates.origins if origin != conn.peer.peer_id)
        return share(torrent.meta.piece_count, conn.peer.peer_id, others)

    def _head(self, torrent: Torrent, now: float) -> int:
        """The next piece of a reader that has waited for it for long: no matter then whose it is."""
        head = min((start for start, _ in torrent.readers.values()), default=0)
        ahead = torrent.missing >> head << head
        head = ahead & -ahead
        if torrent.head != head:
            torrent.head, torrent.head_since = head, now
        return head if now >= torrent.head_since + _HEAD_S else 0

    def spared(self, conn: Conn, now: float) -> bool:
        """An origin is the only source of what no agent has: it should not spend its line on the rest.

        Only while most pieces come from agents, or one that has all of them gives; where agents are few or slow, the
        origin gives all it can.
        """
        if not conn.peer.origin or not self.desk.config.dispatch.spare_origins:
            return False
        return conn.torrent.agents_gave > 0.5 or now < self._seeded_until(conn)

    def _seeded_until(self, conn: Conn) -> float:
        """How long `conn` is asked for nothing, since an agent that has everything will give it; 0 for no time.

        Such an agent is trusted as long as its pieces take less than a second, and one that is being dialled for a
        moment: else the origin, which often answers first, would give the first pieces of every blob to every host.
        """
        torrent = conn.torrent
        if not self._sparing(conn):
            return 0.0
        until = 0.0
        for other in torrent.conns.values():
            if other.peer.origin or other.snubbed:
                continue
            if other.link is not Link.ACTIVE:
                until = max(until, other.since + _DIAL_HOPE_S) if other.peer.complete else until
            elif other.complete:
                began = other.waiting_since if other.receiving is None else other.receiving_since
                until = max(until, began + _SEEDED_S)
        return until

    def _window(self, torrent: Torrent) -> int:
        """The next missing pieces in front of every reader."""
        window = 0
        for start, stop in torrent.readers.values():
            ahead = torrent.missing >> start << start & ((1 << stop) - 1)
            for _ in range(self.desk.config.dispatch.reader_window):
                if not ahead:
                    break
                window |= ahead & -ahead
                ahead &= ahead - 1
        return window
