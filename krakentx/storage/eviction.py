"""Which blobs leave the cache. Pure: the sweeper carries it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import frozen

from krakentx.core.digest import Digest
from krakentx.storage.config import CleanupConfig
from krakentx.storage.interfaces import BlobRecord


@frozen
class Marks:
    """Above `high` bytes blobs leave until `low` bytes are left."""

    high: int
    low: int


@frozen
class Sweep:
    """What is to be done, and what there was."""

    victims: tuple[Digest, ...]
    used_bytes: int  # before
    left_bytes: int  # after


def marks(config: CleanupConfig, volume_bytes: int) -> Marks | None:
    """The tighter of the bounds in bytes and in percent of the volume; None when neither is set."""
    found = []
    if config.budget_bytes:
        low = config.budget_low_bytes or config.budget_bytes * 9 // 10
        found.append(Marks(config.budget_bytes, min(low, config.budget_bytes)))
    if config.aggressive_threshold and config.aggressive_lower_threshold:
        high = volume_bytes * config.aggressive_threshold // 100
        found.append(Marks(high, min(high, volume_bytes * config.aggressive_lower_threshold // 100)))
    return min(found, key=lambda pair: pair.high, default=None)


def plan(
    records: Iterable[BlobRecord],
    config: CleanupConfig,
    *,
    now: float,
    volume_bytes: int,
    in_use: Callable[[Digest], bool],
) -> Sweep:
    """Choose who leaves: first what is too old or idle, then the least recently used until the low mark is reached.

    What is in use, or not yet in the backend, stays in any case, though its bytes count.

    Args:
        now: seconds since the epoch.
        volume_bytes: size of the file system on which the folder lies.
    """
    blobs = list(records)
    used = sum(blob.size_bytes for blob in blobs)
    ttl_s = config.ttl_s
    threshold = config.aggressive_threshold
    if threshold and not config.aggressive_lower_threshold and used * 100 >= volume_bytes * threshold:
        ttl_s = min(ttl_s or config.aggressive_ttl_s, config.aggressive_ttl_s)

    movable = [blob for blob in blobs if not blob.persist and not in_use(blob.digest)]
    movable.sort(key=lambda blob: (blob.accessed_at, blob.digest))
    victims = [blob for blob in movable if _is_over(blob, now, ttl_s, config.tti_s)]
    left = used - sum(blob.size_bytes for blob in victims)

    bounds = marks(config, volume_bytes)
    if bounds is not None and left > bounds.high:
        going = {blob.digest for blob in victims}
        for blob in movable:
            if left <= bounds.low:
                break
            if blob.digest not in going:
                victims.append(blob)
                left -= blob.size_bytes
    return Sweep(tuple(blob.digest for blob in victims), used, left)


def _is_over(blob: BlobRecord, now: float, ttl_s: float, tti_s: float) -> bool:
    return bool((ttl_s and now - blob.modified_at > ttl_s) or (tti_s and now - blob.accessed_at > tti_s))
