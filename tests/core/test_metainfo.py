"""Metainfo: how a blob is cut into pieces."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput
from krakentx.core.metainfo import MAX_PIECES, MetaInfo, PieceLengths, SumBuilder

DATA = Path(__file__).parents[1] / "data"
VECTORS = json.loads((DATA / "metainfo.json").read_text())
LENGTHS = json.loads((DATA / "piece_lengths.json").read_text())


def direct(data: bytes, piece_length: int) -> MetaInfo:
    """The metainfo by its definition."""
    pieces = [data[at : at + piece_length] for at in range(0, len(data), piece_length)]
    strong = b"".join(blake3(piece).digest()[:16] for piece in pieces)
    return MetaInfo(Digest.of(data), len(data), piece_length, tuple(map(zlib.crc32, pieces)), strong)


def built(data: bytes, lengths: PieceLengths, chunk: int) -> MetaInfo:
    builder = SumBuilder(lengths)
    for at in range(0, len(data), chunk):
        builder.update(memoryview(data)[at : at + chunk])
    return builder.finish(Digest.of(data))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_vectors_both_ways(vector: dict[str, Any], record_property: Any) -> None:
    meta = MetaInfo.from_json(vector["json"].encode())
    assert str(meta.info_hash) == vector["info_hash"]
    record_property("vectors", "metainfo")
    assert meta.to_json().decode() == vector["json"]
    record_property("vectors", "metainfo")
    if "bencode" in vector:
        assert hashlib.sha1(vector["bencode"].encode()).hexdigest() == vector["info_hash"]
        record_property("vectors", "metainfo")
    if "blob" in vector:
        data = vector["blob"].encode()
        made = built(data, PieceLengths([(0, vector["piece_length"])]), 3)
        assert made == meta or evolve(made, strong_sums=b"") == meta
        record_property("vectors", "metainfo")


@pytest.mark.parametrize("vector", LENGTHS, ids=lambda v: str(v["size"]))
def test_the_piece_length_follows_from_the_size(vector: dict[str, Any], record_property: Any) -> None:
    table = [tuple(entry) for entry in reversed(vector["map"])]
    assert PieceLengths(table).choose(vector["size"]) == vector["piece_length"]
    record_property("vectors", "piece_lengths")


def test_a_blob_below_the_smallest_size_uses_the_smallest_entry() -> None:
    assert PieceLengths([(100, 8), (200, 16)]).choose(5) == 8


@pytest.mark.parametrize("table", [[], [(0, 0)], [(0, -1)], [(-1, 4)]])
def test_a_map_without_sense_is_refused(table: list[tuple[int, int]]) -> None:
    with pytest.raises(InvalidInput):
        PieceLengths(table)


tables = st.dictionaries(st.integers(0, 120), st.integers(1, 40), min_size=1, max_size=4).map(
    lambda table: PieceLengths(table.items())
)


@given(st.binary(max_size=200), tables, st.integers(1, 64))
def test_sums_built_while_bytes_pass_are_the_direct_ones(data: bytes, lengths: PieceLengths, chunk: int) -> None:
    assert built(data, lengths, chunk) == direct(data, lengths.choose(len(data)))


def test_lengths_without_a_common_divisor_cost_no_more() -> None:
    data = bytes(range(256)) * 4096
    lengths = PieceLengths([(0, 99_991), (1 << 19, 262_147)])
    assert built(data, lengths, 65536) == direct(data, 262_147)


@given(st.integers(0, 500), st.integers(1, 60))
def test_pieces_tile_the_blob(length: int, piece_length: int) -> None:
    data = bytes(length)
    meta = direct(data, piece_length)
    at = 0
    for piece in range(meta.piece_count):
        assert meta.offset(piece) == at
        assert 0 < meta.piece_size(piece) <= piece_length
        at += meta.piece_size(piece)
    assert at == length
    assert meta.piece_size(-1) == meta.piece_size(meta.piece_count) == 0


@given(st.integers(0, 200), st.integers(1, 60), st.integers(0, 220), st.integers(0, 220))
def test_pieces_of_a_range_are_those_that_overlap_it(length: int, piece_length: int, start: int, stop: int) -> None:
    meta = direct(bytes(length), piece_length)
    expected = [
        piece
        for piece in range(meta.piece_count)
        if meta.offset(piece) < stop and start < meta.offset(piece) + meta.piece_size(piece) and start < stop
    ]
    assert list(meta.pieces_of(start, stop)) == expected


def test_a_blob_of_zero_bytes_has_no_piece() -> None:
    """S29."""
    meta = built(b"", PieceLengths([(0, 4), (10, 8)]), 1)
    assert (meta.length, meta.piece_count, meta.piece_sums) == (0, 0, ())
    assert meta.piece_size(0) == 0
    assert list(meta.pieces_of(0, 0)) == list(meta.pieces_of(0, 9)) == []
    assert b'"PieceSums":null' in meta.to_json()
    assert MetaInfo.from_json(meta.to_json()) == meta
    assert MetaInfo.from_json(meta.to_json().replace(b"null", b"[]")) == meta
    assert meta.info_hash == MetaInfo.from_json(meta.to_json()).info_hash


@given(st.binary(max_size=100), st.integers(1, 30))
def test_json_reads_back_with_the_same_info_hash(data: bytes, piece_length: int) -> None:
    meta = direct(data, piece_length)
    again = MetaInfo.from_json(meta.to_json())
    assert again == meta
    assert again.info_hash == meta.info_hash


@given(st.binary(max_size=100), st.integers(1, 30))
def test_metainfo_of_the_reference_has_no_strong_sums(data: bytes, piece_length: int) -> None:
    """It reads `Info` of ours and drops the rest; what it writes makes the same torrent, with CRC-32 only."""
    meta = direct(data, piece_length)
    theirs = json.dumps({"Info": json.loads(meta.to_json())["Info"]}).encode()
    again = MetaInfo.from_json(theirs)
    assert again == evolve(meta, strong_sums=b"")
    assert again.info_hash == meta.info_hash
    assert b"Blake3" not in again.to_json()


@given(st.binary(min_size=1, max_size=100), st.integers(1, 30), st.data())
def test_a_piece_fits_its_own_sums_only(data: bytes, piece_length: int, draw: st.DataObject) -> None:
    meta = direct(data, piece_length)
    piece = draw.draw(st.integers(0, meta.piece_count - 1))
    for known in (meta, evolve(meta, strong_sums=b"")):
        passed = known.new_sum()
        passed.update(data[meta.offset(piece) :][: meta.piece_size(piece)])
        assert known.fits(piece, passed)
        passed.update(b"more")
        assert not known.fits(piece, passed)


def test_a_forged_piece_fits_its_crc_and_not_its_strong_sum() -> None:
    meta = direct(b"01234567", 4)
    forged = evolve(meta, piece_sums=(zlib.crc32(b"evil"), meta.piece_sums[1]))
    for known, fits in ((forged, False), (evolve(forged, strong_sums=b""), True)):
        passed = known.new_sum()
        passed.update(b"evil")
        assert known.fits(0, passed) is fits


def test_unknown_keys_and_other_case_are_read() -> None:
    """Files of old versions carry more keys, and the reference matches keys without regard to case."""
    meta = direct(b"0123456789", 4)
    info = json.loads(meta.to_json())["Info"] | {"Extra": [1]}
    sums = base64.b64encode(meta.strong_sums).decode()
    info = {key.lower(): value for key, value in info.items()}
    text = {"Announce": "", "CreatedBy": "kraken", "info": info, "BLAKE3SUMS": sums}
    assert MetaInfo.from_json(json.dumps(text).encode()) == meta


INFO = json.loads(direct(b"0123456789", 4).to_json())["Info"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xff",
        b"null",
        b"[]",
        b"[" * 100_000,
        b"{}",
        b'{"Info":null}',
        b'{"Info":[]}',
        *(
            json.dumps({"Info": INFO, "Blake3Sums": sums}).encode()
            for sums in (5, [1, 2, 3], "=", "no base64", "\u00e9", base64.b64encode(bytes(47)).decode())
        ),
        *(
            json.dumps({"Info": INFO | change}).encode()
            for change in (
                {"Length": -1},
                {"Length": 13},
                {"Length": 8},
                {"Length": "10"},
                {"Length": None},
                {"Length": 1.5},
                {"Length": 1 << 70},
                {"Length": 1 << 70, "PieceLength": 1 << 70, "PieceSums": [1]},
                {"PieceLength": 1 << 70, "PieceSums": [1]},
                {"PieceLength": 0},
                {"PieceLength": -4},
                {"PieceLength": True},
                {"PieceSums": None},
                {"PieceSums": {}},
                {"PieceSums": [1, 2, -3]},
                {"PieceSums": [1, 2, 1 << 32]},
                {"PieceSums": [1, 2, "3"]},
                {"Name": "x"},
                {"Name": 5},
                {"Name": ""},
            )
        ),
    ],
    ids=lambda data: data[:40].decode(errors="replace"),
)
def test_metainfo_that_cannot_be_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        MetaInfo.from_json(data)


def test_too_many_pieces_are_refused() -> None:
    with pytest.raises(InvalidInput):
        MetaInfo(Digest.of(b""), MAX_PIECES + 1, 1, (0,) * (MAX_PIECES + 1))
