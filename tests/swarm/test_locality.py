"""Racks: what crosses an uplink, who asks for it, and what happens when the neighbours give nothing."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from krakentx.core.peer import PeerID, PeerInfo
from krakentx.swarm import effects as fx
from krakentx.swarm import events as ev
from krakentx.swarm.config import ConnStateConfig, SwarmConfig, UploadConfig
from krakentx.swarm.events import ConnID
from krakentx.swarm.locality import RackShare
from krakentx.wire.messages import AnnouncePiece, PieceRequest
from tests.swarm.conftest import LENGTH, Lab

Make = Callable[..., Lab]
FULL = (1 << 20) - 1


def ids(count: int) -> list[PeerID]:
    rng = Random(count)
    return [PeerID(rng.randbytes(20)) for _ in range(count)]


@given(st.integers(1, 3000), st.integers(1, 30))
def test_those_who_know_each_other_divide_all_pieces(pieces: int, count: int) -> None:
    members = ids(count)
    together = 0
    for me in members:
        mine = RackShare(pieces, me).divide(other for other in members if other != me)
        assert not together & mine
        together |= mine
    assert together == (1 << pieces) - 1


@given(st.integers(1, 200), st.integers(2, 20), st.randoms(use_true_random=False))
def test_who_knows_few_takes_more_and_no_piece_is_nobodys(pieces: int, count: int, rng: Random) -> None:
    members = ids(count)
    together = 0
    for me in members:
        others = [other for other in members if other != me]
        known = rng.sample(others, rng.randrange(count))
        mine = RackShare(pieces, me).divide(known)
        assert mine & RackShare(pieces, me).divide(others) == RackShare(pieces, me).divide(others)
        together |= mine
    assert together == (1 << pieces) - 1


def test_shares_are_about_even_and_follow_who_comes_and_goes() -> None:
    members = ids(26)
    me, *others = members
    share = RackShare(1000, me)
    for known in range(26):
        assert share.divide(others[:known]) == RackShare(1000, me).divide(others[:known])
    assert 10 < share.mask.bit_count() < 100
    assert share.divide(others[5:]) == RackShare(1000, me).divide(others[5:])
    assert share.divide([]) == (1 << 1000) - 1
    assert RackShare(0, me).divide(others) == 0


@pytest.fixture
def racked(lab: Make) -> Lab:
    it = lab(20, zone="here")
    it.add()
    return it


def joined(it: Lab, number: int, have: int, zone: str) -> tuple[ConnID, list[fx.Effect]]:
    conn = it.engine.new_conn()
    return conn, it.tell(ev.HandshakeReceived(conn, evolve(it.handshake(number, have), zone=zone)))


def test_another_zone_is_asked_for_our_share_of_what_ours_lacks_one_piece_at_a_time(racked: Lab) -> None:
    it = racked
    for number in (1, 2, 3):
        joined(it, number, 0b11111, "here")
    far, effects = joined(it, 9, FULL, "there")
    others = [it.id(number) for number in (1, 2, 3)]
    ours = RackShare(20, it.id(100)).divide(others) & ~0b11111
    got = []
    while asked := it.asked(effects, far):
        assert len(asked) == 1
        got += asked
        effects = it.deliver(far, asked[0])
    assert sorted(got) == [piece for piece in range(20) if ours >> piece & 1]


def test_without_a_zone_of_ours_nobody_is_far(lab: Make) -> None:
    it = lab(20)
    it.add()
    joined(it, 1, 0b11111, "here")
    far, effects = joined(it, 9, FULL, "there")
    assert len(it.asked(effects, far)) == 2


def test_alone_in_a_zone_everything_comes_from_others(racked: Lab) -> None:
    it = racked
    asked = []
    for number in range(3):
        far, effects = joined(it, number, FULL, "")
        asked += it.asked(effects, far)
    assert len(asked) == 4


def test_neighbours_that_give_nothing_are_trusted_for_a_second(racked: Lab) -> None:
    it = racked
    joined(it, 1, FULL, "here")
    far, effects = joined(it, 9, FULL, "there")
    assert it.asked(effects, far) == []
    assert it.asked(it.wait(0.9), far) == []
    assert len(it.asked(it.wait(0.3), far)) == 2


def test_a_neighbour_that_gives_keeps_the_uplink_free(racked: Lab) -> None:
    it = racked
    near, effects = joined(it, 1, FULL, "here")
    far, _ = joined(it, 9, FULL, "there")
    for _ in range(5):
        (piece, *_rest) = it.asked(effects, near) or [None]
        assert piece is not None
        effects = it.wait(0.5)
        assert it.asked(effects, far) == []
        effects = it.deliver(near, piece)


def test_one_far_peer_that_says_nothing_holds_the_uplink_for_a_second(racked: Lab) -> None:
    it = racked
    for number in (1, 2, 3):
        joined(it, number, 0, "here")
    mute, effects = joined(it, 8, FULL, "there")
    assert len(it.asked(effects, mute)) == 1
    far, effects = joined(it, 9, FULL, "elsewhere")
    assert it.asked(effects, far) == []
    assert it.asked(it.wait(1.2), far)


def test_what_no_neighbour_brings_comes_from_an_origin_after_a_while(racked: Lab) -> None:
    """Full size, 40 racks: two pieces belonged to nobody with a connection to an origin, and all waited for them."""
    it = racked
    near = [joined(it, number, 0, "here")[0] for number in (1, 2, 3)]
    ours = RackShare(20, it.id(100)).divide(it.id(number) for number in (1, 2, 3))
    theirs = [piece for piece in range(20) if not ours >> piece & 1]
    (dial,) = it.only(it.offer(it.peer(9, origin=True, complete=True)), fx.Dial)
    it.tell(ev.DialSucceeded(dial.conn))
    it.tell(ev.HandshakeReceived(dial.conn, it.handshake(9, FULL)))
    while mine := it.asked(it.seen, dial.conn):
        it.seen.clear()
        assert ours >> mine[0] & 1
        it.deliver(dial.conn, mine[0])
        it.wait(0.1)
    assert not it.engine._desk.torrents[it.torrent].missing & ours

    def brought() -> list[int]:
        """What the origin is asked for within half a second, in which a neighbour brings another piece."""
        it.seen.clear()
        it.say(near[0], AnnouncePiece(piece := theirs.pop()))
        it.deliver(near[0], piece)
        it.wait(0.5)
        return it.asked(it.seen, dial.conn)

    assert [brought() for _ in range(3)] == [[], [], []]
    asked = brought()
    assert len(asked) == 1, "one, although its line is idle"
    assert asked[0] in theirs
    it.deliver(dial.conn, asked[0])
    theirs.remove(asked[0])
    it.wait(0.1)
    assert [brought() for _ in range(3)] == [[], [], []]
    assert len(brought()) == 1


def test_one_dial_in_four_goes_to_another_zone(racked: Lab) -> None:
    it = racked
    peers = [evolve(it.peer(number), zone="here" if number <= 30 else "there") for number in range(1, 61)]
    dials = it.only(it.offer(*peers), fx.Dial)
    assert len(dials) == 8
    assert sum(dial.peer.zone == "there" for dial in dials) == 2


def test_who_finds_few_in_its_zone_dials_others(racked: Lab) -> None:
    it = racked
    near: list[PeerInfo] = [evolve(it.peer(1), zone="here")]
    dials = it.only(it.offer(*near, *(it.peer(number) for number in range(2, 30))), fx.Dial)
    assert len(dials) == 8
    assert "here" in {dial.peer.zone for dial in dials}


def test_peers_are_told_our_zone(racked: Lab) -> None:
    _, effects = racked.accept(1)
    (hello,) = racked.sent(effects, type(racked.handshake(1)))
    assert hello.zone == "here"


def test_who_came_first_and_filled_up_with_far_peers_swaps_them_for_near_ones(lab: Make) -> None:
    it = lab(20, zone="here", config=SwarmConfig(connstate=ConnStateConfig(max_open_conn=12, max_dialled_conn=3)))
    it.add()
    for number in range(1, 10):
        joined(it, number, 0, "there")
    far = {conn.id for conn in it.engine._desk.conns.values()}
    assert len(far) == 9

    def dialled(peers: list[PeerInfo]) -> tuple[list[str], set[ConnID]]:
        """Whom it dials for them, and which far connections it ends."""
        it.seen.clear()
        it.offer(*peers)
        it.wait(0.6)
        return [dial.peer.zone for dial in it.only(it.seen, fx.Dial)], far & {
            close.conn for close in it.only(it.seen, fx.Close)
        }

    assert dialled([evolve(it.peer(number), zone="there") for number in range(20, 40)]) == (["there"] * 3, set())
    zones, ended = dialled([evolve(it.peer(number), zone="here") for number in range(40, 60)])
    assert zones == ["here"] * 2, "six are wanted: three are being dialled, and far ones count for a quarter"
    assert len(ended) == 2
    assert len(it.engine._desk.conns) == 12
    it.seen.clear()
    it.wait(2.0)
    assert not far & {close.conn for close in it.only(it.seen, fx.Close)}, "as many as are wanted, and no more"


def test_who_feeds_another_zone_is_served_before_our_own(lab: Make) -> None:
    it = lab(20, zone="here", config=SwarmConfig(upload=UploadConfig(slots=1, max_slots=1)))
    it.add(0b1111)
    first, second, across = (joined(it, n, 0, zone)[0] for n, zone in ((1, "here"), (2, "here"), (3, "there")))
    for conn in (first, second, across):
        for piece in range(3):
            it.say(conn, PieceRequest(piece, 0, LENGTH))
    served = []
    for _ in range(9):
        leaving = it.only(it.seen, fx.SendPiece)[-1]
        served.append(leaving.conn)
        it.tell(ev.PieceSent(leaving.conn, leaving.index))
    assert served[0] == first, "nobody else was there"
    assert served[1:5].count(across) == 3, "in turn it would be one or two"
    assert set(served) == {first, second, across}
