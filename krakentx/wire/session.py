"""Session: one connection of the peer wire, without its socket and without a clock.

Bytes in, legal messages out; legal messages in, bytes out. The owner works it so:

    session.feed(data)
    while (message := session.next_event()) is not None:
        ...                                     # a PiecePayload: its raw bytes come next
    transport.write(session.send(message))

After a `PiecePayload` or a `PieceChunk` no event comes until its `chunk_left` bytes have passed: first
`take_payload_prefix()` for those which are here already, then either `payload_passed(n)` for what was read from the
socket past the session, or further `feed` and `take_payload_prefix` (a payload that nobody wants). `next_event()` then
goes on. Between two peers that both know chunks a piece comes in several of them, and other messages in between; it is
whole when `payload_left` is 0.

Theory of operation. The dialer speaks first: its handshake is answered by the acceptor's, then both sides send what
they like in any order. The table below is all there is, but for the order of chunks: a pair that it lacks is an error,
ours when we were about to send and the peer's when it sent. Deadlines, and whether the ids in a handshake are the right
ones, are for the owner.
"""

from __future__ import annotations

from enum import Enum, auto

from krakentx.core.errors import LocalProtocolError, RemoteProtocolError
from krakentx.wire.codec import decode, encode
from krakentx.wire.framing import MAX_FRAME, Framer
from krakentx.wire.messages import CHUNKS, Handshake, Message, PieceChunk, PiecePayload, Unknown

MIN_CHUNK = 16 << 10
"""Bytes of a chunk that is not the last, at least: or a piece could be made a million frames."""


class Role(Enum):
    """Who opened the connection."""

    DIALER = auto()
    ACCEPTOR = auto()


class State(Enum):
    """How far the two have come."""

    GREETING = auto()  # dialer: our handshake is to be sent
    AWAITING = auto()  # dialer: it is sent, the reply is to come
    LISTENING = auto()  # acceptor: nothing came yet
    ANSWERING = auto()  # acceptor: theirs came, our reply is to be sent
    ACTIVE = auto()
    CLOSED = auto()


class _Input(Enum):
    SEND_HANDSHAKE = auto()
    SEND = auto()
    RECEIVE_HANDSHAKE = auto()
    RECEIVE = auto()


_START = {Role.DIALER: State.GREETING, Role.ACCEPTOR: State.LISTENING}

_TABLE = {
    (State.GREETING, _Input.SEND_HANDSHAKE): State.AWAITING,
    (State.AWAITING, _Input.RECEIVE_HANDSHAKE): State.ACTIVE,
    (State.LISTENING, _Input.RECEIVE_HANDSHAKE): State.ANSWERING,
    (State.ANSWERING, _Input.SEND_HANDSHAKE): State.ACTIVE,
    (State.ACTIVE, _Input.SEND): State.ACTIVE,
    (State.ACTIVE, _Input.RECEIVE): State.ACTIVE,
    # The reference lets a second handshake pass with a line in its log, so it must not end the connection.
    (State.ACTIVE, _Input.RECEIVE_HANDSHAKE): State.ACTIVE,
}


