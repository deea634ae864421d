"""S28: every form of Range, and the Content-Range of chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krakentx.core.errors import InvalidInput, RangeNotSatisfiable
from krakentx.web.ranges import Range, parse_chunk_range, parse_range


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-99", 0, 100),
        ("bytes=500-1499", 500, 1500),
        ("bytes=100-", 100, 2048),
        ("bytes=-50", 1998, 2048),
        ("bytes=-5000", 0, 2048),
        ("bytes=2000-5000", 2000, 2048),
        ("bytes=0-0", 0, 1),
        ("bytes=2047-2047", 2047, 2048),
        (" bytes = 1 - 2 ", 1, 3),
    ],
)
def test_a_range_is_read_and_cut_at_the_end(header: str, start: int, stop: int) -> None:
    assert parse_range(header, 2048) == Range(start, stop)


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "items=0-1", "bytes=0-1,5-6", "bytes=1-2-3", "bytes=-1-2"],
)
def test_what_is_no_single_range_means_the_whole(header: str | None) -> None:
    assert parse_range(header, 2048) is None


@pytest.mark.parametrize("header", ["bytes=2048-", "bytes=5000-10000", "bytes=500-0", "bytes=5-2", "bytes=-0"])
def test_a_range_outside_is_refused_with_the_size(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        parse_range(header, 2048)
    assert caught.value.size_bytes == 2048


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-5"])
def test_an_empty_blob_has_no_range(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, 0)


@given(st.text(max_size=40), st.integers(0, 1 << 40))
def test_any_text_gives_a_part_of_the_blob_or_the_whole(header: str, size: int) -> None:
    try:
        part = parse_range(header, size)
    except RangeNotSatisfiable:
        return
    assert part is None or 0 <= part.start < part.stop <= size


@pytest.mark.parametrize("header", ["0-9", "bytes 0-9/*", "bytes 0-9/100", " 0-9 "])
def test_a_chunk_ends_inclusive(header: str) -> None:
    assert parse_chunk_range(header) == Range(0, 10)


@pytest.mark.parametrize("header", ["", "9-0", "0", "-9", "0-", "a-b", "bytes=0-9", "0,9", "0-9223372036854775807"])
def test_a_malformed_chunk_is_refused(header: str) -> None:
    with pytest.raises(InvalidInput):
        parse_chunk_range(header)
