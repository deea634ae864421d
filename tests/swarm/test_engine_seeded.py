"""An origin rests while an agent that has everything gives it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from krakentx.swarm import effects as fx
from krakentx.swarm import events as ev
from krakentx.swarm.config import DispatchConfig, SwarmConfig
from krakentx.swarm.events import ConnID, Lost, ReaderID
from tests.swarm.conftest import Lab

Make = Callable[..., Lab]
ALL = (1 << 10) - 1


def _dialled(it: Lab, *peers: tuple[int, bool]) -> dict[int, ConnID]:
    """Offer complete peers as (number, origin); the connections under way."""
    offered = [it.peer(number, origin=origin, complete=True) for number, origin in peers]
    dials = it.only(it.offer(*offered), fx.Dial)
    return {int.from_bytes(dial.peer.peer_id, "big"): dial.conn for dial in dials}


def _answers(it: Lab, conn: ConnID, number: int) -> list[fx.Effect]:
    it.tell(ev.DialSucceeded(conn))
    return it.tell(ev.HandshakeReceived(conn, it.handshake(number, ALL)))


@pytest.mark.parametrize("reading", [False, True], ids=["download", "reader"])
def test_the_second_host_costs_the_origin_nothing(lab: Make, reading: bool) -> None:
    it = lab()
    it.add()
    if reading:
        it.tell(ev.ReaderWants(it.torrent, ReaderID(1), 0, 10))
    conns = _dialled(it, (1, False), (2, True))
    assert it.asked(_answers(it, conns[2], 2)) == [], "the agent is being dialled"
    effects = _answers(it, conns[1], 1)
    while pieces := it.asked(effects, conns[1]):
        assert it.asked(effects, conns[2]) == []
        effects = [effect for piece in pieces for effect in it.deliver(conns[1], piece)]
        it.wait(0.1)
    assert it.only(it.seen, fx.VerifyBlob)


def test_an_agent_that_does_not_answer_its_dial_is_waited_for_a_moment_only(lab: Make) -> None:
    it = lab()
    it.add()
    conns = _dialled(it, (1, False), (2, True))
    assert it.asked(_answers(it, conns[2], 2)) == []
    assert it.asked(it.wait(0.15), conns[2])


def test_an_agent_that_is_refused_is_not_waited_for(lab: Make) -> None:
    it = lab()
    it.add()
    conns = _dialled(it, (1, False), (2, True))
    _answers(it, conns[2], 2)
    assert it.asked(it.lose(conns[1], Lost.REFUSED), conns[2])


def test_a_slow_agent_gets_help(lab: Make) -> None:
    it = lab()
    it.add()
    conns = _dialled(it, (1, False), (2, True))
    (first, *_) = it.asked(_answers(it, conns[1], 1))
    assert it.asked(_answers(it, conns[2], 2)) == []
    it.payload(conns[1], first)
    helped: list[fx.Effect] = []
    for _ in range(3):
        helped += it.wait(0.5)
        it.tell(ev.PieceProgress(conns[1]))
    assert it.asked(helped, conns[2])


def test_sparing_can_be_turned_off(lab: Make) -> None:
    it = lab(config=SwarmConfig(dispatch=DispatchConfig(spare_origins=False)))
    it.add()
    conns = _dialled(it, (1, False), (2, True))
    assert it.asked(_answers(it, conns[2], 2))
