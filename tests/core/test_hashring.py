"""Rendezvous hashing."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krakentx.core import hashring
from krakentx.core.digest import Digest
from krakentx.core.hashring import locations, ranked, score

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "hashring.json").read_text())
DIGEST = Digest.parse(VECTORS[0]["digest"])
HOSTS = [vector["host"] for vector in VECTORS]
hosts = st.lists(st.integers(1, 30).map("origin-{}:15002".format), max_size=8)
digests = st.binary(max_size=8).map(Digest.of)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["host"])
def test_scores_are_those_of_the_reference(vector: dict[str, Any], record_property: Any) -> None:
    assert score(Digest.parse(vector["digest"]).shard, vector["host"]) == pytest.approx(vector["score"], abs=1e-6)
    record_property("vectors", "hashring")


def test_hosts_are_ranked_by_score() -> None:
    assert ranked(DIGEST, reversed(HOSTS)) == HOSTS


@given(digests, hosts, st.randoms())
def test_neither_order_nor_repeats_matter(digest: Digest, members: list[str], rng: random.Random) -> None:
    shuffled = members * 2
    rng.shuffle(shuffled)
    assert ranked(digest, shuffled) == ranked(digest, members)
    assert sorted(ranked(digest, members)) == sorted(set(members))


@given(digests, hosts.filter(bool), st.data())
def test_losing_a_host_moves_no_other(digest: Digest, members: list[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(members))
    rest = [host for host in members if host != gone]
    assert ranked(digest, rest) == [host for host in ranked(digest, members) if host != gone]


def test_blobs_spread_evenly() -> None:
    firsts = Counter(ranked(Digest.of(str(n).encode()), HOSTS)[0] for n in range(3000))
    assert all(800 < count < 1200 for count in firsts.values())


def test_owners_are_the_healthy_ones_among_the_first() -> None:
    order = ranked(DIGEST, HOSTS)
    assert locations(DIGEST, HOSTS, 2) == order[:2]
    assert locations(DIGEST, HOSTS, 2, lambda host: host != order[0]) == [order[1]]
    assert locations(DIGEST, HOSTS, 2, lambda host: host == order[2]) == [order[2]]
    assert locations(DIGEST, HOSTS, 1, lambda host: host != order[0]) == [order[1]], "only one more, not all"
    assert locations(DIGEST, HOSTS, 2, lambda host: False) == [order[0]], "asking it is better than giving up"
    assert locations(DIGEST, [], 2) == []


def test_a_hash_without_low_bits_is_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def fake(data: bytes) -> int:
        seen.append(data)
        return 5 << 53 if len(seen) == 1 else 1 << 52

    monkeypatch.setattr(hashring, "_hash", fake)
    assert score("84d8", "a:1") == pytest.approx(144.269504)  # -100 / ln(1/2)
    assert seen[1] == (5 << 53).to_bytes(8, "big")
