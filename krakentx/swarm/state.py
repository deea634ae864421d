"""What the Engine remembers: torrents, connections, and the desk that its parts share."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from math import inf
from random import Random

from attrs import Factory, define, field

from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import InfoHash, PeerContext, PeerID, PeerInfo
from krakentx.swarm.alarms import Alarms
from krakentx.swarm.announce import AnnounceTimer
from krakentx.swarm.config import SwarmConfig
from krakentx.swarm.effects import Effect
from krakentx.swarm.events import ConnID, ReaderID
from krakentx.swarm.fallback import Fallback
from krakentx.swarm.locality import RackShare
from krakentx.swarm.picker import Rarity
from krakentx.swarm.requests import Requests
from krakentx.swarm.slots import Blacklist, Candidates
from krakentx.swarm.uploads import Uploads

_SAYS_S = 0.5  # what a peer gains in less time says little
_BEHIND = 0.98  # of what another gains


class Phase(Enum):
    """The life of a torrent."""

    HOLDING = auto()  # a part is here for others; nobody here wants the rest
    LEECHING = auto()
    VERIFYING = auto()  # every piece is here, the whole is being hashed
    COMPLETE = auto()


class Link(Enum):
    """The life of a connection."""

    DIALLING = auto()
    SHAKING = auto()  # we spoke first and await the answer
    ACTIVE = auto()


@define(eq=False)
class Conn:
    """One connection, or the attempt at one."""

    id: ConnID
    torrent: Torrent
    peer: PeerInfo
    outgoing: bool
    link: Link
    since: float  # of the connection; of the present state while it is not active
    heard_at: float  # last message or byte
    useful_at: float  # last piece that came or went, or the last time it had one for us
    mask: int = 0  # pieces that the peer holds
    had: int = 0  # pieces that the peer had when it greeted
    far: bool = False  # it stands in another zone than we
    counted: bool = False  # its pieces are part of the torrent's rarity
    ours: bool = False  # honours CANCEL
    asked: dict[int, float] = Factory(dict)  # pieces that we wait for, and since when
    receiving: int | None = None  # the piece whose bytes are arriving
    receiving_since: float = 0.0
    waiting_since: float = 0.0  # for the next sign that a request is being answered
    gave_at: float = 0.0  # last piece that came
    lacked: int = 0  # how many pieces, when the latest began to come
    rest_s: float = 0.0  # how long its latest piece took, times the pieces that others brought meanwhile
    snubbed: bool = False  # let a request time out: gets no new one until it sends something
    late: int = 0  # pieces asked for and given up, which may come all the same
    unsolicited: int = 0

    @property
    def complete(self) -> bool:
        """The peer holds everything."""
        return self.mask == self.torrent.full

    def gains(self, now: float) -> float:
        """Pieces per second that the peer got of everybody since it greeted; infinity while that says little."""
        age = now - self.since
        return (self.mask.bit_count() - self.had) / age if age >= _SAYS_S else inf

    @property
    def offers(self) -> bool:
        """The peer holds something that we lack."""
        return bool(self.mask & self.torrent.missing)


@define(eq=False)
class Torrent:
    """One blob."""

    meta: MetaInfo
    info_hash: InfoHash
    namespace: str
    full: int  # mask of all pieces
    missing: int
    phase: Phase
    announcer: AnnounceTimer
    fallback: Fallback
    rarity: Rarity
    piece_at: float  # last new piece
    wanted_at: float  # since when the rest of it is wanted
    gain_at: float  # last byte that a peer gave
    near_at: float  # last piece of a peer in our zone
    rack: RackShare
    used_at: float  # last time anybody else needed us
    requests: Requests[Conn] = Factory(Requests)
    candidates: Candidates = Factory(Candidates)
    conns: dict[PeerID, Conn] = Factory(dict)  # dialling ones too
    dialled: int = 0  # outgoing ones among them
    writing: int = 0  # pieces whose bytes are arriving over connections
    readers: dict[ReaderID, tuple[int, int]] = Factory(dict)
    given: set[int] = Factory(set)  # pieces that left here for anybody, since all are here
    givers: dict[PeerID, int] = Factory(dict)  # which agents gave which pieces, until the whole is verified
    trusted: int = 0  # pieces that came from origins
    takes_s: float = 0.0  # how long the bytes of a piece take lately
    patience: float = 1.0  # factor on request timeouts, learnt from how long answers take
    agents_gave: float = 0.0  # share of the latest pieces that came from agents, 0..1
    head: int = 0  # mask of the piece that a reader waits for
    head_since: float = 0.0
    restarts: int = 0
    careful: bool = False  # forged by nobody knows whom: from origins only, by wire or HTTP, while they give
    bytes_from_peers: int = 0
    bytes_from_http: int = 0
    duplicates: int = 0
    corrupt: int = 0

    @property
    def have(self) -> int:
        """Mask of the pieces that are here."""
        return self.full ^ self.missing

    @property
    def open(self) -> int:
        """Pieces that are missing and asked of nobody."""
        return self.missing & ~(self.requests.asked | self.writing | self.fallback.held)


@define
class Desk:
    """What the parts of the Engine share."""

    context: PeerContext
    config: SwarmConfig
    rng: Random
    dials: bool
    has_fallback: bool
    torrents: dict[InfoHash, Torrent] = Factory(dict)
    conns: dict[ConnID, Conn] = Factory(dict)
    incoming: set[ConnID] = Factory(set)
    """Accepted sockets whose handshake has not come."""
    alarms: Alarms[Conn | Torrent | Uploads] = Factory(Alarms)
    blacklist: Blacklist = Factory(Blacklist)
    emit: Callable[[Effect], None] = field(init=False)
    freed: dict[InfoHash, Torrent] = Factory(dict)
    """Torrents in which requests or slots came free during this event: looked after at its end."""
    last_conn: int = 0

    def far(self, zone: str) -> bool:
        """A peer in this zone stands behind an uplink. Without a zone of our own nobody is known to."""
        return bool(self.context.zone) and zone != self.context.zone

    def behind(self, conn: ConnID, other: ConnID, now: float) -> bool:
        """A peer needs a piece more than another one of its torrent: it feeds its zone, or gets less of everybody."""
        one, two = self.conns[conn], self.conns[other]
        if one.torrent is not two.torrent:
            return False
        if one.far != two.far:
            return one.far
        return one.gains(now) < _BEHIND * two.gains(now) < inf

    def new_conn(self) -> ConnID:
        """A name for a connection, never used before."""
        self.last_conn += 1
        return ConnID(self.last_conn)

    def free(self, torrent: Torrent) -> None:
        """Something came free: others may have it."""
        self.freed[torrent.info_hash] = torrent
