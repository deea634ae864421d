"""Bans, pauses, candidates."""

from __future__ import annotations

from random import Random

from krakentx.core.peer import InfoHash, PeerID, PeerInfo
from krakentx.swarm.config import ConnStateConfig
from krakentx.swarm.slots import MAX_ENTRIES, Blacklist, Candidates

TORRENT = InfoHash(b"t" * 20)
CONFIG = ConnStateConfig()


def peer(number: int, *, origin: bool = False, complete: bool = False) -> PeerInfo:
    return PeerInfo(PeerID(number.to_bytes(20, "big")), "10.0.0.1", 1000 + number, origin, complete)


ALICE = peer(1).peer_id


def test_bans_grow_and_end() -> None:
    blacklist = Blacklist()
    assert blacklist.ban(TORRENT, ALICE, 0.0, CONFIG) == 30.0
    assert blacklist.banned(TORRENT, ALICE, 29.9)
    assert not blacklist.banned(TORRENT, ALICE, 30.0)
    assert blacklist.ban(TORRENT, ALICE, 100.0, CONFIG) == 160.0
    assert blacklist.bans(130.0) == [(ALICE, TORRENT, 30.0)]
    assert blacklist.bans(160.0) == []
    for _ in range(20):
        until = blacklist.ban(TORRENT, ALICE, 200.0, CONFIG)
    assert until == 200.0 + CONFIG.max_blacklist_duration_s


def test_a_pause_keeps_from_dialling_but_is_no_ban() -> None:
    blacklist = Blacklist()
    blacklist.pause(TORRENT, ALICE, 2.0, 0.0)
    assert blacklist.shunned(TORRENT, ALICE, 1.0)
    assert not blacklist.banned(TORRENT, ALICE, 1.0)
    assert blacklist.bans(1.0) == []
    assert not blacklist.shunned(TORRENT, ALICE, 2.0)


def test_failed_dials_pause_longer_each_time_until_one_succeeds() -> None:
    blacklist = Blacklist()
    blacklist.dial_failed(TORRENT, ALICE, 0.0, CONFIG)
    assert not blacklist.shunned(TORRENT, ALICE, 5.0)
    blacklist.dial_failed(TORRENT, ALICE, 5.0, CONFIG)
    assert blacklist.shunned(TORRENT, ALICE, 14.9)
    blacklist.reached(TORRENT, ALICE)
    blacklist.dial_failed(TORRENT, ALICE, 20.0, CONFIG)
    assert not blacklist.shunned(TORRENT, ALICE, 25.0)


def test_bans_can_be_turned_off() -> None:
    blacklist = Blacklist()
    config = ConnStateConfig(disable_blacklist=True)
    assert blacklist.ban(TORRENT, ALICE, 7.0, config) == 7.0
    assert not blacklist.banned(TORRENT, ALICE, 7.0)


def test_memory_is_bounded_and_keeps_those_who_are_banned_longest() -> None:
    blacklist = Blacklist()
    blacklist.ban(TORRENT, ALICE, 0.0, CONFIG)
    for number in range(2, MAX_ENTRIES + 100):
        blacklist.pause(TORRENT, peer(number).peer_id, 1.0, 0.0)
    assert len(blacklist) <= MAX_ENTRIES
    assert blacklist.banned(TORRENT, ALICE, 1.0)


def test_candidates_are_bounded_and_the_oldest_go_first() -> None:
    candidates = Candidates()
    assert candidates.offer([peer(n) for n in range(1, 6)], 4) == 5
    assert candidates.offer([peer(2), peer(9)], 4) == 1
    assert len(candidates) == 4
    left = {candidates.choose((), lambda _: False, False, Random(n)) for n in range(50)}
    assert left == {peer(2), peer(4), peer(5), peer(9)}


def test_one_who_has_everything_is_dialled_first_but_not_required() -> None:
    candidates = Candidates()
    candidates.offer([peer(1), peer(2, origin=True, complete=True), peer(3)], 10)
    for n in range(10):
        assert candidates.choose((), lambda _: False, True, Random(n)) == peer(2, origin=True, complete=True)
    taken = {peer(2).peer_id}
    assert candidates.choose(taken, lambda _: False, True, Random(1)) in (peer(1), peer(3))
    assert candidates.choose((), lambda _: True, True, Random(1)) is None
