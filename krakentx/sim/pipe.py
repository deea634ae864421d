"""One modelled connection: ordered messages, and pieces that take as long as the lines need for them.

A message takes one latency and costs no bandwidth. Sent while a piece leaves, it waits for a chunk of it to pass when
both sides know chunks, and otherwise for all that is left of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter

from attrs import Factory, define

from krakentx.core.peer import InfoHash
from krakentx.sim.clock import Clock
from krakentx.sim.faults import Fate, Parcel
from krakentx.sim.flows import Flow, Flows, Line
from krakentx.swarm import events as ev
from krakentx.swarm.events import ConnID, Event, Lost
from krakentx.wire.messages import PiecePayload

_PROGRESS_S = 0.4
_CHUNK = 256 << 10  # bytes of a piece that pass before a message does


@define(eq=False)
class Rack:
    """Hosts behind one uplink."""

    name: str
    up: Line
    down: Line


@define(eq=False, kw_only=True)
class Endpoint(ABC):
    """A host as the network sees it."""

    up: Line
    down: Line
    rack: Rack | None = None
    ends: dict[ConnID, End] = Factory(dict)
    alive: bool = True
    dark: bool = False  # its network is away for a while
    received: Counter[str] = Factory(Counter)  # bytes by kind of source
    lost: float = 0.0  # bytes received of pieces that did not come to an end
    across: int = 0  # bytes of pieces received from other racks

    @abstractmethod
    def tell(self, event: Event) -> None:
        """Something happened."""

    @abstractmethod
    def took(self, parcel: Parcel, source: Endpoint) -> bool:
        """A piece that was granted is on disk. Returns whether it matches the sums that are known of it."""

    @abstractmethod
    def gave_up(self, torrent: InfoHash, piece: int) -> None:
        """A piece that was granted will not come."""

    def path_to(self, other: Endpoint) -> tuple[Line, ...]:
        """The lines between two hosts."""
        if self.rack is other.rack:
            return (self.up, other.down)
        middle: tuple[Line, ...] = () if self.rack is None else (self.rack.up,)
        middle += () if other.rack is None else (other.rack.down,)
        return (self.up, *middle, other.down)


@define
class Wire:
    """What all connections share."""

    clock: Clock
    flows: Flows
    counts: Counter[str] = Factory(Counter)  # faults that came to pass


@define(eq=False)
class End:
    """One side of a connection."""

    wire: Wire
    host: Endpoint
    conn: ConnID
    far: End = None  # type: ignore[assignment]  # `connect` makes both ends, and each has the other
    open: bool = True
    heard: bool = False  # something came
    chunks: bool = False  # this side has said that messages may come between the chunks of a piece
    stuck: bool = False  # what was sent does not arrive any more
    leaving: Parcel | None = None
    flow: Flow | None = None  # of the piece that leaves
    passed: float = 0.0  # bytes of it that went before the network went away
    behind: list[Event | Parcel] = Factory(list)  # wait for the piece that leaves
    between: list[Event] = Factory(list)  # wait for a chunk of it, or are on their way since
    between_until: float = 0.0  # when the last of them leaves
    late: list[Event | Parcel] = Factory(list)  # arrived at a host whose network was away
    offered: Parcel | None = None  # the piece that this side is receiving
    granted: bool | None = None  # taken, skipped, or not yet decided

    # ---- sending

    def send(self, event: Event) -> None:
        """Bring an event to the other side, after what of a piece must pass before it."""
        if self.stuck:
            return
        clock, wait_s = self.wire.clock, 0.0
        if self.leaving is not None:
            if not (self.chunks and self.far.chunks):
                self.behind.append(event)
                return
            if self.flow is not None:
                wait_s = self.wire.flows.takes_s(self.flow, _CHUNK)
        if wait_s or self.between:
            self.between.append(event)
            self.between_until = max(self.between_until, clock.now + wait_s)
            clock.at(self.between_until - clock.now + clock.hop_s, self._passed_between)
        else:
            clock.hop(self.far.arrive, event)

    def _passed_between(self) -> None:
        # By a queue, or rounding would now and then let one message overtake another.
        self.far.arrive(self.between.pop(0))

    def send_piece(self, parcel: Parcel) -> None:
        """Let a piece leave."""
        if self.leaving is not None:
            self.behind.append(parcel)
            return
        if self.stuck:
            return
        self.leaving = parcel
        clock = self.wire.clock
        clock.soon(self._began, parcel)
        clock.hop(self.far.arrive, parcel)
        self.passed = 0.0
        self._flow(parcel)
        clock.at(_PROGRESS_S, self._progress, parcel)

    def _flow(self, parcel: Parcel) -> None:
        ways = (self.host, self.far.host)
        if all(host.alive and not host.dark for host in ways):
            # A piece that will not come stops half-way.
            size = parcel.size if parcel.fate is Fate.ARRIVES else parcel.size / 2
            self.flow = self.wire.flows.start(self.host.path_to(self.far.host), size - self.passed, self._sent)

    def _began(self, parcel: Parcel) -> None:
        if self.open:
            self.host.tell(ev.PieceSendBegan(self.conn, parcel.piece))

    def _progress(self, parcel: Parcel) -> None:
        if self.leaving is parcel:
            if self.flow is not None:
                self.wire.clock.hop(self.far.progressed, parcel)
            self.wire.clock.at(_PROGRESS_S, self._progress, parcel)

    def _sent(self) -> None:
        parcel, self.leaving, self.flow = self.leaving, None, None
        assert parcel is not None
        if parcel.fate is not Fate.ARRIVES:
            self.far.lose(parcel.size / 2)
            self.stuck = True
            self.wire.counts["stall" if parcel.fate is Fate.STALLS else "reset"] += 1
            if parcel.fate is Fate.RESETS:
                self.cut(Lost.RESET)
            return
        self.wire.clock.hop(self.far.complete, parcel)
        while self.behind and self.leaving is None:
            item = self.behind.pop(0)
            if isinstance(item, Parcel):
                self.send_piece(item)
            else:
                self.send(item)
        self.host.tell(ev.PieceSent(self.conn, parcel.piece))

    # ---- receiving

    def arrive(self, item: Event | Parcel) -> None:
        """A message has come, or the first byte of a piece."""
        host, other = self.host, self.far.host
        if not self.open or not host.alive or not other.alive:
            return
        if host.dark or other.dark or self.late:
            self.late.append(item)
            return
        self.heard = True
        if isinstance(item, Parcel):
            self.offered = item
            host.tell(ev.PayloadOffered(self.conn, PiecePayload(item.piece, 0, item.size)))
            assert self.granted is not None or not self.open, "a payload was neither taken, nor skipped, nor closed"
        else:
            if isinstance(item, ev.PeerLost):
                self.shut()
            host.tell(item)

    def grant(self, take: bool) -> None:
        """Take the piece that was offered, or skip it."""
        self.granted = take

    def progressed(self, parcel: Parcel) -> None:
        """Some bytes of a piece have come."""
        if self.open and self.offered is parcel and self.granted:
            self.host.tell(ev.PieceProgress(self.conn))

    def complete(self, parcel: Parcel) -> None:
        """The last byte of a piece has come."""
        if self.offered is not parcel:
            self.lose(parcel.size)
            return
        taken, self.offered, self.granted = self.granted, None, None
        if self.host.rack is not self.far.host.rack:
            self.host.across += parcel.size
        if not taken:
            self.host.received["skipped"] += parcel.size
            return
        good = self.host.took(parcel, self.far.host)
        self.host.tell(ev.PieceArrived(self.conn, parcel.piece, good))

    def lose(self, size: float) -> None:
        """Bytes came that are of no use."""
        self.host.lost += size

    # ---- ending

    def close(self) -> None:
        """This side closes: it hears of it at once, the other when the news arrives."""
        if not self.open:
            return
        self.shut()
        clock = self.wire.clock
        clock.soon(self.host.tell, ev.PeerLost(self.conn, Lost.LOCAL))
        clock.hop(self.far.arrive, ev.PeerLost(self.far.conn, Lost.CLEAN))

    def cut(self, reason: Lost) -> None:
        """Both sides lose the connection at once."""
        for end in (self, self.far):
            if end.open:
                end.shut()
                self.wire.clock.soon(end.host.tell, ev.PeerLost(end.conn, reason))

    def shut(self) -> None:
        """Nothing more comes in or leaves here."""
        self.open = False
        self.host.ends.pop(self.conn, None)
        self.abort()
        self.far.abort()
        if self.offered is not None:
            if self.granted:
                self.host.gave_up(self.offered.torrent, self.offered.piece)
            self.offered = None

    def abort(self) -> None:
        """The piece that leaves is broken off."""
        if self.flow is not None:
            self.passed += self.wire.flows.stop(self.flow)
            self.flow = None
        if self.leaving is not None:
            self.far.lose(self.passed)
        self.behind.clear()
        self.stuck = self.stuck or self.leaving is not None
        self.leaving = None

    def hang_up_if_silent(self) -> None:
        """What every executor does with an accepted socket that says nothing."""
        if self.open and not self.heard:
            self.close()

    # ---- a network that is away

    def pause(self) -> None:
        """The network of one of both has gone: its bytes wait."""
        if self.flow is not None:
            self.passed += self.wire.flows.stop(self.flow)
            self.flow = None

    def resume(self) -> None:
        """It is back: so is what was on its way."""
        late, self.late = self.late, []
        for item in late:
            self.wire.clock.soon(self.arrive, item)
        if self.leaving is not None and self.flow is None:
            self._flow(self.leaving)


def connect(wire: Wire, near: Endpoint, near_conn: ConnID, far: Endpoint, far_conn: ConnID) -> End:
    """Join two hosts. Returns the end of the one who dialled."""
    one, two = End(wire, near, near_conn), End(wire, far, far_conn)
    one.far, two.far = two, one
    near.ends[near_conn] = one
    far.ends[far_conn] = two
    return one
