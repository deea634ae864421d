"""Bitfields and the bitset of the wire."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krakentx.core.bitfield import Bitfield, indices
from krakentx.core.errors import InvalidInput

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "bitsets.json").read_text())
bitfields = st.integers(0, 300).flatmap(
    lambda size: st.builds(Bitfield, st.just(size), st.integers(0, (1 << size) - 1))
)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["wire"])
def test_vectors_both_ways(vector: dict[str, Any], record_property: Any) -> None:
    bitfield = Bitfield.of(vector["size"], vector["pieces"])
    wire = bytes.fromhex(vector["wire"])
    assert bitfield.to_wire() == wire
    record_property("vectors", "bitsets")
    assert Bitfield.from_wire(wire, vector["size"]) == bitfield
    record_property("vectors", "bitsets")


@given(bitfields)
def test_the_wire_form_reads_back(bitfield: Bitfield) -> None:
    wire = bitfield.to_wire()
    assert len(wire) == 8 + 8 * -(-bitfield.size // 64)
    assert Bitfield.from_wire(wire, bitfield.size) == bitfield
    assert Bitfield.from_wire(wire + b"more", bitfield.size) == bitfield, "bytes after the last word are ignored"


@given(bitfields)
def test_it_is_the_set_of_its_pieces(bitfield: Bitfield) -> None:
    pieces = [piece for piece in range(bitfield.size) if piece in bitfield]
    assert list(bitfield) == list(indices(bitfield.mask)) == pieces
    assert len(bitfield) == len(pieces)
    assert bitfield.complete == (len(pieces) == bitfield.size)
    assert Bitfield.of(bitfield.size, pieces) == bitfield


@given(bitfields.filter(lambda b: b.size), st.data())
def test_adding_and_taking_away(bitfield: Bitfield, data: st.DataObject) -> None:
    piece = data.draw(st.integers(0, bitfield.size - 1))
    assert set(bitfield.with_(piece)) == {*bitfield, piece}
    assert set(bitfield.without(piece)) == set(bitfield) - {piece}


@pytest.mark.parametrize(
    ("wire", "limit"),
    [
        ("", 10),
        ("00000000000003", 10),
        ("0000000000000003", 10),
        ("000000000000000300000000000000", 10),
        ("000000000000000b0000000000000000", 10),
        ("00000100000000000000000000000000", 10),
        ("ffffffffffffffff0000000000000000", 1 << 20),
        ("00000000000000030000000000000008", 10),
        ("0000000000000003ffffffffffffffff", 10),
    ],
)
def test_short_oversize_and_stray_bits_are_refused(wire: str, limit: int) -> None:
    with pytest.raises(InvalidInput):
        Bitfield.from_wire(bytes.fromhex(wire), limit)


@given(st.binary(max_size=64))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    try:
        bitfield = Bitfield.from_wire(data, 256)
    except InvalidInput:
        return
    assert data.startswith(bitfield.to_wire())


def test_pieces_outside_the_torrent_cannot_be_held() -> None:
    full = Bitfield.full(3)
    assert -1 not in full
    assert 3 not in full
    with pytest.raises(InvalidInput):
        full.with_(3)
    with pytest.raises(InvalidInput):
        Bitfield(-1)


def test_a_blob_without_pieces_is_complete() -> None:
    assert Bitfield(0).complete
    assert Bitfield.full(0) == Bitfield(0)
    assert not Bitfield(1).complete
