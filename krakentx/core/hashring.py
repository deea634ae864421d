"""Rendezvous hashing: digest -> hosts in order (docs/wire.md, "Choosing a tracker").

Every part of a cluster that knows the same hosts ranks them alike, so agents of one blob meet at one tracker and its
origins are found without asking anybody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import mmh3

from krakentx.core.digest import Digest

_WEIGHT = 100.0
_MASK = (1 << 53) - 1


def score(shard: str, host: str) -> float:
    """How much `host` is wanted for a shard; the highest wins.

    Args:
        shard: the four hex characters of `Digest.shard`.
        host: the label exactly as configured, `host:port`.
    """
    bits = _hash(bytes.fromhex(shard) + host.encode())
    while not bits & _MASK:  # the logarithm of zero is no score: hash once more
        bits = _hash(bits.to_bytes(8, "big"))
    return -_WEIGHT / math.log((bits & _MASK) / (1 << 53))


def _hash(data: bytes) -> int:
    """First half of the 128-bit MurmurHash3 for 64-bit machines, seed 0, unsigned."""
    return mmh3.hash64(data, 0, signed=False)[0]


def ranked(digest: Digest, hosts: Iterable[str]) -> list[str]:
    """All hosts, the most wanted first. Neither their order nor repeats in the list matter."""
    shard = digest.shard
    return sorted(set(hosts), key=lambda host: (-score(shard, host), host))


def locations(
    digest: Digest, hosts: Iterable[str], max_replica: int, healthy: Callable[[str], bool] = lambda _host: True
) -> list[str]:
    """The hosts which own a digest, the most wanted first.

    These are the healthy ones among the first `max_replica`; when none of those is healthy the next healthy one; and
    when none at all is, the first, since asking it is better than giving up. Empty only without hosts.
    """
    order = ranked(digest, hosts)
    up = [host for host in order if healthy(host)]
    owners = [host for host in order[:max_replica] if host in up]
    return owners or up[:1] or order[:1]
