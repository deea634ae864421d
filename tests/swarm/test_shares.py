"""How agents divide the pieces that only an origin has."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krakentx.core.peer import PeerID
from krakentx.swarm import effects as fx
from krakentx.swarm import events as ev
from krakentx.swarm.events import ConnID, ReaderID
from krakentx.swarm.shares import share
from tests.swarm.conftest import Lab


def ids(count: int, seed: int = 1) -> list[PeerID]:
    rng = Random(seed)
    return [PeerID(rng.randbytes(20)) for _ in range(count)]


@given(st.integers(0, 300), st.integers(1, 30))
def test_those_who_know_each_other_divide_all_pieces(pieces: int, count: int) -> None:
    agents = ids(count)
    shares = [share(pieces, me, (other for other in agents if other != me)) for me in agents]
    together = 0
    for mine in shares:
        assert not together & mine, "two agents have the same piece"
        together |= mine
    assert together == (1 << pieces) - 1
    sizes = [mine.bit_count() for mine in shares]
    assert max(sizes) - min(sizes) <= 1


def test_alone_all_pieces_are_ours() -> None:
    assert share(10, ids(1)[0], []) == (1 << 10) - 1


FULL = (1 << 9) - 1
Make = Callable[..., Lab]


@pytest.fixture
def three(lab: Make) -> tuple[Lab, ConnID, list[fx.Effect]]:
    """We are the last of three agents that have nothing; ours of the origin's nine pieces are 2, 5 and 8."""
    it = lab(9)
    it.add()
    for number in (1, 2):
        it.accept(number)
    dial = it.only(it.offer(it.peer(3, origin=True)), fx.Dial)[0]
    it.tell(ev.DialSucceeded(dial.conn))
    return it, dial.conn, it.tell(ev.HandshakeReceived(dial.conn, it.handshake(3, FULL)))


def test_an_origin_is_asked_for_our_share_first(three: tuple[Lab, ConnID, list[fx.Effect]]) -> None:
    it, origin, effects = three
    asked = it.asked(effects, origin)
    asked += it.asked(it.deliver(origin, asked[0]), origin)
    assert sorted(asked) == [2, 5, 8]
    # The others say nothing for a while: then it is asked for theirs as well, one at a time.
    rest = it.asked(it.deliver(origin, asked[1]) + it.deliver(origin, asked[2]), origin)
    assert rest == []
    rest = it.asked(it.wait(0.2), origin)
    assert len(rest) == 1
    assert rest[0] not in asked


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_each_of_several_origins_is_asked_for_its_share_first(lab: Make, rank: int) -> None:
    """No other agent is known, so all that this origin should bring is ours to ask for."""
    it = lab(9)
    it.add()
    number = (3, 5, 7)[rank]
    offers = it.offer(*(it.peer(origin, origin=True) for origin in (3, 5, 7)))
    conn = next(dial.conn for dial in it.only(offers, fx.Dial) if dial.peer.peer_id == it.id(number))
    it.tell(ev.DialSucceeded(conn))
    asked = it.asked(it.tell(ev.HandshakeReceived(conn, it.handshake(number, FULL))), conn)
    for turn in range(4):
        it.deliver(conn, asked[turn])
        it.wait(0.02)
        asked = it.asked(it.seen, conn)
    assert set(asked[:3]) == {rank, rank + 3, rank + 6}
    assert len(asked) > 3, "the others do not give theirs: then it is asked for those too"


def test_a_reader_waits_a_second_for_a_piece_that_is_not_ours(three: tuple[Lab, ConnID, list[fx.Effect]]) -> None:
    it, origin, effects = three
    it.tell(ev.ReaderWants(it.torrent, ReaderID(1), 0, 9))
    for piece in it.asked(effects, origin):
        assert 0 not in it.asked(it.deliver(origin, piece), origin)
    it.now += 1.1
    assert it.asked(it.deliver(origin, 2), origin) == [0]
