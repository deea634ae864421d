"""Pieces in chunks: other messages may stand between them, and nothing else may."""

from __future__ import annotations

from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from krakentx.core.bitfield import Bitfield
from krakentx.core.digest import Digest
from krakentx.core.errors import LocalProtocolError, RemoteProtocolError
from krakentx.core.peer import InfoHash, PeerID
from krakentx.wire.codec import decode, encode
from krakentx.wire.messages import (
    CHUNKS,
    AnnouncePiece,
    CancelPiece,
    Complete,
    Handshake,
    Message,
    PieceChunk,
    PiecePayload,
    PieceRequest,
)
from krakentx.wire.session import MIN_CHUNK, Role, Session

PLAIN = Handshake(PeerID(bytes(20)), Digest.of(b""), InfoHash(bytes(20)), Bitfield(4))
KNOWS = evolve(PLAIN, features=frozenset({CHUNKS}))
BETWEEN: list[Message] = [AnnouncePiece(3), CancelPiece(1), PieceRequest(2, 0, 5), Complete()]


def acceptor(theirs: Handshake = KNOWS, ours: Handshake = KNOWS) -> Session:
    session = Session(Role.ACCEPTOR)
    session.feed(encode(theirs))
    assert session.next_event() == theirs
    session.send(ours)
    return session


def play(session: Session, stream: bytes, cuts: list[int]) -> tuple[list[Message], bytes]:
    """Feed a stream in any pieces; what comes out of it beside the frames of chunks, and all payload."""
    got, payload = [], b""
    ends = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    for start, end in pairwise(ends):
        session.feed(stream[start:end])
        payload += session.take_payload_prefix()
        while (message := session.next_event()) is not None:
            if not isinstance(message, PieceChunk):
                got.append(message)
            payload += session.take_payload_prefix()
    return got, payload


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        (PiecePayload(1, 0, 4 << 20, 256 << 10), "0000001010022a0c10012080808002a006808010"),
        (PiecePayload(2, 0, 2), "0000000810022a0410022002"),
        (PieceChunk(256 << 10), "000000091064a2060408808010"),
    ],
)
def test_vectors(message: Message, frame: str) -> None:
    assert encode(message).hex() == frame
    assert decode(bytes.fromhex(frame)[4:]) == message


chunked = st.lists(st.integers(MIN_CHUNK, MIN_CHUNK + 5), max_size=3).flatmap(
    lambda sizes: st.integers(1, MIN_CHUNK).map(lambda last: [*sizes, last])
)


@given(
    st.lists(st.tuples(chunked, st.lists(st.sampled_from(BETWEEN), max_size=3)), max_size=3),
    st.lists(st.integers(0, 400_000), max_size=20),
)
def test_any_chunking_any_interleaving_and_any_split_give_the_same(
    pieces: list[tuple[list[int], list[Message]]], cuts: list[int]
) -> None:
    stream, whole, messages = b"", b"", []
    for index, (sizes, between) in enumerate(pieces):
        header = PiecePayload(index, 0, sum(sizes), sizes[0])
        messages += [header, *between * (len(sizes) - 1)]
        for number, size in enumerate(sizes):
            data = bytes([index, number]) * size
            whole += data[:size]
            frame = encode(PieceChunk(size) if number else header)
            talk = b"".join(map(encode, between)) if number else b""
            stream += talk + frame + data[:size]
    session = acceptor()
    assert play(session, stream, cuts) == (messages, whole)
    assert session.payload_left == session.chunk_left == session.buffered == 0


def test_a_piece_is_whole_when_its_last_chunk_has_passed() -> None:
    session = acceptor()
    session.feed(encode(PiecePayload(0, 0, MIN_CHUNK + 7, MIN_CHUNK)))
    session.next_event()
    assert (session.payload_left, session.chunk_left) == (MIN_CHUNK + 7, MIN_CHUNK)
    session.payload_passed(MIN_CHUNK)
    assert (session.payload_left, session.chunk_left) == (7, 0)
    with pytest.raises(LocalProtocolError):
        session.payload_passed(1)
    session.feed(encode(PieceChunk(7)) + bytes(7))
    assert session.next_event() == PieceChunk(7)
    assert session.take_payload_prefix() == bytes(7)
    assert session.payload_left == 0


FIRST = encode(PiecePayload(0, 0, 3 * MIN_CHUNK, MIN_CHUNK)) + bytes(MIN_CHUNK)
HOSTILE = {
    "a chunk without a piece": encode(PieceChunk(MIN_CHUNK)),
    "a chunk behind a whole piece": encode(PiecePayload(0, 0, 4)) + bytes(4) + encode(PieceChunk(MIN_CHUNK)),
    "a chunk of nothing": FIRST + encode(PieceChunk(0)),
    "a tiny chunk": FIRST + encode(PieceChunk(MIN_CHUNK - 1)),
    "a tiny first chunk": encode(PiecePayload(0, 0, 3 * MIN_CHUNK, 1)),
    "more than the piece": FIRST + encode(PieceChunk(2 * MIN_CHUNK + 1)),
    "a first chunk of more than the piece": encode(PiecePayload(0, 0, 4, 5)),
    "a chunk of an empty piece": encode(PiecePayload(0, 0, 0, 1)),
    "a piece within a piece": FIRST + encode(PiecePayload(1, 0, 4)),
    "a chunk too many": FIRST + encode(PieceChunk(2 * MIN_CHUNK)) + bytes(2 * MIN_CHUNK) + encode(PieceChunk(1)),
    "a chunk without its length": FIRST + bytes.fromhex("000000021064"),
    "a chunk of negative length": FIRST + bytes.fromhex("000000101064a2060b08ffffffffffffffffff01"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_chunks_end_the_connection(name: str) -> None:
    session = acceptor()
    with pytest.raises(RemoteProtocolError):
        play(session, HOSTILE[name], [])
    assert session.payload_left == 0
    assert session.next_event() is None


@pytest.mark.parametrize(("theirs", "ours"), [(PLAIN, KNOWS), (KNOWS, PLAIN), (PLAIN, PLAIN)])
def test_where_one_side_does_not_know_them_there_are_none(theirs: Handshake, ours: Handshake) -> None:
    session = acceptor(theirs, ours)
    assert not session.chunks
    for message in (PiecePayload(0, 0, 3 * MIN_CHUNK, MIN_CHUNK), PieceChunk(5)):
        with pytest.raises(LocalProtocolError):
            session.send(message)
    assert session.send(PiecePayload(0, 0, 3)) == encode(PiecePayload(0, 0, 3))
    with pytest.raises(RemoteProtocolError):
        play(session, FIRST, [])


def test_a_second_handshake_changes_nothing() -> None:
    session = acceptor(PLAIN, KNOWS)
    session.feed(encode(KNOWS))
    session.next_event()
    assert not session.chunks
