"""The codec: messages <-> frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from krakentx.core.bitfield import Bitfield
from krakentx.core.digest import Digest
from krakentx.core.errors import LocalProtocolError, RemoteProtocolError
from krakentx.core.metainfo import MAX_PIECES
from krakentx.core.peer import InfoHash, PeerID
from krakentx.wire import messages
from krakentx.wire.codec import decode, encode
from krakentx.wire.framing import MAX_FRAME
from krakentx.wire.messages import (
    AnnouncePiece,
    CancelPiece,
    Complete,
    Handshake,
    Message,
    PieceError,
    PiecePayload,
    PieceRequest,
    Unknown,
)
from krakentx.wire.session import Role, Session, State

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "frames.json").read_text())
READABLE = [vector for vector in VECTORS if vector["use"] != "refuse"]
REFUSED = [vector for vector in VECTORS if vector["use"] == "refuse"]
ALICE, BOB = PeerID.of_address("10.0.0.1", 16001), PeerID.of_address("10.0.0.2", 16001)
HELLO = Handshake(ALICE, Digest.of(b"0123456789"), InfoHash(bytes(20)), Bitfield(3), "library/alpine")

naturals = st.integers(0, 2**31 - 1)
ids = st.binary(min_size=20, max_size=20)
texts = st.text(max_size=20)
handshakes = st.builds(
    Handshake,
    peer_id=ids.map(PeerID),
    digest=st.builds(Digest.of, st.binary(max_size=4), st.sampled_from(["sha256", "sha512"])),
    info_hash=ids.map(InfoHash),
    bitfield=st.integers(0, 200).flatmap(lambda n: st.builds(Bitfield, st.just(n), st.integers(0, (1 << n) - 1))),
    namespace=texts,
    neighbours=st.frozensets(ids.map(PeerID), max_size=12),
    features=st.frozensets(texts, max_size=4),
    zone=texts,
)
others = st.one_of(
    st.builds(PieceRequest, naturals, naturals, naturals),
    st.builds(PiecePayload, naturals, naturals, naturals),
    st.builds(AnnouncePiece, naturals),
    st.builds(CancelPiece, naturals),
    st.builds(PieceError, naturals, texts),
    st.just(Complete()),
)


def message_of(row: dict[str, Any]) -> Message:
    """The message that a vector describes."""
    fields = dict(row)
    kind = getattr(messages, fields.pop("kind"))
    if kind is Handshake:
        return Handshake(
            peer_id=PeerID.parse(fields["peer_id"]),
            digest=Digest.from_hex(fields["digest"]),
            info_hash=InfoHash.parse(fields["info_hash"]),
            bitfield=Bitfield.of(fields["size"], fields["pieces"]),
            namespace=fields["namespace"],
            neighbours=frozenset(map(PeerID.parse, fields["neighbours"])),
        )
    message: Message = kind(**fields)
    return message


@pytest.mark.parametrize("vector", READABLE, ids=lambda v: v["name"])
def test_vectors_are_read(vector: dict[str, Any], record_property: Any) -> None:
    frame = bytes.fromhex(vector["frame"])
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert decode(frame[4:]) == message_of(vector["message"])
    record_property("vectors", "frames")


@pytest.mark.parametrize("vector", [v for v in READABLE if v["use"] == "both"], ids=lambda v: v["name"])
def test_vectors_are_written(vector: dict[str, Any], record_property: Any) -> None:
    assert encode(message_of(vector["message"])).hex() == vector["frame"]
    record_property("vectors", "frames")


@pytest.mark.parametrize("vector", REFUSED, ids=lambda v: v["name"])
def test_vectors_are_refused(vector: dict[str, Any], record_property: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(bytes.fromhex(vector["frame"])[4:])
    record_property("vectors", "frames")


@pytest.mark.parametrize("vector", [v for v in READABLE if "payload" in v], ids=lambda v: v["name"])
def test_vectors_with_their_payload_pass_a_session(vector: dict[str, Any], record_property: Any) -> None:
    session = Session(Role.ACCEPTOR)
    session.state = State.ACTIVE
    payload = bytes.fromhex(vector["payload"])
    session.feed(bytes.fromhex(vector["frame"]) + payload + encode(Complete()))
    assert session.next_event() == message_of(vector["message"])
    assert session.next_event() is None
    assert session.take_payload_prefix() == payload
    assert session.next_event() == Complete()
    record_property("vectors", "frames")


@given(handshakes | others)
def test_decoding_what_was_encoded_gives_the_same(message: Message) -> None:
    frame = encode(message)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert decode(frame[4:]) == message
    assert encode(message) == frame, "one message has one form, whatever the order of its sets"


@given(st.binary(max_size=200))
def test_random_bytes_are_a_message_or_the_peers_fault(frame: bytes) -> None:
    try:
        message = decode(frame)
    except RemoteProtocolError:
        return
    if not isinstance(message, Unknown):
        assert decode(encode(message)[4:]) == message


@given(handshakes | others, st.data())
def test_damaged_frames_are_a_message_or_the_peers_fault(message: Message, data: st.DataObject) -> None:
    """Nearer to real messages than random bytes: some bytes of one are changed or cut off."""
    frame = bytearray(encode(message)[4:])
    for at in data.draw(st.lists(st.integers(0, len(frame) - 1), max_size=3)):
        frame[at] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(frame[: data.draw(st.integers(0, len(frame)))]))
    except RemoteProtocolError:
        return


def test_fields_that_we_do_not_know_are_ignored() -> None:
    known = encode(AnnouncePiece(2))[4:]
    version = b"\x0a\x03abc"  # field 1: in the schema of the reference, never written and never read
    future = b"\xa2\x06\x04\x08\x01\x12\x00"  # field 100, a message
    assert decode(version + known + future) == AnnouncePiece(2)
    body = b"\x10\x02" + b"\xa0\x06\x07"  # inside of the body too
    assert decode(b"\x10\x03\x32" + bytes([len(body)]) + body) == AnnouncePiece(2)


def test_features_ride_in_a_field_that_the_reference_ignores() -> None:
    plain = encode(HELLO)
    tagged = encode(evolve(HELLO, features=frozenset({"b", "a"})))
    # Field 100 of the handshake's body, last of all, sorted; what stands before it is byte for byte what it was.
    assert tagged.endswith(plain[-20:] + bytes.fromhex("a20601" + "61" + "a20601" + "62"))
    assert decode(tagged[4:]) == evolve(HELLO, features=frozenset({"a", "b"}))


def test_types_that_we_do_not_know_are_told_from_errors() -> None:
    assert decode(b"\x10\x07") == Unknown(7)
    assert decode(b"\x10" + b"\xff" * 9 + b"\x01") == Unknown(-1)
    assert decode(encode(PieceError(1, "x"))[4:] + b"\x42\x02\x20\x01") == Unknown(5), "code 1 of ERROR"


def test_neighbours_that_do_not_fit_are_left_out() -> None:
    peers = sorted(PeerID.of_address("10.0.0.1", port) for port in range(1, 1001))
    frame = encode(evolve(HELLO, neighbours=frozenset(peers)))
    assert MAX_FRAME - 60 < len(frame) - 4 <= MAX_FRAME
    got = decode(frame[4:])
    assert isinstance(got, Handshake)
    assert got.neighbours == set(peers[: len(got.neighbours)])


def test_the_greatest_torrent_leaves_room_for_some_neighbours() -> None:
    peers = sorted(PeerID.of_address("10.0.0.1", port) for port in range(1, 41))
    message = evolve(
        HELLO,
        digest=Digest.of(b"", "sha512"),
        bitfield=Bitfield.full(MAX_PIECES),
        namespace="x" * 255,
        neighbours=frozenset(peers),
    )
    got = decode(encode(message)[4:])
    assert isinstance(got, Handshake)
    assert 10 <= len(got.neighbours) < 40
    assert got == evolve(message, neighbours=frozenset(peers[: len(got.neighbours)]))


@pytest.mark.parametrize(
    "message",
    [
        Unknown(7),
        AnnouncePiece(1 << 31),
        PieceRequest(0, 0, 1 << 40),
        PieceError(0, "x" * MAX_FRAME),
        PieceError(0, "\udc80"),
        evolve(HELLO, bitfield=Bitfield(1 << 19), neighbours=frozenset({BOB})),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_cannot_be_written_is_our_own_error(message: Message) -> None:
    with pytest.raises(LocalProtocolError):
        encode(message)


def test_a_bitfield_without_bits_is_kept_as_it_came() -> None:
    """The reference takes it for a complete peer; what it means is for the Engine to say, which knows the pieces."""
    message = decode(encode(evolve(HELLO, bitfield=Bitfield(0)))[4:])
    assert isinstance(message, Handshake)
    assert message.bitfield == Bitfield(0)


def test_a_zone_that_is_too_long_is_refused() -> None:
    frame = encode(evolve(HELLO, zone="z" * 254))
    with pytest.raises(RemoteProtocolError, match="zone"):
        decode(frame[4:])
