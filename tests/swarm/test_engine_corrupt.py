"""The blob does not hash to its name although each piece fits its CRC-32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from krakentx.core.bitfield import Bitfield
from krakentx.swarm import effects as fx
from krakentx.swarm import events as ev
from krakentx.wire.messages import AnnouncePiece, PieceError, PieceRequest

LENGTH = 1 << 20
Make = Callable[..., Any]


def test_of_a_corrupt_blob_only_the_wrong_pieces_are_fetched_again_and_not_from_their_giver(lab: Make) -> None:
    it = lab(pieces=4)
    it.add()
    liar, _ = it.accept(1, 0b0011)
    honest, _ = it.accept(2, 0b1100)
    for conn, piece in ((liar, 0), (liar, 1), (honest, 2), (honest, 3)):
        it.deliver(conn, piece)
    effects = it.tell(ev.BlobCorrupt(it.torrent, Bitfield.of(4, [1])))
    assert it.only(effects, fx.DropPieces) == [fx.DropPieces(it.torrent, Bitfield.of(4, [1]))]
    assert [ban.peer for ban in it.only(effects, fx.Ban)] == [it.id(1)]
    assert [close.conn for close in it.only(effects, fx.Close)] == [liar]
    assert it.asked(it.say(honest, AnnouncePiece(1)), honest) == [1]
    assert it.only(it.deliver(honest, 1), fx.VerifyBlob)
    assert it.only(it.tell(ev.BlobVerified(it.torrent)), fx.Finished)


def test_a_piece_that_turned_out_wrong_is_given_to_nobody(lab: Make) -> None:
    """What waits is refused; one that is leaving would change under the reader, so its connection ends."""
    it = lab(pieces=4)
    it.add()
    giver, _ = it.accept(1, 0b1111)
    takers = [it.accept(number)[0] for number in (2, 3)]
    for piece in range(4):
        it.deliver(giver, piece)
    assert it.only(it.say(takers[0], PieceRequest(1, 0, LENGTH)), fx.SendPiece)
    assert it.only(it.say(takers[1], PieceRequest(0, 0, LENGTH)), fx.SendPiece)
    it.say(takers[1], PieceRequest(1, 0, LENGTH))  # behind the other
    effects = it.tell(ev.BlobCorrupt(it.torrent, Bitfield.of(4, [1])))
    assert {close.conn for close in it.only(effects, fx.Close)} == {giver, takers[0]}
    assert [error.index for error in it.sent(effects, PieceError, takers[1])] == [1]
    assert [error.index for error in it.sent(it.say(takers[1], PieceRequest(1, 0, LENGTH)), PieceError)] == [1]
    assert not it.only(it.tell(ev.PieceSent(takers[1], 0)), fx.SendPiece)


def test_when_nobody_knows_which_pieces_are_wrong_those_of_origins_are_kept_the_first_time(lab: Make) -> None:
    it = lab(pieces=3)
    it.add()
    agent, _ = it.accept(1, 0b100)
    it.deliver(agent, 2)
    origin = it.only(it.offer(it.peer(9, origin=True)), fx.Dial)[0].conn
    it.tell(ev.DialSucceeded(origin))
    it.tell(ev.HandshakeReceived(origin, it.handshake(9, 0b111)))

    def deliver() -> None:
        while not it.only(it.seen, fx.VerifyBlob):
            for piece in list(it.engine._desk.conns[origin].asked):
                it.deliver(origin, piece)
            it.wait(0.1)
        it.seen.clear()

    deliver()
    effects = it.tell(ev.BlobCorrupt(it.torrent))
    assert it.only(effects, fx.DropPieces)[0].pieces == Bitfield.of(3, [2])
    assert [ban.peer for ban in it.only(effects, fx.Ban)] == [it.id(1)]
    deliver()
    effects = it.tell(ev.BlobCorrupt(it.torrent, Bitfield(3)))  # all fit their strong sums: those are wrong then
    assert it.only(effects, fx.DropPieces)[0].pieces == Bitfield.full(3)
