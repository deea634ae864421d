"""Who is connected: dials, handshakes, slots, bans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

from krakentx.core.bitfield import Bitfield
from krakentx.core.digest import Digest
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import InfoHash
from krakentx.swarm import effects as fx
from krakentx.swarm import events as ev
from krakentx.swarm.config import AnnounceConfig, ConnStateConfig, SwarmConfig
from krakentx.swarm.events import Lost
from krakentx.wire.messages import AnnouncePiece, Complete, Handshake, PieceRequest
from tests.swarm.conftest import LENGTH

FULL = (1 << 10) - 1
Make = Callable[..., Any]


def dials(lab: Any, effects: list[fx.Effect]) -> list[int]:
    return [int.from_bytes(dial.peer.peer_id, "big") for dial in lab.only(effects, fx.Dial)]


def test_announces_dials_and_speaks_first(lab: Make) -> None:
    it = lab()
    assert it.only(it.add(), fx.Announce) == [fx.Announce(it.torrent, complete=False)]
    effects = it.offer(it.peer(1), it.peer(100))
    assert dials(it, effects) == [1], "never ourselves"
    dial = it.only(effects, fx.Dial)[0]
    hello = it.sent(it.tell(ev.DialSucceeded(dial.conn)), Handshake)[0]
    assert (hello.peer_id, hello.namespace, len(hello.bitfield)) == (it.id(100), "ns", 0)
    effects = it.tell(ev.HandshakeReceived(dial.conn, it.handshake(1, FULL)))
    assert len(it.asked(effects)) == 2


def test_an_acceptor_answers_without_namespace_and_names_its_neighbours(lab: Make) -> None:
    it = lab()
    it.add(FULL, wanted=False)
    it.accept(1)
    _, effects = it.accept(2)
    reply = it.sent(effects, Handshake)[0]
    assert reply.namespace == ""
    assert reply.neighbours == {it.id(1)}
    assert reply.bitfield.complete


def test_slots_are_kept_for_incoming_connections(lab: Make) -> None:
    it = lab(config=SwarmConfig(connstate=ConnStateConfig(max_open_conn=6, max_dialled_conn=3)))
    it.add()
    effects = it.offer(*(it.peer(n) for n in range(1, 30)))
    assert len(dials(it, effects)) == 3
    accepted = [n for n in range(40, 50) if it.sent(it.accept(n)[1], Handshake)]
    assert len(accepted) == 3


def test_who_is_dialled_by_few_dials_more_after_a_moment(lab: Make) -> None:
    it = lab(config=SwarmConfig(connstate=ConnStateConfig(max_open_conn=32, max_dialled_conn=4)))
    it.add()
    it.offer(*(it.peer(n) for n in range(1, 30)))
    assert len(dials(it, it.wait(0.4))) == 0
    assert len(dials(it, it.wait(0.7))) == 4


def test_a_seeder_gives_all_slots_to_incoming_ones_and_turns_the_rest_away(lab: Make) -> None:
    it = lab(config=SwarmConfig(connstate=ConnStateConfig(max_open_conn=4)), dials=False)
    it.add(FULL, wanted=False)
    accepted = [bool(it.sent(it.accept(n)[1], Handshake)) for n in range(1, 7)]
    assert accepted == [True] * 4 + [False] * 2


def test_one_who_took_nothing_gives_way_when_a_seeder_is_full(lab: Make) -> None:
    it = lab(config=SwarmConfig(connstate=ConnStateConfig(max_open_conn=2)), dials=False)
    it.add(FULL, wanted=False)
    idle, _ = it.accept(1)
    busy, _ = it.accept(2)
    it.wait(2.0)
    it.say(busy, PieceRequest(0, 0, it.meta.piece_length))
    it.wait(2.0)
    _, effects = it.accept(3)
    assert it.only(effects, fx.Close)[0].conn == idle
    assert it.sent(effects, Handshake)


def test_a_refusal_is_followed_by_the_next_candidate_at_once(lab: Make) -> None:
    it = lab(config=SwarmConfig(connstate=ConnStateConfig(max_dialled_conn=1)))
    it.add()
    effects = it.offer(it.peer(1), it.peer(2), it.peer(3))
    tried = dials(it, effects)
    for _ in range(2):
        conn = it.only(effects, fx.Dial)[0].conn
        it.tell(ev.DialSucceeded(conn))
        effects = it.lose(conn, Lost.CLEAN)
        tried += dials(it, effects)
        assert not it.only(effects, fx.Ban)
    assert sorted(tried) == [1, 2, 3]
    it.lose(it.only(effects, fx.Dial)[0].conn, Lost.CLEAN)
    assert dials(it, it.wait(1.9)) == []
    assert dials(it, it.wait(0.7)) != [], "a refusal is forgotten after two seconds"


def test_a_dial_that_is_never_answered_frees_its_slot(lab: Make) -> None:
    it = lab(config=SwarmConfig(connstate=ConnStateConfig(max_dialled_conn=1)))
    it.add()
    first = dials(it, it.offer(it.peer(1), it.peer(2)))
    second = dials(it, it.wait(4.5))
    assert sorted(first + second) == [1, 2]


@pytest.mark.parametrize("dialler_first", [True, False])
def test_of_two_dials_that_cross_the_one_of_the_smaller_id_lives(lab: Make, dialler_first: bool) -> None:
    it = lab()  # our id is 100
    it.add()
    dial = it.only(it.offer(it.peer(150)), fx.Dial)[0]
    if dialler_first:
        it.tell(ev.DialSucceeded(dial.conn))
    _, effects = it.accept(150)
    assert [close.reason for close in it.only(effects, fx.Close)] == ["already connected"], "ours lives"
    it = lab()
    it.add()
    dial = it.only(it.offer(it.peer(50)), fx.Dial)[0]
    if dialler_first:
        it.tell(ev.DialSucceeded(dial.conn))
    conn, effects = it.accept(50)
    assert [close.conn for close in it.only(effects, fx.Close)] == [dial.conn], "theirs lives"
    assert it.sent(effects, Handshake, conn)
    assert it.engine.stats(it.torrent).connections == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"peer_id": 100}, "ourselves"),
        ({"info_hash": InfoHash(b"x" * 20)}, "no such torrent"),
        ({"digest": Digest.of(b"other")}, "expected"),
        ({"pieces": 11}, "bits for"),
        ({"pieces": 0}, "bits for"),
    ],
)
def test_a_handshake_that_does_not_fit_closes_that_connection_only(
    lab: Make, change: dict[str, Any], reason: str
) -> None:
    it = lab()
    it.add()
    handshake = it.handshake(1, pieces=change.pop("pieces", None))
    if "peer_id" in change:
        change["peer_id"] = it.id(change["peer_id"])
    conn = it.engine.new_conn()
    effects = it.tell(ev.HandshakeReceived(conn, evolve(handshake, **change)))
    close = it.only(effects, fx.Close)
    assert [c.conn for c in close] == [conn]
    assert reason in close[0].reason
    assert not it.only(effects, fx.Ban), "the id is only claimed"
    assert it.engine.load()["handshakes"] == 0


def test_another_peer_at_a_dialled_address_is_not_taken(lab: Make) -> None:
    it = lab()
    it.add()
    dial = it.only(it.offer(it.peer(1)), fx.Dial)[0]
    it.tell(ev.DialSucceeded(dial.conn))
    effects = it.tell(ev.HandshakeReceived(dial.conn, it.handshake(2, FULL)))
    assert it.only(effects, fx.Close)
    assert it.engine.blacklist(it.now) == []


def test_corrupt_data_bans_with_growing_time_and_both_directions(lab: Make) -> None:
    it = lab()
    it.add()
    lengths = []
    for _ in range(3):
        conn, effects = it.accept(1, FULL)
        piece = it.asked(effects)[0]
        effects = it.deliver(conn, piece, good=False)
        assert it.only(effects, fx.Close)[0].conn == conn
        lengths.append(it.only(effects, fx.Ban)[0].until - it.now)
        assert not it.sent(it.accept(1, FULL)[1], Handshake)
        it.wait(lengths[-1] + 0.1)
    assert lengths == pytest.approx([30.0, 60.0, 120.0])


@pytest.mark.parametrize(
    ("reason", "banned"), [(Lost.CLEAN, 0), (Lost.RESET, 0), (Lost.TIMEOUT, 0), (Lost.PROTOCOL, 1)]
)
def test_only_a_broken_protocol_blacklists(lab: Make, reason: Lost, banned: int) -> None:
    it = lab()
    it.add()
    conn, _ = it.accept(1, FULL)
    it.lose(conn, reason)
    assert len(it.engine.blacklist(it.now)) == banned
    assert it.engine.load()["requests"] == 0


def test_two_complete_peers_part_cleanly(lab: Make) -> None:
    it = lab()
    it.add(FULL, wanted=False)
    _, effects = it.accept(1, FULL)
    assert it.only(effects, fx.Close)
    conn, _ = it.accept(2, 1)
    effects = it.say(conn, Complete())
    assert it.only(effects, fx.Close)[0].conn == conn
    assert it.engine.blacklist(it.now) == []


def test_an_announce_beyond_the_last_piece_bans(lab: Make) -> None:
    it = lab()
    it.add()
    conn, _ = it.accept(1)
    effects = it.say(conn, AnnouncePiece(10))
    assert it.only(effects, fx.Ban)


def test_idle_and_old_connections_are_closed_without_blame(lab: Make) -> None:
    it = lab(config=SwarmConfig(conn_tti_s=5.0))
    it.add(FULL, wanted=False)
    conn, _ = it.accept(1)
    closes = it.only(it.wait(9.0), fx.Close)
    assert [close.conn for close in closes] == [conn]
    assert it.engine.load()["connections"] == 0


def test_each_torrent_announces_by_its_own_timer_and_early_with_too_few_peers(lab: Make) -> None:
    it = lab()
    it.add()
    it.offer()
    assert len(it.only(it.wait(0.7), fx.Announce)) == 1
    it.tell(ev.AnnounceFailed(it.torrent))
    assert len(it.only(it.wait(2.5), fx.Announce)) == 1


def test_a_seeder_keeps_announcing(lab: Make) -> None:
    config = SwarmConfig(announce=AnnounceConfig(seeder_interval_s=2.0))
    it = lab(config=config)
    assert it.only(it.add(FULL, wanted=False), fx.Announce) == [fx.Announce(it.torrent, complete=True)]
    for _ in range(3):
        it.offer()
        assert it.only(it.wait(2.3), fx.Announce) == [fx.Announce(it.torrent, complete=True)]


def test_seeders_of_one_host_come_to_announce_together(lab: Make) -> None:
    """200 torrents from 200 moments: within a few intervals one request tells a tracker of all."""
    it = lab(1, config=SwarmConfig(disable_preemption=True))
    metas = [MetaInfo(Digest.of(bytes([number])), LENGTH, LENGTH, (0,)) for number in range(200)]
    moments: list[float] = []
    announces: Counter[InfoHash] = Counter()

    def tell(event: ev.Event) -> None:
        told = it.only(it.tell(event), fx.Announce)
        if told:
            moments.append(it.now)
        for each in told:
            announces[each.torrent] += 1
            it.tell(ev.PeersOffered(each.torrent, (), 3.0))

    for meta in metas:
        it.now += 1.5
        tell(ev.TorrentAdded(meta, Bitfield(1, 1), "ns", False))
    began = it.now
    while it.now < began + 3600.0:
        it.now += 0.5
        tell(ev.Tick(0))
    late = [moment for moment in moments if moment > began + 1800.0]
    assert len(late) <= 14, "more than about two moments in an interval of 300 s"
    assert min(announces.values()) >= 11, "each is announced at least as often as before"
    assert announces.total() < 200 * 13 * 1.5, "announces that go early make more of them, but not many"


def test_an_origin_neither_dials_nor_announces(lab: Make) -> None:
    it = lab(dials=False)
    effects = it.add(FULL, wanted=False) + it.offer(it.peer(1)) + it.wait(10.0)
    assert not it.only(effects, fx.Announce)
    assert not it.only(effects, fx.Dial)
