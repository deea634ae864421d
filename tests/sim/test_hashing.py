"""The modelled sha256 of a blob that arrives."""

from __future__ import annotations

from attrs import evolve

from krakentx.sim.faults import Faults
from krakentx.sim.hashing import PrefixHash
from krakentx.sim.scenario import Scenario, run, some_blob

_META = some_blob(0, 40, 10)


def test_it_hashes_on_while_there_is_no_gap() -> None:
    hash_ = PrefixHash(rate=10.0)
    hash_.extend({0}, _META, now=5.0)
    assert hash_.left_s(5.0) == 1.0
    hash_.extend({0, 1}, _META, now=5.5)
    assert hash_.left_s(5.5) == 1.5
    assert hash_.left_s(100.0) == 0.0


def test_what_lies_behind_the_last_gap_is_left_for_the_end() -> None:
    hash_ = PrefixHash(rate=10.0)
    hash_.extend({1, 2, 3}, _META, now=0.0)
    assert hash_.left_s(0.0) == 0.0
    hash_.extend({0, 1, 2, 3}, _META, now=9.0)
    assert hash_.left_s(9.0) == 4.0


def test_a_swarm_whose_hosts_hash_takes_longer_by_a_part_of_one_hash() -> None:
    at_once = Scenario(
        hosts=6,
        origins=1,
        trackers=1,
        blobs=1,
        blob_size=64 << 20,
        rate=32 << 20,
        piece_length=1 << 20,
        racks=0,
        uplink=1.0,
        latency_s=0.0005,
        arrival_s=0.0,
        seed=1,
        policy="ours",
        faults=Faults(),
    )
    hashing = evolve(at_once, hash_rate=128 << 20)  # half a second for all of it
    late = run(hashing).took[-1] - run(at_once).took[-1]
    assert 0 < late <= 0.5 + 0.001
