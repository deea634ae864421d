"""The session: who may say what when."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krakentx.core.bitfield import Bitfield
from krakentx.core.digest import Digest
from krakentx.core.errors import LocalProtocolError, RemoteProtocolError
from krakentx.core.peer import InfoHash, PeerID
from krakentx.wire.codec import encode
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

DIGEST, HASH = Digest.of(b"0123456789"), InfoHash(bytes(20))
HELLO = Handshake(PeerID.of_address("10.0.0.1", 16001), DIGEST, HASH, Bitfield(3), "library/alpine")
REPLY = Handshake(PeerID.of_address("10.0.0.2", 16001), DIGEST, HASH, Bitfield.full(3))
LATER: list[Message] = [
    PieceRequest(2, 0, 2),
    PiecePayload(2, 0, 0),
    AnnouncePiece(0),
    CancelPiece(1),
    PieceError(1, "piece not complete"),
    Complete(),
]


def events(session: Session) -> list[Message]:
    return list(iter(session.next_event, None))


def joined() -> tuple[Session, Session]:
    """A dialer and an acceptor that have greeted each other."""
    dialer, acceptor = Session(Role.DIALER), Session(Role.ACCEPTOR)
    acceptor.feed(dialer.send(HELLO))
    assert events(acceptor) == [HELLO]
    dialer.feed(acceptor.send(REPLY))
    assert events(dialer) == [REPLY]
    return dialer, acceptor


def test_the_dialer_speaks_first_and_then_both_do() -> None:
    dialer, acceptor = Session(Role.DIALER), Session(Role.ACCEPTOR)
    assert (dialer.state, acceptor.state) == (State.GREETING, State.LISTENING)
    hello = dialer.send(HELLO)
    acceptor.feed(hello)
    assert acceptor.next_event() == HELLO
    assert (dialer.state, acceptor.state) == (State.AWAITING, State.ANSWERING)
    reply = acceptor.send(REPLY)
    dialer.feed(reply)
    assert dialer.next_event() == REPLY
    assert (dialer.state, acceptor.state) == (State.ACTIVE, State.ACTIVE)
    for one, other in ((dialer, acceptor), (acceptor, dialer)):
        for message in LATER:
            other.feed(one.send(message))
        assert events(other) == LATER


@pytest.mark.parametrize("message", [*LATER, Unknown(9)])
@pytest.mark.parametrize("role", Role)
def test_only_a_handshake_may_come_first(role: Role, message: Message) -> None:
    session = Session(role)
    if role is Role.DIALER:
        session.send(HELLO)
    with pytest.raises(LocalProtocolError):
        session.send(message)
    session.feed(b"\x00\x00\x00\x02\x10\x09" if isinstance(message, Unknown) else encode(message))
    with pytest.raises(RemoteProtocolError):
        session.next_event()
    assert session.state is State.CLOSED


def test_an_acceptor_that_speaks_first_is_refused() -> None:
    dialer = Session(Role.DIALER)
    dialer.feed(encode(REPLY))
    with pytest.raises(RemoteProtocolError, match="DIALER in GREETING"):
        dialer.next_event()
    with pytest.raises(LocalProtocolError):
        Session(Role.ACCEPTOR).send(REPLY)


def test_a_dialer_that_does_not_wait_for_the_reply_is_refused() -> None:
    acceptor = Session(Role.ACCEPTOR)
    acceptor.feed(encode(HELLO) + encode(PieceRequest(0, 0, 4)))
    assert acceptor.next_event() == HELLO
    with pytest.raises(RemoteProtocolError):
        acceptor.next_event()


def test_a_second_handshake_is_passed_over_and_never_sent() -> None:
    dialer, acceptor = joined()
    acceptor.feed(encode(HELLO) + dialer.send(Complete()))
    assert events(acceptor) == [Unknown(0), Complete()]
    with pytest.raises(LocalProtocolError):
        dialer.send(HELLO)
    assert dialer.state is State.ACTIVE


def test_a_type_that_we_do_not_know_does_not_end_the_connection() -> None:
    _, acceptor = joined()
    acceptor.feed(b"\x00\x00\x00\x02\x10\x2a" + encode(Complete()))
    assert events(acceptor) == [Unknown(42), Complete()]


def test_a_message_that_cannot_be_written_leaves_the_state_alone() -> None:
    dialer = Session(Role.DIALER)
    with pytest.raises(LocalProtocolError):
        dialer.send(Handshake(HELLO.peer_id, DIGEST, HASH, Bitfield(1 << 19)))
    assert dialer.state is State.GREETING
    dialer.send(HELLO)


def test_after_close_nothing_is_read_or_sent() -> None:
    dialer, acceptor = joined()
    data = dialer.send(PiecePayload(0, 0, 100)) + bytes(10)
    acceptor.feed(data)
    assert events(acceptor) == [PiecePayload(0, 0, 100)]
    acceptor.close()
    acceptor.close()
    assert acceptor.payload_left == acceptor.buffered == 0
    acceptor.feed(encode(Complete()))
    acceptor.payload_passed(90)  # a transport may end what it had begun
    assert events(acceptor) == []
    with pytest.raises(LocalProtocolError, match="ACCEPTOR in CLOSED"):
        acceptor.send(Complete())


def test_payload_goes_past_the_session_and_events_go_on_behind_it() -> None:
    dialer, acceptor = joined()
    acceptor.feed(dialer.send(PiecePayload(1, 0, 100)) + b"first")
    assert events(acceptor) == [PiecePayload(1, 0, 100)]
    assert acceptor.take_payload_prefix(3) == b"fir"
    assert acceptor.take_payload_prefix() == b"st"
    assert acceptor.payload_left == 95
    acceptor.payload_passed(90)
    acceptor.feed(b"12345" + dialer.send(AnnouncePiece(1)))
    assert acceptor.next_event() is None
    assert acceptor.take_payload_prefix() == b"12345"
    assert events(acceptor) == [AnnouncePiece(1)]


def test_a_limit_on_frames_can_be_lower() -> None:
    session = Session(Role.ACCEPTOR, max_frame=100)
    session.feed(encode(HELLO))
    with pytest.raises(RemoteProtocolError):
        session.next_event()
    assert len(encode(HELLO)) < MAX_FRAME


@given(st.lists(st.sampled_from(LATER) | st.integers(0, 300), max_size=30), st.lists(st.integers(0, 20000)))
def test_any_split_of_the_stream_decodes_alike(script: list[Message | int], cuts: list[int]) -> None:
    """Numbers stand for payloads of that size."""
    sent: list[Message] = [HELLO]
    stream = encode(HELLO)
    for item in script:
        message = PiecePayload(0, 0, item) if isinstance(item, int) else item
        sent.append(message)
        stream += encode(message) + (bytes(item) if isinstance(item, int) else b"")
    acceptor = Session(Role.ACCEPTOR)
    got: list[Message] = []
    ends = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    for start, end in pairwise(ends):
        acceptor.feed(stream[start:end])
        acceptor.take_payload_prefix()
        while (message := acceptor.next_event()) is not None:
            got.append(message)
            if acceptor.state is State.ANSWERING:
                acceptor.send(REPLY)
            acceptor.take_payload_prefix()
    assert got == sent
    assert acceptor.payload_left == acceptor.buffered == 0
