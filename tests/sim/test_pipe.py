"""Messages and pieces on one modelled connection."""

from __future__ import annotations

from attrs import Factory, define

from krakentx.core.peer import InfoHash
from krakentx.sim.clock import Clock
from krakentx.sim.faults import Fate, Parcel
from krakentx.sim.flows import Flows
from krakentx.sim.pipe import End, Endpoint, Wire, connect
from krakentx.swarm.events import ConnID, Event, MessageReceived, PayloadOffered, PieceArrived
from krakentx.wire.messages import AnnouncePiece

MIB = 1 << 20
RATE, HOP_S = 10 * MIB, 0.001


@define(eq=False, kw_only=True)
class Listener(Endpoint):
    """Takes every piece, and remembers what came when."""

    clock: Clock
    heard: list[tuple[float, Event]] = Factory(list)

    def tell(self, event: Event) -> None:
        self.heard.append((self.clock.now, event))
        if isinstance(event, PayloadOffered):
            self.ends[event.conn].grant(True)

    def took(self, parcel: Parcel, source: Endpoint) -> None:
        """Nothing is kept."""

    def gave_up(self, torrent: InfoHash, piece: int) -> None:
        """Nothing is missed."""


def pair(*, chunks: tuple[bool, bool]) -> tuple[Clock, End, Listener]:
    """A connection over which a piece of four MiB has been leaving for 100 ms, and the host at its far end."""
    clock = Clock(HOP_S)
    flows = Flows(clock)
    near, far = (
        Listener(clock=clock, up=flows.line(f"{n} up", RATE), down=flows.line(f"{n} down", RATE)) for n in "ab"
    )
    end = connect(Wire(clock, flows), near, ConnID(1), far, ConnID(1))
    end.chunks, end.far.chunks = chunks
    end.send_piece(Parcel(InfoHash(bytes(20)), 0, 4 * MIB, True, True, False, Fate.ARRIVES))
    clock.run(0.1, lambda: False)
    return clock, end, far


def arrivals(host: Listener) -> list[tuple[float, int]]:
    """When which piece was announced."""
    return [
        (when, event.message.index)
        for when, event in host.heard
        if isinstance(event, MessageReceived) and isinstance(event.message, AnnouncePiece)
    ]


def announce(end: End, *pieces: int) -> None:
    for piece in pieces:
        end.send(MessageReceived(end.far.conn, AnnouncePiece(piece)))


def test_between_chunks_a_message_waits_for_one_of_them_and_none_overtakes_another() -> None:
    clock, end, far = pair(chunks=(True, True))
    announce(end, 1, 2)
    clock.run(0.11, lambda: False)
    announce(end, 3)
    clock.run(0.395, lambda: False)
    announce(end, 4)  # less than a chunk is left
    clock.run(0.4 + HOP_S / 2, lambda: False)
    announce(end, 5)  # nothing leaves any more
    clock.run(1.0, lambda: False)
    assert [piece for _, piece in arrivals(far)] == [1, 2, 3, 4, 5]
    chunk_s = 0.25 * MIB / RATE
    expected = [0.1 + chunk_s, 0.1 + chunk_s, 0.11 + chunk_s, 0.4, 0.4 + HOP_S / 2]
    assert all(abs(when - at - HOP_S) < 1e-9 for (when, _), at in zip(arrivals(far), expected, strict=True))
    assert next(when for when, event in far.heard if isinstance(event, PieceArrived)) < 0.4 + 2 * HOP_S


def test_a_side_that_knows_no_chunks_makes_messages_wait_for_the_whole_piece() -> None:
    for chunks in ((False, False), (True, False), (False, True)):
        clock, end, far = pair(chunks=chunks)
        announce(end, 1, 2)
        clock.run(1.0, lambda: False)
        assert [piece for _, piece in arrivals(far)] == [1, 2]
        assert arrivals(far)[0][0] >= 0.4 + HOP_S


def test_a_network_that_goes_away_keeps_messages_and_their_order() -> None:
    clock, end, far = pair(chunks=(True, True))
    announce(end, 1)
    clock.run(0.105, lambda: False)
    far.dark = True
    end.pause()
    announce(end, 2)
    clock.run(0.5, lambda: False)
    assert not arrivals(far)
    far.dark = False
    end.resume()
    end.far.resume()
    clock.run(2.0, lambda: False)
    assert [piece for _, piece in arrivals(far)] == [1, 2]
