"""Durations and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krakentx.config.fields import parse_duration, parse_size
from krakentx.core.errors import InvalidInput


@pytest.mark.parametrize(
    "text, seconds",
    [("3s", 3.0), ("250ms", 0.25), ("1h30m", 5400.0), ("1.5m", 90.0), ("1d", 86400.0), (0, 0.0), ("0", 0.0)],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [3, "3", "", "s", "-1s", "1 s", "3x", "1s2", True, None, [], 0.5])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(InvalidInput):
        parse_duration(text)


@pytest.mark.parametrize(
    "text, size", [("4MB", 4 << 20), ("4MiB", 4 << 20), ("50G", 50 << 30), ("1.5K", 1536), ("7", 7), (7, 7), (0, 0)]
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", -1, "4XB", True, None, [], 1.5])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(InvalidInput):
        parse_size(text)


@given(st.integers(0, 1 << 60))
def test_plain_numbers_are_bytes(size: int) -> None:
    assert parse_size(size) == parse_size(str(size)) == size