class Session:
    """One connection's wire.

    Args:
        role: who opened the connection.
        max_frame: bytes; a longer frame from the peer is refused on sight of its length.
    """

    def __init__(self, role: Role, *, max_frame: int = MAX_FRAME) -> None:
        self.role = role
        self.state = _START[role]
        self._framer = Framer(max_frame)
        self._we_chunk = self._peer_chunks = False
        self._unannounced = 0  # bytes of the piece under way for which no frame has come

    @property
    def chunks(self) -> bool:
        """Both sides know chunks."""
        return self._we_chunk and self._peer_chunks

    @property
    def payload_left(self) -> int:
        """Raw bytes of the last `PiecePayload` that have not passed yet."""
        return self._framer.payload_left + self._unannounced

    @property
    def chunk_left(self) -> int:
        """Those of them that come before the next frame."""
        return self._framer.payload_left

    @property
    def frame_left(self) -> int:
        """Bytes that are still needed to see the next frame, or its length; 0 = none, or payload has to pass first."""
        return self._framer.frame_left

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not yet taken: after `next_event` gave None, the beginning of a frame."""
        return self._framer.buffered

    def send(self, message: Message) -> bytes:
        """What to write for a message.

        Raises:
            LocalProtocolError: it is not legal now (nothing is after `close`), or cannot be written.
        """
        input_ = _Input.SEND_HANDSHAKE if isinstance(message, Handshake) else _Input.SEND
        state = _TABLE.get((self.state, input_))
        if state is None:
            raise LocalProtocolError(
                f"{type(message).__name__} may not be sent by a {self.role.name} in {self.state.name}"
            )
        if (
            isinstance(message, PieceChunk) or (isinstance(message, PiecePayload) and message.chunk)
        ) and not self.chunks:
            raise LocalProtocolError("a piece may be sent in chunks only where both sides know them")
        data = encode(message)
        self.state = state
        if isinstance(message, Handshake):
            self._we_chunk = CHUNKS in message.features
        return data

    def feed(self, data: bytes | memoryview) -> None:
        """Add bytes from the socket; after `close` they are dropped."""
        if self.state is not State.CLOSED:
            self._framer.feed(data)

    def next_event(self) -> Message | None:
        """The next message; None when more bytes are needed, payload has to pass first, or the session is closed.

        Raises:
            RemoteProtocolError: the peer broke the rules. The owner closes the connection; the session is closed.
        """
        if self.state is State.CLOSED:
            return None
        try:
            return self._next()
        except RemoteProtocolError:
            self.close()
            raise

    def _next(self) -> Message | None:
        frame = self._framer.next_frame()
        if frame is None:
            return None
        message = decode(frame)
        input_ = _Input.RECEIVE_HANDSHAKE if isinstance(message, Handshake) else _Input.RECEIVE
        state = _TABLE.get((self.state, input_))
        if state is None:
            raise RemoteProtocolError(f"{type(message).__name__} came to a {self.role.name} in {self.state.name}")
        before, self.state = self.state, state
        if isinstance(message, PiecePayload):
            self._begin_piece(message)
        elif isinstance(message, PieceChunk):
            self._begin_chunk(message.length)
        elif isinstance(message, Handshake):
            if before is State.ACTIVE:
                return Unknown(0)
            self._peer_chunks = CHUNKS in message.features
        return message

    def _begin_piece(self, message: PiecePayload) -> None:
        if self._unannounced:
            raise RemoteProtocolError(f"piece {message.index} came within another one")
        if message.chunk:
            self._unannounced = message.length
            self._begin_chunk(message.chunk)
        else:
            self._framer.begin_payload(message.length)

    def _begin_chunk(self, length: int) -> None:
        left = self._unannounced - length
        if not self.chunks:
            raise RemoteProtocolError("a chunk came, and we have not agreed on them")
        if left < 0 or not length:
            raise RemoteProtocolError(f"a chunk of {length} bytes came, {self._unannounced} are left of the piece")
        if left and length < MIN_CHUNK:
            raise RemoteProtocolError(f"a chunk of {length} bytes came, at least {MIN_CHUNK} wanted")
        self._unannounced = left
        self._framer.begin_payload(length)

    def take_payload_prefix(self, limit: int | None = None) -> bytes:
        """The chunk's next bytes that are here already, at most `limit` of them; empty when none are."""
        return self._framer.take_payload_prefix(limit)

    def payload_passed(self, count: int) -> None:
        """`count` bytes of the chunk were read from the socket past the session; after `close` nobody counts.

        Raises:
            LocalProtocolError: bytes that came earlier were not taken, or it is more than the chunk.
        """
        if self.state is not State.CLOSED:
            self._framer.payload_passed(count)

    def close(self) -> None:
        """Nothing more is sent or read. May be called twice."""
        self.state = State.CLOSED
        self._framer = Framer()
        self._unannounced = 0
