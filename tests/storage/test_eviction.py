"""Who leaves the cache: pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krakentx.config.load import load
from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput
from krakentx.storage.config import CleanupConfig
from krakentx.storage.eviction import Marks, Sweep, marks, plan
from krakentx.storage.interfaces import BlobRecord

HOUR = 3600.0
NOW = 1_000 * HOUR
NEVER = CleanupConfig(tti_s=0)


def _blob(
    name: str, size: int = 10, *, modified_h: float = 0, accessed_h: float = 0, persist: bool = False
) -> BlobRecord:
    """A blob last written and read so many hours ago."""
    modified_at = NOW - modified_h * HOUR
    return BlobRecord(Digest.of(name.encode()), size, modified_at, NOW - accessed_h * HOUR, persist)


def _plan(blobs: list[BlobRecord], config: CleanupConfig, *, used: tuple[str, ...] = (), volume: int = 1000) -> Sweep:
    pinned = {Digest.of(name.encode()) for name in used}
    return plan(blobs, config, now=NOW, volume_bytes=volume, in_use=pinned.__contains__)


def _names(sweep: Sweep, *names: str) -> list[str]:
    back = {Digest.of(name.encode()): name for name in names or "abcdefgh"}
    return [back[digest] for digest in sweep.victims]


def test_idle_and_old_blobs_go() -> None:
    blobs = [_blob("a", modified_h=30, accessed_h=1), _blob("b", modified_h=7, accessed_h=7), _blob("c", modified_h=1)]
    assert _names(_plan(blobs, CleanupConfig())) == ["b"]
    assert _names(_plan(blobs, CleanupConfig(ttl_s=24 * HOUR))) == ["b", "a"]
    assert _names(_plan(blobs, NEVER)) == []


def test_least_recently_used_go_down_to_the_low_mark() -> None:
    blobs = [_blob(name, 30, accessed_h=hours) for name, hours in (("a", 1), ("b", 4), ("c", 3), ("d", 2))]
    config = CleanupConfig(tti_s=0, budget_bytes=100, budget_low_bytes=60)
    sweep = _plan(blobs, config)
    assert _names(sweep) == ["b", "c"] and (sweep.used_bytes, sweep.left_bytes) == (120, 60)
    assert _names(_plan(blobs[:3], config)) == []


def test_what_is_in_use_or_not_in_the_backend_stays_yet_counts() -> None:
    blobs = [_blob("a", 60, accessed_h=9, persist=True), _blob("b", 60, accessed_h=8), _blob("c", 60, accessed_h=1)]
    assert _names(_plan(blobs, CleanupConfig(tti_s=7 * HOUR), used=("b",))) == []
    assert _names(_plan(blobs, CleanupConfig(tti_s=0, budget_bytes=130), used=("b",))) == ["c"]


def test_percent_counts_our_own_files_only() -> None:
    """S08: other programs may fill the disk as they like."""
    blobs = [_blob(name, 100, modified_h=hours, accessed_h=hours) for name, hours in (("a", 3), ("b", 2), ("c", 0.5))]
    both = CleanupConfig(tti_s=0, aggressive_threshold=25, aggressive_lower_threshold=15)
    assert _names(_plan(blobs, both, volume=1000)) == ["a", "b"]
    assert _names(_plan(blobs, both, volume=2000)) == []
    by_age = CleanupConfig(tti_s=0, aggressive_threshold=30)
    assert _names(_plan(blobs, by_age, volume=1000)) == ["a", "b"]
    assert _names(_plan(blobs, by_age, volume=1001)) == []


def test_the_tighter_mark_counts() -> None:
    config = CleanupConfig(budget_bytes=1000, aggressive_threshold=50, aggressive_lower_threshold=40)
    assert marks(config, 10_000) == Marks(1000, 900)
    assert marks(config, 1_000) == Marks(500, 400)
    assert marks(NEVER, 1000) is None
    assert marks(CleanupConfig(budget_bytes=10, budget_low_bytes=20), 1000) == Marks(10, 10)


@given(
    st.lists(st.tuples(st.integers(0, 100), st.floats(0, 100), st.booleans(), st.booleans()), max_size=30),
    st.integers(1, 1000),
)
def test_never_more_than_needed_and_never_what_must_stay(
    rows: list[tuple[int, float, bool, bool]], budget: int
) -> None:
    blobs = [_blob(str(i), size, accessed_h=hours, persist=persist) for i, (size, hours, persist, _) in enumerate(rows)]
    pinned = {blob.digest for blob, (_, _, _, used) in zip(blobs, rows, strict=True) if used}
    config = CleanupConfig(tti_s=0, budget_bytes=budget)
    sweep = plan(blobs, config, now=NOW, volume_bytes=1 << 40, in_use=pinned.__contains__)
    sizes = {blob.digest: blob.size_bytes for blob in blobs}
    assert len(set(sweep.victims)) == len(sweep.victims)
    assert not pinned & set(sweep.victims)
    assert not {blob.digest for blob in blobs if blob.persist} & set(sweep.victims)
    assert sweep.used_bytes - sum(sizes[digest] for digest in sweep.victims) == sweep.left_bytes
    if sweep.victims:
        assert sweep.used_bytes > budget
        assert sweep.left_bytes + sizes[sweep.victims[-1]] > budget * 9 // 10


def test_keys_of_the_reference(tmp_path) -> None:
    file = tmp_path / "cleanup.yaml"
    file.write_text("interval: 5m\ntti: 1h\nttl: 24h\naggressive_threshold: 80\naggressive_ttL: 30m\nbudget: 50GB\n")
    config = load(CleanupConfig, file)
    assert (config.interval_s, config.tti_s, config.ttl_s, config.aggressive_ttl_s) == (300, 3600, 86400, 1800)
    assert config.budget_bytes == 50 << 30
    with pytest.raises(InvalidInput):
        CleanupConfig(aggressive_threshold=101)
