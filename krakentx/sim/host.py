"""One process: its Engine and what an executor would keep for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Protocol

from attrs import Factory, define

from krakentx.core.bitfield import Bitfield
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import InfoHash, PeerContext
from krakentx.sim.clock import Clock
from krakentx.sim.faults import Fate, Faults, Parcel
from krakentx.sim.hashing import PrefixHash
from krakentx.sim.pipe import Endpoint
from krakentx.swarm.config import SwarmConfig
from krakentx.swarm.effects import Effect
from krakentx.swarm.events import ConnID, Event, HandshakeReceived, TorrentAdded


class Mind(Protocol):
    """What decides for a host: the Engine, or a likeness of another system's."""

    def new_conn(self) -> ConnID:
        """A name for a connection that was just accepted."""

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event and say what is to be done."""

    def load(self) -> dict[str, int]:
        """How many things it holds, by kind."""


class MakeMind(Protocol):
    """Makes what decides for a host."""

    def __call__(self, *, context: PeerContext, config: SwarmConfig, rng: Random, dials: bool, fallback: bool) -> Mind:
        """As `Engine`."""


@define(eq=False, kw_only=True)
class Host(Endpoint):
    """A host of the model.

    Args:
        execute: what does an effect, by its kind.
        told: hears of each event before the Engine does.
        blobs: what is on its disk: piece -> its bytes are right.
        hash_rate: bytes per second of the sha256 of one blob; 0 = no time at all.
        strong: torrents of which it knows strong sums.
    """

    context: PeerContext
    engine: Mind
    clock: Clock
    execute: Mapping[type[Effect], Callable[[Host, Any], None]]
    told: Callable[[Host, Event], None] | None = None
    blobs: dict[InfoHash, dict[int, bool]] = Factory(dict)
    strong: set[InfoHash] = Factory(set)
    loaded: dict[InfoHash, MetaInfo] = Factory(dict)  # torrents that its Engine knows
    wanted: dict[InfoHash, MetaInfo] = Factory(dict)
    arrived_at: float = 0.0
    finished_at: dict[InfoHash, float] = Factory(dict)
    failed: dict[InfoHash, str] = Factory(dict)
    abandoned: set[ConnID] = Factory(set)  # dials that were closed before they were up
    writing: set[tuple[InfoHash, int]] = Factory(set)  # pieces under a writer: at most one each
    hash_rate: float = 0.0
    hashes: dict[InfoHash, PrefixHash] = Factory(dict)
    blocked: bool = False  # nobody reaches its peer port; HTTP works
    mute: bool = False
    liar: bool = False
    forger: bool = False
    tick: int = 0
    messages: int = 0
    connections: int = 0
    events: int = 0

    @property
    def name(self) -> str:
        """As told to people."""
        return self.context.cluster

    @property
    def honest(self) -> bool:
        """Neither dead, nor lying, nor mute: a host that must finish."""
        return self.alive and not (self.liar or self.forger or self.mute)

    @property
    def done(self) -> bool:
        """It has all that it wants."""
        return len(self.finished_at) >= len(self.wanted)

    def tell(self, event: Event) -> None:
        """Let the Engine handle an event, and do what it wants."""
        if not self.alive:
            return
        if type(event) is HandshakeReceived and event.handshake.info_hash not in self.loaded:
            self._load(event.handshake.info_hash)
        self.events += 1
        if self.told is not None:
            self.told(self, event)
        execute = self.execute
        for effect in self.engine.handle(event, self.clock.now):
            execute[type(effect)](self, effect)

    def _load(self, torrent: InfoHash) -> None:
        """A peer greets for a torrent that was put away: an executor looks on the disk first."""
        if meta := self.wanted.get(torrent):
            self.add(meta, wanted=False)

    def add(self, meta: MetaInfo, *, wanted: bool) -> None:
        """Give a torrent to the Engine, with what is on disk."""
        torrent = meta.info_hash
        have = Bitfield.of(meta.piece_count, self.blobs.setdefault(torrent, {}))
        self.loaded[torrent] = meta
        self.tell(TorrentAdded(meta, have, "namespace", wanted))

    def pack(self, torrent: InfoHash, piece: int, faults: Faults, rng: Random) -> Parcel:
        """What leaves when a piece is given to somebody."""
        draw = rng.random
        good = not (self.liar and draw() < faults.lie)
        forged = good and self.forger and draw() < faults.lie
        right = good and not forged and self.blobs[torrent].get(piece, False)
        fate = Fate.ARRIVES
        if faults.stall and draw() < faults.stall:
            fate = Fate.STALLS
        elif faults.reset and draw() < faults.reset:
            fate = Fate.RESETS
        return Parcel(torrent, piece, self.loaded[torrent].piece_size(piece), good, right, forged, fate)

    def write(self, torrent: InfoHash, piece: int) -> None:
        """Somebody begins to write a piece: a connection, or a fetch."""
        key = (torrent, piece)
        assert key not in self.writing, f"two writers of piece {piece}"
        self.writing.add(key)

    def took(self, parcel: Parcel, source: Endpoint) -> bool:
        """A piece that was granted is on disk. Returns whether it matches the sums that are known of it."""
        self.writing.discard((parcel.torrent, parcel.piece))
        kind = "origin" if isinstance(source, Host) and source.context.origin else "agent"
        self.received[kind] += parcel.size
        good = parcel.right if parcel.torrent in self.strong else parcel.good
        if good:
            self.keep(parcel.torrent, parcel.piece, parcel.right)
        return good

    def keep(self, torrent: InfoHash, piece: int, right: bool = True) -> None:
        """A piece that passed its sum is on disk."""
        pieces = self.blobs[torrent]
        pieces[piece] = right
        if self.hash_rate:
            begun = self.hashes.setdefault(torrent, PrefixHash(self.hash_rate))
            begun.extend(pieces, self.wanted[torrent], self.clock.now)

    def hash_left_s(self, torrent: InfoHash) -> float:
        """How long the sha256 of a blob that is there will take from now."""
        begun = self.hashes.pop(torrent, None)
        return begun.left_s(self.clock.now) if begun else 0.0

    def wrong(self, torrent: InfoHash) -> Bitfield:
        """The pieces on its disk that are not those of the blob."""
        pieces = self.blobs[torrent]
        return Bitfield.of(self.loaded[torrent].piece_count, (piece for piece, right in pieces.items() if not right))

    def gave_up(self, torrent: InfoHash, piece: int) -> None:
        """A piece that was granted will not come."""
        self.writing.discard((torrent, piece))
