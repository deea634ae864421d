"""The peers in memory, on numbers for time."""

from __future__ import annotations

import random

from attrs import evolve

from krakentx.core.peer import InfoHash, PeerID, PeerInfo
from krakentx.tracker.config import LocalStoreConfig
from krakentx.tracker.peers import PeerMemory

HASH = InfoHash(b"h" * 20)


def peer(number: int, *, complete: bool = False) -> PeerInfo:
    return PeerInfo(PeerID(number.to_bytes(20, "big")), f"10.0.0.{number}", 16001, complete=complete)


def names(memory: PeerMemory, now: float, limit: int = 50, asking: int = 0) -> set[int]:
    return {int.from_bytes(p.peer_id, "big") for p in memory.sample(HASH, limit, peer(asking).peer_id, now)}


def test_names_everybody_but_the_one_who_asks(rng: random.Random) -> None:
    memory = PeerMemory(LocalStoreConfig(), rng)
    for number in range(1, 6):
        memory.announce(HASH, peer(number), 0.0)
    assert names(memory, 1.0, asking=3) == {1, 2, 4, 5}
    assert names(memory, 1.0, asking=9) == {1, 2, 3, 4, 5}
    assert memory.sample(InfoHash(b"o" * 20), 50, peer(1).peer_id, 1.0) == []


def test_samples_are_random_and_without_repeats(rng: random.Random) -> None:
    memory = PeerMemory(LocalStoreConfig(), rng)
    for number in range(1, 201):
        memory.announce(HASH, peer(number % 200 + 1), 0.0)
    seen = [len(names(memory, 1.0, limit=20)) for _ in range(50)]
    assert seen == [20] * 50
    union = set().union(*(names(memory, 1.0, limit=20) for _ in range(100)))
    assert len(union) > 190


def test_a_promise_that_is_not_kept_ends_a_peer(rng: random.Random) -> None:
    memory = PeerMemory(LocalStoreConfig(), rng)
    memory.announce(HASH, peer(1), 0.0, again_s=3.0)
    assert names(memory, 10.9) == {1}
    assert names(memory, 11.0) == set()
    memory.announce(HASH, peer(1), 12.0, again_s=3.0)
    assert names(memory, 12.0) == {1}


def test_without_a_promise_complete_peers_are_kept_for_hours_and_others_for_minutes(rng: random.Random) -> None:
    memory = PeerMemory(LocalStoreConfig(), rng)
    memory.announce(HASH, peer(1, complete=True), 0.0)
    memory.announce(HASH, peer(2), 0.0)
    assert names(memory, 299.0) == {1, 2}
    assert names(memory, 301.0) == {1}
    assert names(memory, 5 * 3600.0) == set()


def test_one_peer_counts_once_and_its_last_word_holds(rng: random.Random) -> None:
    memory = PeerMemory(LocalStoreConfig(), rng)
    memory.announce(HASH, peer(1), 0.0)
    memory.announce(HASH, peer(1, complete=True), 1.0)
    assert memory.count == 1
    assert [p.complete for p in memory.sample(HASH, 50, peer(0).peer_id, 2.0)] == [True]


def test_a_peer_cannot_report_itself_or_twice(rng: random.Random) -> None:
    memory = PeerMemory(LocalStoreConfig(), rng)
    for number in (1, 2, 3):
        memory.announce(HASH, peer(number), 0.0)
    for _ in range(3):
        memory.report(HASH, [peer(1).peer_id], peer(1).peer_id, 20.0)
        memory.report(HASH, [peer(1).peer_id], peer(2).peer_id, 20.0)
    assert names(memory, 21.0) == {1, 2, 3}
    assert names(memory, 21.0, asking=2) == {3}  # it could not reach 1
    memory.report(HASH, [peer(1).peer_id], peer(3).peer_id, 20.0)
    assert names(memory, 21.0) == {2, 3}
    assert memory.known(HASH, peer(1).peer_id, 21.0).gone
    assert names(memory, 81.0) == {1, 2, 3}  # nobody said it again


def test_who_cannot_reach_the_living_is_not_believed(rng: random.Random) -> None:
    memory = PeerMemory(LocalStoreConfig(), rng)
    for number in (1, 2, 3):
        memory.announce(HASH, peer(number), 20.0 if number < 3 else 0.0)
    for reporter in (8, 9):
        memory.report(HASH, [peer(n).peer_id for n in (1, 2, 3)], peer(reporter).peer_id, 25.0)
    assert names(memory, 26.0) == {1, 2, 3}


def test_sweeping_frees_what_is_long_silent(rng: random.Random) -> None:
    memory = PeerMemory(LocalStoreConfig(), rng, remember_s=100.0)
    hashes = [InfoHash(bytes([n]) * 20) for n in range(10)]
    for info_hash in hashes:
        memory.announce(info_hash, peer(1), 0.0, again_s=10.0)
    memory.announce(hashes[0], peer(2), 100.0, again_s=10.0)
    memory.sweep(110.0, 100)
    assert (memory.torrents, memory.count) == (10, 11)  # silent, yet remembered
    for _ in range(4):
        memory.sweep(130.0, 3)
    assert (memory.torrents, memory.count) == (1, 1)


def test_is_bounded(rng: random.Random) -> None:
    memory = PeerMemory(LocalStoreConfig(max_peers=100, max_torrent_peers=30), rng)
    for number in range(1, 50):
        memory.announce(HASH, peer(number), 0.0)
    assert memory.count == 30
    for n in range(200):
        memory.announce(InfoHash(bytes([n]) * 20), peer(1), 1.0)
    assert memory.count <= 100


def zoned(number: int, zone: str) -> PeerInfo:
    return evolve(peer(number), zone=zone)


def zones_of(memory: PeerMemory, now: float, zone: str) -> list[int]:
    """Of a sample for somebody in a zone: how many stand there, and how many elsewhere."""
    sample = memory.sample(HASH, 50, peer(0).peer_id, now, zone)
    assert len({one.peer_id for one in sample}) == len(sample)
    near = sum(one.zone == zone for one in sample)
    return [near, len(sample) - near]


def test_neighbours_come_first_and_leave_room_for_others(rng: random.Random) -> None:
    memory = PeerMemory(LocalStoreConfig(), rng)
    for number in range(1, 201):
        memory.announce(HASH, zoned(number, f"rack{number % 2}" if number > 20 else "small"), 0.0, again_s=60.0)
    near, far = zones_of(memory, 1.0, "rack1")
    assert near >= 40
    assert near + far == 50
    assert far > 0
    assert zones_of(memory, 1.0, "small") == [20, 30]
    assert zones_of(memory, 1.0, "other") == [0, 50]


def test_who_moves_to_another_zone_or_falls_silent_leaves_the_old_one(rng: random.Random) -> None:
    memory = PeerMemory(LocalStoreConfig(), rng)
    for number in range(1, 5):
        memory.announce(HASH, zoned(number, "a"), 0.0, again_s=60.0 if number > 1 else 3.0)
    memory.announce(HASH, zoned(4, "b"), 1.0, again_s=60.0)
    assert zones_of(memory, 2.0, "a") == [3, 1]
    assert zones_of(memory, 2.0, "b") == [1, 3]
    assert zones_of(memory, 20.0, "a") == [2, 1]
    memory.sweep(20.0, 10)
    assert zones_of(memory, 20.0, "a") == [2, 1]
    memory.announce(HASH, zoned(1, ""), 21.0)
    assert zones_of(memory, 22.0, "b") == [1, 3]
