"""A laboratory for one Engine: events in by hand, effects out to look at."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

import pytest

from krakentx.core.bitfield import Bitfield
from krakentx.core.digest import Digest
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import PeerContext, PeerID, PeerInfo
from krakentx.swarm import effects as fx
from krakentx.swarm import events as ev
from krakentx.swarm.config import SwarmConfig
from krakentx.swarm.engine import Engine
from krakentx.swarm.events import ConnID, Lost
from krakentx.wire.messages import Handshake, Message, PiecePayload, PieceRequest

E = TypeVar("E")
LENGTH = 1 << 20


class Lab:
    """One Engine and its clock. Peer number n has the id n; our own is 100."""

    def __init__(
        self,
        pieces: int = 10,
        config: SwarmConfig | None = None,
        *,
        dials: bool = True,
        fallback: bool = False,
        zone: str = "",
    ) -> None:
        self.now = 0.0
        self.meta = MetaInfo(Digest.of(b"blob"), pieces * LENGTH, LENGTH, tuple(range(pieces)))
        self.torrent = self.meta.info_hash
        context = PeerContext("10.0.0.100", 16001, self.id(100), zone=zone)
        self.engine = Engine(
            context=context, config=config or SwarmConfig(), rng=Random(7), dials=dials, fallback=fallback
        )
        self.seen: list[fx.Effect] = []

    @staticmethod
    def id(number: int) -> PeerID:
        return PeerID(number.to_bytes(20, "big"))

    def peer(self, number: int, *, origin: bool = False, complete: bool = False) -> PeerInfo:
        return PeerInfo(self.id(number), f"10.0.0.{number}", 16001, origin, complete)

    def tell(self, event: ev.Event) -> list[fx.Effect]:
        effects = self.engine.handle(event, self.now)
        self.seen += effects
        return effects

    def add(self, have: int = 0, *, wanted: bool = True) -> list[fx.Effect]:
        return self.tell(ev.TorrentAdded(self.meta, Bitfield(self.meta.piece_count, have), "ns", wanted))

    def offer(self, *peers: PeerInfo, interval_s: float = 3.0) -> list[fx.Effect]:
        return self.tell(ev.PeersOffered(self.torrent, peers, interval_s))

    def wait(self, seconds: float) -> list[fx.Effect]:
        """Let time pass, with a tick every 10 ms."""
        effects: list[fx.Effect] = []
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now = min(self.now + 0.01, end)
            effects += self.tell(ev.Tick(0))
        return effects

    def handshake(self, number: int, have: int = 0, *, ours: bool = True, pieces: int | None = None) -> Handshake:
        bitfield = Bitfield(self.meta.piece_count if pieces is None else pieces, have)
        features = frozenset({"cancel"}) if ours else frozenset()
        return Handshake(self.id(number), self.meta.digest, self.torrent, bitfield, features=features)

    def accept(self, number: int, have: int = 0, *, ours: bool = True) -> tuple[ConnID, list[fx.Effect]]:
        """A peer dials us."""
        conn = self.engine.new_conn()
        return conn, self.tell(ev.HandshakeReceived(conn, self.handshake(number, have, ours=ours)))

    def say(self, conn: ConnID, message: Message) -> list[fx.Effect]:
        return self.tell(ev.MessageReceived(conn, message))  # type: ignore[arg-type]

    def payload(self, conn: ConnID, piece: int, length: int = LENGTH) -> list[fx.Effect]:
        return self.tell(ev.PayloadOffered(conn, PiecePayload(piece, 0, length)))

    @staticmethod
    def only(effects: list[fx.Effect], kind: type[E]) -> list[E]:
        """The effects of one kind."""
        return [effect for effect in effects if isinstance(effect, kind)]

    def sent(self, effects: list[fx.Effect], kind: type[E], conn: ConnID | None = None) -> list[E]:
        """The messages of one kind, to one connection or to all."""
        sends = (send for send in self.only(effects, fx.Send) if conn in (None, send.conn))
        return [send.message for send in sends if isinstance(send.message, kind)]

    def asked(self, effects: list[fx.Effect], conn: ConnID | None = None) -> list[int]:
        """The pieces that were asked for."""
        return [message.index for message in self.sent(effects, PieceRequest, conn)]

    def deliver(self, conn: ConnID, piece: int, *, good: bool = True) -> list[fx.Effect]:
        return self.payload(conn, piece) + self.tell(ev.PieceArrived(conn, piece, good))

    def lose(self, conn: ConnID, reason: Lost) -> list[fx.Effect]:
        return self.tell(ev.PeerLost(conn, reason))


@pytest.fixture
def lab() -> Callable[..., Lab]:
    return Lab
