"""The framer: bytes -> frames and raw runs."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krakentx.core.errors import LocalProtocolError, RemoteProtocolError
from krakentx.wire.framing import MAX_BUFFERED, MAX_FRAME, Framer


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def drain(framer: Framer) -> list[bytes]:
    return list(iter(framer.next_frame, None))


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at these places."""
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(0, 2000)))
def test_any_split_of_the_stream_gives_the_same_frames(bodies: list[bytes], cuts: list[int]) -> None:
    framer = Framer()
    got = []
    for part in pieces_of(b"".join(map(framed, bodies)), cuts):
        framer.feed(part)
        got += drain(framer)
    assert got == bodies
    assert framer.buffered == 0


def test_a_frame_of_the_greatest_length_passes_and_one_byte_more_is_refused_on_sight() -> None:
    framer = Framer()
    framer.feed(framed(bytes(MAX_FRAME)))
    assert framer.next_frame() == bytes(MAX_FRAME)
    framer.feed((MAX_FRAME + 1).to_bytes(4, "big"))
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="32769"):
            framer.next_frame()


@pytest.mark.parametrize(
    "start",
    [b"\xff\xff\xff\xff", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n", b"SSH-2.0-x"],
    ids=["four GiB", "TLS hello", "HTTP", "SSH"],
)
def test_other_protocols_are_refused_after_four_bytes(start: bytes) -> None:
    framer = Framer()
    framer.feed(start[:3])
    assert framer.next_frame() is None
    framer.feed(start[3:])
    with pytest.raises(RemoteProtocolError):
        framer.next_frame()


@given(st.binary(min_size=1, max_size=300), st.binary(max_size=50), st.integers(0, 400), st.integers(1, 60))
def test_payload_leaves_by_both_doors(payload: bytes, after: bytes, here: int, limit: int) -> None:
    """What came with the header is taken, the rest is read past the framer, and frames go on behind it."""
    framer = Framer()
    here = min(here, len(payload))
    framer.feed(framed(b"header") + payload[:here])
    assert framer.next_frame() == b"header"
    framer.begin_payload(len(payload))
    assert framer.next_frame() is None
    prefix = b""
    while part := framer.take_payload_prefix(limit):
        assert len(part) <= limit
        prefix += part
    assert prefix == payload[:here]
    assert framer.payload_left == len(payload) - here
    framer.payload_passed(framer.payload_left)
    framer.feed(framed(after))
    assert framer.next_frame() == after


@given(st.lists(st.tuples(st.binary(max_size=60), st.binary(max_size=20))), st.lists(st.integers(0, 5000)))
def test_payload_can_come_through_the_framer_in_any_split(rows: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    """As over TLS. The first byte of a header is the length of what follows it."""
    stream = b"".join(framed(bytes([len(payload)])) + payload + framed(after) for payload, after in rows)
    framer = Framer()
    got: list[tuple[str, bytes]] = []
    run = b""
    header = True
    for part in pieces_of(stream, cuts):
        framer.feed(part)
        while True:
            run += framer.take_payload_prefix()
            if framer.payload_left:
                break
            frame = framer.next_frame()
            if frame is None:
                break
            if header:
                framer.begin_payload(frame[0])
            else:
                got.append((run.hex(), frame))
                run = b""
            header = not header
    assert got == [(payload.hex(), after) for payload, after in rows]


def test_payload_is_never_held_beyond_what_is_fed() -> None:
    framer = Framer()
    framer.begin_payload(1 << 40)
    for _ in range(100):
        framer.feed(bytes(65536))
        assert len(framer.take_payload_prefix()) == 65536
    assert framer.buffered == 0
    assert framer.payload_left == (1 << 40) - 100 * 65536


def test_our_own_mistakes_fail_loudly() -> None:
    framer = Framer()
    framer.feed(bytes(MAX_BUFFERED))
    with pytest.raises(LocalProtocolError, match="not taken"):
        framer.feed(b"x")
    framer = Framer()
    framer.begin_payload(5)
    with pytest.raises(LocalProtocolError):
        framer.begin_payload(1)
    with pytest.raises(LocalProtocolError):
        framer.payload_passed(6)
    framer.feed(b"x")
    with pytest.raises(LocalProtocolError):
        framer.payload_passed(4)
