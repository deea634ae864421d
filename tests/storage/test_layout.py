"""Paths and the format of the access time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krakentx.storage.layout import decode_time, encode_time


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0000000000000000"), (1, "0200000000000000"), (64, "8001000000000000"), (1_700_000_000, "80c49fd50c000000")],
)
def test_access_time_is_a_zig_zag_varint(seconds: int, expected: str) -> None:
    assert encode_time(seconds).hex() == expected
    assert decode_time(bytes.fromhex(expected)) == seconds


@given(st.integers(min_value=0, max_value=1 << 40))
def test_round_trip(seconds: int) -> None:
    assert decode_time(encode_time(seconds)) == seconds and len(encode_time(seconds)) == 8


@pytest.mark.parametrize("torn", [b"", b"\x80", b"\xff" * 8])
def test_torn_bytes(torn: bytes) -> None:
    assert decode_time(torn) is None
