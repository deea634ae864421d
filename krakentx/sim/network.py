"""One modelled connection: ordered messages, pieces that take time, faults on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import Factory, define

from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import InfoHash
from krakentx.swarm import events as ev
from krakentx.swarm.events import ConnID, Event, Lost
from krakentx.wire.messages import Handshake, PiecePayload, PieceRequest

if TYPE_CHECKING:
    from krakentx.sim.world import Host, World

_GAP_S = 1e-6
"""Between what is sent in a row: what comes later is also heard later, never at the same instant."""


@define(eq=False)
class _End:
    """One side of a connection."""

    host: Host
    conn: ConnID
    heard: bool = False  # the first message of the other side has come
    free_at: float = 0.0  # when what was sent so far has left
    last_at: float = 0.0  # when what was sent so far has arrived: order is kept
    writes: tuple[InfoHash, int] | None = None  # the piece that this side is receiving, when it was granted
    granted: bool = False


@define(eq=False, init=False)
class Pipe:
    """A connection between two hosts.

    Args:
        near: who dialled.
    """

    world: World
    torrent: InfoHash
    open: bool = True
    dead: bool = False  # one side has fallen silent
    _ends: dict[int, _End] = Factory(dict)

    def __init__(
        self, world: World, near: Host, near_conn: ConnID, far: Host, far_conn: ConnID, torrent: InfoHash
    ) -> None:
        self.world = world
        self.torrent = torrent
        self.open, self.dead = True, False
        self._ends = {id(near): _End(near, near_conn), id(far): _End(far, far_conn)}
        near.pipes[near_conn] = far.pipes[far_conn] = self
        world.at(world.config.conn.handshake_timeout_s, lambda: self._hang_up_if_silent(far))

    def _sides(self, host: Host) -> tuple[_End, _End]:
        """`host`'s own end, and the other."""
        mine = self._ends[id(host)]
        return mine, next(end for end in self._ends.values() if end is not mine)

    def _deliver(self, mine: _End, other: _End, at: float, event: Event) -> None:
        """Bring an event to the other side, never before what was sent earlier."""
        at = mine.last_at = max(at, mine.last_at)

        def arrive() -> None:
            if self.open and not self.dead:
                other.heard = True
                other.host.tell(event)

        self.world.at(at - self.world.now, arrive)

    def send(self, host: Host, message: object) -> None:
        """One message; it waits behind the pieces that were sent before it."""
        mine, other = self._sides(host)
        event: Event
        if isinstance(message, Handshake):
            event = ev.HandshakeReceived(other.conn, message)
        elif isinstance(message, PieceRequest) and other.host.mute:
            self.world.fault_counts["unanswered"] += 1
            return
        else:
            event = ev.MessageReceived(other.conn, message)  # type: ignore[arg-type]  # every other message is one
        at = max(self.world.now, mine.free_at) + self.world.network.latency_s
        self._deliver(mine, other, at, event)

    def send_piece(self, host: Host, meta: MetaInfo, piece: int) -> None:
        """One piece: begun, offered, granted or not, arrived."""
        world = self.world
        mine, other = self._sides(host)
        draw, faults = world.rng.random, world.faults
        size = meta.piece_size(piece)
        mine_right = host.blobs[self.torrent].get(piece, False)
        lies = host.liar and draw() < faults.lie
        forges = host.forger and draw() < faults.lie
        stalls, resets = draw() < faults.stall, draw() < faults.reset
        host.uploads += 1
        other.host.downloads += 1
        share = world.network.rate / max(host.uploads, other.host.downloads)
        starts = max(world.now, mine.free_at)
        ends = starts + size / share
        mine.free_at = ends + _GAP_S
        latency = world.network.latency_s
        world.sent["origin" if host.context.origin else "agent"] += size

        def begin() -> None:
            if self.open:
                host.tell(ev.PieceSendBegan(mine.conn, piece))

        def half() -> None:
            if self.open and not self.dead and other.writes is not None:
                other.host.tell(ev.PieceProgress(other.conn))

        def finish() -> None:
            host.uploads -= 1
            other.host.downloads -= 1
            if not self.open or self.dead:
                return
            if resets:
                world.fault_counts["reset"] += 1
                self._break(Lost.RESET)
                return
            if stalls:
                world.fault_counts["stall"] += 1
                return
            host.tell(ev.PieceSent(mine.conn, piece))
            world.at(latency, arrive)

        def arrive() -> None:
            if not self.open or self.dead:
                return
            writes, other.writes = other.writes, None
            granted, other.granted = other.granted, False
            assert granted, "a payload was neither taken, nor skipped, nor was the connection closed"
            kind = "origin" if host.context.origin else "agent"
            if writes is None:
                other.host.received["skipped"] += size
                return
            other.host.writing.discard(writes)
            other.host.received[kind] += size
            if not lies:
                other.host.blobs[self.torrent][piece] = mine_right and not forges
            other.host.tell(ev.PieceArrived(other.conn, piece, not lies))

        world.at(starts - world.now, begin)
        self._deliver(mine, other, starts + latency, ev.PayloadOffered(other.conn, PiecePayload(piece, 0, size)))
        world.at((starts + ends) / 2 - world.now + latency, half)
        world.at(ends - world.now, finish)

    def grant(self, host: Host, writes: tuple[InfoHash, int] | None) -> None:
        """The receiver takes the payload that was offered, or (None) skips it."""
        end, _ = self._sides(host)
        end.writes = writes
        end.granted = True

    def close(self, host: Host) -> None:
        """One side closes: it hears of it at once, the other when the news arrives."""
        if not self.open:
            return
        mine, other = self._sides(host)
        self._shut()
        world = self.world
        world.at(0.0, lambda: mine.host.tell(ev.PeerLost(mine.conn, Lost.LOCAL)))
        if not self.dead:
            world.at(world.network.latency_s, lambda: other.host.tell(ev.PeerLost(other.conn, Lost.CLEAN)))

    def _hang_up_if_silent(self, host: Host) -> None:
        """What every executor does with an accepted socket that says nothing."""
        mine, _ = self._sides(host)
        if self.open and not mine.heard:
            self.close(host)

    def _break(self, reason: Lost) -> None:
        self._shut()
        for end in self._ends.values():
            end.host.tell(ev.PeerLost(end.conn, reason))

    def _shut(self) -> None:
        self.open = False
        for end in self._ends.values():
            end.host.pipes.pop(end.conn, None)
            if end.writes is not None:
                end.host.writing.discard(end.writes)
                end.writes = None
