"""Framer and session under any order of calls and any cut of the stream, beside models too simple to be wrong."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from krakentx.core.errors import LocalProtocolError, RemoteProtocolError
from krakentx.wire.codec import encode
from krakentx.wire.framing import MAX_FRAME, Framer
from krakentx.wire.messages import AnnouncePiece, Complete, Handshake, Message, PiecePayload, PieceRequest, Unknown
from krakentx.wire.session import Role, Session, State
from tests.wire.test_codec import handshakes, others

_PREFIX = 4


class Frames(RuleBasedStateMachine):
    """The framer beside the bytes themselves: `rest` is all that was fed and not taken."""

    def __init__(self) -> None:
        super().__init__()
        self.framer = Framer()
        self.rest = b""
        self.payload = 0

    @rule(data=st.binary(max_size=40) | st.binary(max_size=9).map(lambda body: len(body).to_bytes(4, "big") + body))
    def feed(self, data: bytes) -> None:
        self.framer.feed(data)
        self.rest += data

    @rule()
    def take_a_frame(self) -> None:
        size = int.from_bytes(self.rest[:_PREFIX], "big")
        if self.payload or len(self.rest) < _PREFIX:
            assert self.framer.next_frame() is None
        elif size > MAX_FRAME:
            with pytest.raises(RemoteProtocolError):
                self.framer.next_frame()
        elif len(self.rest) < _PREFIX + size:
            assert self.framer.next_frame() is None
        else:
            assert self.framer.next_frame() == self.rest[_PREFIX : _PREFIX + size]
            self.rest = self.rest[_PREFIX + size :]

    @rule(length=st.integers(0, 60))
    def begin_a_payload(self, length: int) -> None:
        if self.payload:
            with pytest.raises(LocalProtocolError):
                self.framer.begin_payload(length)
        else:
            self.framer.begin_payload(length)
            self.payload = length

    @rule(limit=st.none() | st.integers(0, 30))
    def take_payload(self, limit: int | None) -> None:
        size = min(self.payload, len(self.rest), len(self.rest) if limit is None else limit)
        assert self.framer.take_payload_prefix(limit) == self.rest[:size]
        self.rest = self.rest[size:]
        self.payload -= size

    @rule(count=st.integers(0, 60))
    def read_past(self, count: int) -> None:
        if self.rest or count > self.payload:
            with pytest.raises(LocalProtocolError):
                self.framer.payload_passed(count)
        else:
            self.framer.payload_passed(count)
            self.payload -= count

    @invariant()
    def they_agree(self) -> None:
        assert self.framer.buffered == len(self.rest)
        assert self.framer.payload_left == self.payload


class Talk(RuleBasedStateMachine):
    """Two sessions that send what they like, over lines that cut anywhere; payload is taken by either door."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = [End(Session(Role.DIALER)), End(Session(Role.ACCEPTOR))]

    @initialize(hello=handshakes)
    def the_dialer_greets(self, hello: Handshake) -> None:
        self.send(0, hello)

    @precondition(lambda self: self.ends[1].session.state is State.ANSWERING)
    @rule(hello=handshakes)
    def the_acceptor_answers(self, hello: Handshake) -> None:
        self.send(1, hello)

    @rule(who=st.integers(0, 1), message=others)
    def say(self, who: int, message: Message) -> None:
        if isinstance(message, PiecePayload):
            return
        if self.ends[who].session.state is State.ACTIVE:
            self.send(who, message)
        else:
            with pytest.raises(LocalProtocolError):
                self.ends[who].session.send(message)

    @rule(who=st.integers(0, 1), data=st.binary(max_size=80))
    def give_a_piece(self, who: int, data: bytes) -> None:
        if self.ends[who].session.state is State.ACTIVE:
            self.send(who, PiecePayload(1, 0, len(data)), data)

    @rule(who=st.integers(0, 1), count=st.integers(1, 400), past=st.booleans())
    def deliver(self, who: int, count: int, past: bool) -> None:
        self.ends[who].receive(count, past)

    def send(self, who: int, message: Message, payload: bytes = b"") -> None:
        other = self.ends[1 - who]
        other.line += self.ends[who].session.send(message) + payload
        other.due.append(message)
        other.payload_due += payload

    @invariant()
    def nothing_is_held_for_long(self) -> None:
        for end in self.ends:
            assert end.session.buffered <= MAX_FRAME + _PREFIX

    def teardown(self) -> None:
        """What is still on its way comes."""
        for _ in range(2):  # an acceptor that has not answered was told nothing more than a handshake
            for end in self.ends:
                while end.line:
                    end.receive(1000, False)
        for end in self.ends:
            assert not end.due
            assert end.payload_due == b""
            assert end.session.buffered == end.session.payload_left == 0


class End:
    """One side: its session, the bytes on their way to it, and what they must turn out to be."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.line = b""
        self.due: deque[Message] = deque()
        self.payload_due = b""

    def receive(self, count: int, past: bool) -> None:
        """Take so many bytes off the line."""
        session = self.session
        if past and session.payload_left and not session.buffered:
            count = min(count, session.payload_left, len(self.line))
            session.payload_passed(count)
            self._payload(self.line[:count])
        else:
            session.feed(self.line[:count])
        self.line = self.line[count:]
        self._payload(session.take_payload_prefix())
        while (message := session.next_event()) is not None:
            assert message == self.due.popleft()
            self._payload(session.take_payload_prefix())

    def _payload(self, data: bytes) -> None:
        assert self.payload_due.startswith(data)
        self.payload_due = self.payload_due[len(data) :]


class Orders(RuleBasedStateMachine):
    """A session and a peer that says anything at any time: only what its state allows comes out, else it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session(Role.ACCEPTOR)

    @rule(message=handshakes | st.sampled_from([AnnouncePiece(1), Complete(), PieceRequest(0, 0, 1)]))
    def hear(self, message: Message) -> None:
        before = self.session.state
        self.session.feed(encode(message))
        greeting = isinstance(message, Handshake)
        if before is State.CLOSED:
            assert self.session.next_event() is None
        elif before is State.ACTIVE:
            assert self.session.next_event() == (Unknown(0) if greeting else message)
        elif before is State.LISTENING and greeting:
            assert self.session.next_event() == message
            assert self.session.state is State.ANSWERING
        else:
            with pytest.raises(RemoteProtocolError):
                self.session.next_event()
            assert self.session.state is State.CLOSED

    @rule(message=handshakes | st.just(Complete()))
    def say(self, message: Message) -> None:
        legal = State.ANSWERING if isinstance(message, Handshake) else State.ACTIVE
        if self.session.state is legal:
            assert self.session.send(message) == encode(message)
            assert self.session.state is State.ACTIVE
        else:
            before = self.session.state
            with pytest.raises(LocalProtocolError):
                self.session.send(message)
            assert self.session.state is before

    @rule(chance=st.integers(0, 9))
    def close(self, chance: int) -> None:
        if chance == 0:
            self.session.close()
            assert self.session.buffered == 0


for machine in (Frames, Talk, Orders):
    machine.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)

TestFrames = Frames.TestCase
TestTalk = Talk.TestCase
TestOrders = Orders.TestCase
