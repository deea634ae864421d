"""Frames of peers that mean harm, or are broken: each ends its own connection, and none costs memory.

The comments name what each of them does to the reference.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krakentx.core.errors import RemoteProtocolError
from krakentx.wire.codec import decode
from krakentx.wire.framing import MAX_FRAME
from krakentx.wire.messages import PiecePayload
from krakentx.wire.session import Role, Session, State

PEER, HASH, NAME = "98" * 20, "3a" * 20, "84" * 32
BITS = bytes.fromhex("00000000000000030000000000000000")


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """A varint field; negative numbers take ten bytes."""
    return varint(field << 3) + varint(value)


def data(field: int, value: bytes | str) -> bytes:
    """A length-delimited field: text, bytes or a message."""
    raw = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(raw)) + raw


def handshake(
    *, peer: bytes | str = PEER, info_hash: str = HASH, name: str = NAME, bits: bytes | None = BITS, more: bytes = b""
) -> bytes:
    """A handshake as the reference writes it, where any part may be wrong."""
    body = data(2, info_hash) + data(3, name) + data(4, peer)
    if bits is not None:
        body += data(5, bits)
    return data(3, body + more)


def neighbour(key: str | None, bits: bytes | None) -> bytes:
    entry = b"" if key is None else data(1, key)
    return data(7, entry if bits is None else entry + data(2, bits))


def chunk(kind: int, field: int, index: int = 0, offset: int = 0, length: int = 0) -> bytes:
    return number(2, kind) + data(field, number(2, index) + number(3, offset) + number(4, length))


def bitset(count: int, *words: int) -> bytes:
    return b"".join(word.to_bytes(8, "big") for word in (count, *words))


FRAMES = {
    # A body that the type asks for is missing: a nil dereference there.
    "empty frame": b"",
    "handshake without body": number(2, 0),
    "request without body": number(2, 1),
    "payload without body": number(2, 2),
    "announce without body": number(2, 3),
    "cancel without body": number(2, 4),
    "error without body": number(2, 5),
    "payload whose body is of another type": number(2, 2) + data(4, number(4, 5)),
    "payload whose body is a number": number(2, 2) + number(5, 1),
    # Negative numbers: panics of allocation, of slices and of the bitset.
    "payload of negative length": chunk(2, 5, length=-1),
    "payload of the least length": chunk(2, 5, length=-(1 << 31)),
    "payload of negative index and no length": chunk(2, 5, index=-1),
    "payload of negative offset": chunk(2, 5, offset=-1, length=4),
    "request of negative index and no length": chunk(1, 4, index=-1),
    "request of negative length": chunk(1, 4, length=-1),
    "request of negative offset": chunk(1, 4, offset=-1),
    "announce of negative index": number(2, 3) + data(6, number(2, -1)),
    "cancel of negative index": number(2, 4) + data(7, number(2, -1)),
    "error of negative index": number(2, 5) + data(8, number(3, -1)),
    # Bitsets: an index out of range, or 128 GiB asked for by a frame of 200 bytes.
    "bitfield with stray bits": handshake(bits=bitset(3, 8)),
    "bitfield with the top bit astray": handshake(bits=bitset(63, 1 << 63)),
    "bitfield of 2^40 bits": handshake(bits=bitset(1 << 40, 0)),
    "bitfield of 2^64-1 bits": handshake(bits=bitset((1 << 64) - 1, 0)),
    "bitfield that ends early": handshake(bits=bitset(65, 1)),
    "bitfield of seven bytes": handshake(bits=bytes(7)),
    "bitfield that is empty": handshake(bits=b""),
    "bitfield that is missing": handshake(bits=None),
    "neighbour's bitset of 2^40 bits": handshake(more=neighbour(PEER, bitset(1 << 40))),
    "neighbour's bitset with stray bits": handshake(more=neighbour(PEER, bitset(1, 2))),
    "neighbour's bitset missing": handshake(more=neighbour(PEER, None)),
    "neighbour's id missing": handshake(more=neighbour(None, bitset(0))),
    "neighbour's id too short": handshake(more=neighbour("ab", bitset(0))),
    # Ids.
    "peer id too short": handshake(peer=PEER[:-1]),
    "peer id too long": handshake(peer=PEER + "00"),
    "peer id empty": handshake(peer=""),
    "peer id not hex": handshake(peer="zz" * 20),
    "peer id with spaces": handshake(peer="98 " * 13 + "9"),
    "peer id not UTF-8": handshake(peer=b"\xff" * 40),
    "info hash too short": handshake(info_hash=HASH[:-2]),
    "info hash not hex": handshake(info_hash="x" * 40),
    "name with its algorithm": handshake(name="sha256:" + NAME),
    "name too short": handshake(name=NAME[:-1]),
    "name with a path": handshake(name="../" * 21 + "a"),
    # No protobuf at all.
    "length past the end": b"\x1a\x7f\x00",
    "varint without end": b"\x10" + b"\xff" * 11,
    "field number zero": b"\x00\x01",
    "group that never ends": b"\x0b" * 1000,
    "messages inside messages": data(100, b"\x1a\xff\x01" * 5000) + number(2, 1),
    "zeros": bytes(MAX_FRAME),
}


@pytest.mark.parametrize("name", FRAMES)
def test_it_is_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(FRAMES[name])


def active() -> Session:
    session = Session(Role.ACCEPTOR)
    session.state = State.ACTIVE
    return session


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("state", [State.LISTENING, State.ACTIVE])
def test_it_closes_its_session_and_nothing_behind_it_is_read(name: str, state: State) -> None:
    session = Session(Role.ACCEPTOR)
    session.state = state
    session.feed(framed(FRAMES[name]) + framed(number(2, 6)))
    with pytest.raises(RemoteProtocolError):
        session.next_event()
    assert session.state is State.CLOSED
    assert session.next_event() is None
    session.feed(bytes(10))
    assert session.buffered == 0


def peak_bytes(frames: Iterable[bytes]) -> int:
    """The most that was allocated while these were decoded."""
    tracemalloc.start()
    try:
        for frame in frames:
            with pytest.raises(RemoteProtocolError):
                decode(frame)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_frame_makes_us_allocate_what_it_asks_for() -> None:
    entries = neighbour(PEER, bitset(0)) * ((MAX_FRAME - 300) // 54)
    full = [handshake(more=entries + neighbour("", b"")), handshake(more=neighbour(None, None) * 16000)]
    assert all(len(frame) < 2 * MAX_FRAME for frame in full)
    assert peak_bytes([*FRAMES.values(), *full]) < 8 << 20


def test_a_payload_of_two_gib_costs_only_what_is_fed() -> None:
    session = active()
    session.feed(framed(chunk(2, 5, length=(1 << 31) - 1)))
    assert session.next_event() == PiecePayload(0, 0, (1 << 31) - 1)
    tracemalloc.start()
    try:
        for _ in range(200):
            session.feed(bytes(65536))
            session.take_payload_prefix()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert session.payload_left == (1 << 31) - 1 - 200 * 65536


@given(st.lists(st.binary(max_size=64), max_size=20), st.booleans())
def test_random_streams_raise_nothing_but_the_peers_fault(parts: list[bytes], established: bool) -> None:
    session = active() if established else Session(Role.ACCEPTOR)
    try:
        for part in parts:
            session.feed(part)
            session.take_payload_prefix()
            while session.next_event() is not None:
                session.take_payload_prefix()
    except RemoteProtocolError:
        assert session.state is State.CLOSED


@given(st.lists(st.sampled_from(sorted(FRAMES)) | st.binary(max_size=30), max_size=8), st.integers(1, 50))
def test_mixtures_of_hostile_frames_in_any_split(names: list[str | bytes], step: int) -> None:
    stream = b"".join(framed(FRAMES[n] if isinstance(n, str) else n) for n in names)[:4000]
    session = active()
    try:
        for at in range(0, len(stream), step):
            session.feed(stream[at : at + step])
            session.take_payload_prefix()
            while session.next_event() is not None:
                session.take_payload_prefix()
    except RemoteProtocolError:
        assert session.state is State.CLOSED
