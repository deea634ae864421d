"""PeerProtocol: one connection. Bytes -> Session -> events for the Engine, and the Engine's effects -> bytes.

A connection is quick to distrust and slow to hold: whatever breaks the rules ends this connection with one line in the
log, and every state in which the peer could keep us waiting has a deadline:

- no handshake within `handshake_s` of the socket,
- a message or payload that has begun and does not go on for `stall_s`,
- bytes of ours that the peer does not take for `stall_s`,
- our half closed, and the peer's half still open after `LINGER_S`.

A connection that is silent between messages is the Engine's business.
"""

from __future__ import annotations

from typing import Protocol as Interface

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from krakentx.core.errors import LocalProtocolError, RemoteProtocolError
from krakentx.core.peer import PeerID, format_address
from krakentx.peer.bulk import BulkTransport
from krakentx.peer.secure import TlsRefused
from krakentx.peer.transfers import CHUNK, FileRun, Sink
from krakentx.swarm.events import ConnID, Event, Lost, MessageReceived, PayloadOffered, PieceProgress
from krakentx.wire.messages import Handshake, Message, PieceChunk, PiecePayload, Unknown
from krakentx.wire.session import Role, Session

LINGER_S = 2.0
CHECK_S = 5.0
PROGRESS_S = 0.25
RETRY_S = 0.001
MESSAGES_PER_TURN = 128
"""Messages of one connection that are handled before the others have their turn.

A peer that fills several within `PATIENCE_S` waits four times as long each time, up to `PACE_S`: some 1,300 messages a
second, more than a download of small pieces at full speed has to say.
"""
PATIENCE_S = 1.0
PACE_S = 0.1
MAX_UNREAD_BYTES = 256 << 10
"""Frames that a peer has not taken yet; with more, we stop reading what it asks for."""


class IPeerOwner(Interface):
    """What a connection needs of the Scheduler."""

    @property
    def congested(self) -> bool:
        """Events came faster than they are handled: connections stop reading for a moment."""

    def connected(self, peer: PeerProtocol) -> None:
        """The socket is up. `disconnected` comes for each."""

    def feed(self, event: Event) -> None:
        """Tell the Engine. Its effects may reach this connection before the call returns, or later."""

    def greeted(self, peer: PeerProtocol, handshake: Handshake) -> None:
        """The handshake came. The connection waits until `peer.go_on()`."""

    def tell(self, peer: PeerProtocol, level: object, text: str, **fields: object) -> None:
        """Log what the peer did, unless it does that all the time."""

    def lost(self, peer: PeerProtocol, reason: Lost) -> None:
        """The connection has ended, as far as the Engine goes. Comes once, and no event follows."""

    def disconnected(self, peer: PeerProtocol) -> None:
        """The socket is gone; after `lost`, for it may linger."""


class PeerProtocol(Protocol):
    """One connection of the peer wire.

    Args:
        conn: known from the start for a dialled connection; an accepted one gets it once it has greeted.
        handshake_s: seconds that the handshake may take.
        stall_s: seconds for which a transfer that has begun may stand still, in either direction.
    """

    log = Logger()
    transport: BulkTransport

    def __init__(
        self,
        owner: IPeerOwner,
        clock: IReactorTime,
        *,
        role: Role,
        conn: ConnID | None = None,
        handshake_s: float = 5.0,
        stall_s: float = 30.0,
    ) -> None:
        self.role = role
        self.conn = conn
        self.session = Session(role)
        self.host = self.addr = "?"
        self.peer_id: PeerID | None = None
        self.active = False
        self._owner = owner
        self._clock = clock
        self._handshake_s = handshake_s
        self._stall_s = stall_s
        self._timer: IDelayedCall | None = None
        self._resume: IDelayedCall | None = None
        self._reason: Lost | None = None  # why we are closing, once we are
        self._lost = False
        self._waiting = False  # the owner must decide before we read on
        self._sink: Sink | None = None  # of the piece that comes
        self._passing = 0  # bytes of it that the transport now takes past the session
        self._reading = False  # we are in the loop over messages, now
        self._pace_s = RETRY_S  # how long we pause after a full turn
        self._full_at = -PATIENCE_S  # when the last one was
        self._heard_at = 0.0
        self._progress_at = 0.0
        self._sent_total = 0
        self._sent_at = 0.0

    # --- from Twisted

    def connectionMade(self) -> None:
        """Twisted: the socket is up."""
        peer = self.transport.getPeer()  # type: ignore[no-untyped-call]
        self.host = peer.host.removeprefix("::ffff:")
        self.addr = format_address(self.host, peer.port)
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)
        self.transport.frame_left = self._frame_left
        self._heard_at = self._sent_at = self._clock.seconds()
        self._timer = self._clock.callLater(self._handshake_s, self._no_handshake)
        self._owner.connected(self)

    def dataReceived(self, data: bytes) -> None:
        """Twisted: bytes came that are not payload."""
        if self._reason is not None:
            return
        self._heard_at = self._clock.seconds()
        self.session.feed(data)
        self._read_on()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: the socket is gone."""
        for timer in (self._timer, self._resume):
            if timer is not None and timer.active():
                timer.cancel()
        if reason.check(TlsRefused) is not None:
            text = "TLS: closing {addr}: {problem}"
            self._owner.tell(self, LogLevel.warn, text, addr=self.addr, problem=str(reason.value))
        clean = reason.check(ConnectionDone) is not None and not self.session.buffered and not self.session.payload_left
        self._reason = self._reason or (Lost.CLEAN if clean else Lost.RESET)
        self.session.close()
        self._tell_lost()
        self._owner.disconnected(self)

    def _tell_lost(self) -> None:
        if not self._lost and self._reason is not None:
            self._lost = True
            self._owner.lost(self, self._reason)

    # --- reading

    def _frame_left(self) -> int:
        # Closing, we read on and drop; and a size that is out of bounds is refused when the length is here.
        return min(self.session.frame_left, self.transport.bufferSize) or self.transport.bufferSize

    def _read_on(self) -> None:
        """Handle messages until there is none, or one must be decided, or others should have a turn."""
        if self._reading:
            return
        self._reading = True
        try:
            for _ in range(MESSAGES_PER_TURN):
                if self._waiting or self._passing or self._reason is not None or self._must_pause():
                    break
                message = self.session.next_event()
                if message is None:
                    break
                self._handle(message)
            else:
                self._pause(self._pace())
        except RemoteProtocolError as error:
            text = "closing {addr}: it broke the protocol: {problem}"
            self._owner.tell(self, LogLevel.warn, text, addr=self.addr, problem=str(error))
            self.abort(Lost.PROTOCOL)
        finally:
            self._reading = False
        if self._waiting and self._reason is None:
            self.transport.pauseProducing()

    def _pace(self) -> float:
        """How long to wait after a full turn."""
        now = self._clock.seconds()
        often = now - self._full_at < PATIENCE_S
        self._full_at = now
        self._pace_s = min(4 * self._pace_s, PACE_S) if often else RETRY_S
        return self._pace_s

    def _must_pause(self) -> bool:
        unread = self.transport.frames_waiting > MAX_UNREAD_BYTES
        if unread or self._owner.congested:
            self._pause(PROGRESS_S if unread else RETRY_S)
            return True
        return False

    def _pause(self, delay_s: float) -> None:
        """Stop reading, and try again after the others had their turn."""
        self.transport.pauseProducing()
        if self._resume is None:
            self._resume = self._clock.callLater(delay_s, self._unpause)

    def _unpause(self) -> None:
        self._resume = None
        if self._pace_s == PACE_S and self.transport.hung_up:
            self.abort(Lost.RESET)  # else it would keep its place until we had read all that it said
        else:
            self._go()

    def _go(self) -> None:
        """Read on, first what is here already, then from the socket."""
        if self._reason is None and not self._waiting and not self._passing:
            self._read_on()
        if self._reason is None and not self._waiting and self._resume is None:
            self.transport.resumeProducing()

    def _handle(self, message: Message) -> None:
        if isinstance(message, PieceChunk):
            self._take_chunk()
            return
        self.log.debug("{addr} sent {message}", addr=self.addr, message=message)
        if isinstance(message, Handshake):
            self._waiting = True
            self.peer_id = message.peer_id
            self._owner.greeted(self, message)
        elif isinstance(message, Unknown) or self.conn is None:
            return
        elif isinstance(message, PiecePayload):
            self._waiting = True
            self._owner.feed(PayloadOffered(self.conn, message))
        else:
            self._owner.feed(MessageReceived(self.conn, message))

    # --- for the Scheduler: what the Engine decided

    @property
    def closing(self) -> bool:
        """It is closed, or soon will be: nothing more may be asked of it."""
        return self._reason is not None

    def go_on(self) -> None:
        """What we waited for is decided."""
        self._waiting = False
        if not self._reading:
            self._go()

    def activate(self) -> None:
        """Both handshakes are through: the deadline of the handshake is off, that of transfers on."""
        self.active = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._clock.callLater(CHECK_S, self._check)
        if self.session.chunks:
            self.transport.bound_unsent()

    def send(self, message: Message) -> None:
        """Write one message.

        Raises:
            LocalProtocolError: it is not legal now.
        """
        self.log.debug("to {addr}: {message}", addr=self.addr, message=message)
        self.transport.write(self.session.send(message))

    def send_file(self, header: PiecePayload, run: FileRun) -> None:
        """Queue a piece: its header, then the bytes of the file; in chunks when the peer knows them.

        Raises:
            LocalProtocolError: it is not legal now, or too much is queued.
        """
        if self.session.chunks and run.remaining > CHUNK:
            run.cut(lambda size: self.session.send(PieceChunk(size)))
            header = PiecePayload(header.index, header.offset, header.length, run.due)
        run.header = self.session.send(header)
        self.transport.send_file(run)

    def receive(self, sink: Sink) -> None:
        """Let the payload that was offered go into the sink, whose `on_end` is called first; then read on.

        Raises:
            LocalProtocolError: the sink takes another number of bytes than come.
        """
        if sink.remaining != self.session.payload_left:
            raise LocalProtocolError(f"{self.session.payload_left} bytes come, the sink takes {sink.remaining}")
        ended = sink.on_end

        def on_end(complete: bool) -> None:
            self._sink = None
            self._passed(complete)
            ended(complete)
            if complete and not self.closing:
                self.go_on()

        sink.on_end = on_end
        sink.on_chunk = self._passed
        sink.on_progress = self._progress
        self._sink = sink
        self.transport.receive_file(sink)
        self._take_chunk()
        if self._sink is sink:
            self.go_on()

    def _take_chunk(self) -> None:
        """Let the bytes that were just announced go into the sink: those that are here, then the rest past us."""
        sink = self._sink
        assert sink is not None, "the session lets no chunk come without its piece"
        prefix = memoryview(self.session.take_payload_prefix())
        self.transport.charge(len(prefix))
        sink.take(prefix)
        self._passing = sink.due = self.session.chunk_left
        if not sink.remaining:
            self.transport.receive_file(None)
            sink.on_end(True)

    def _passed(self, complete: bool = True) -> None:
        """The rest of the chunk came, or will not come any more."""
        passed, self._passing = self._passing, 0
        if complete and passed:
            self.session.payload_passed(passed)

    def skip(self) -> None:
        """Read the payload that was offered and drop it, then read on."""
        self.receive(Sink(None, 0, self.session.payload_left, _ignore))

    def _progress(self) -> None:
        now = self._clock.seconds()
        self._heard_at = now
        if self.conn is not None and now - self._progress_at >= PROGRESS_S:
            self._progress_at = now
            self._owner.feed(PieceProgress(self.conn))

    # --- the end

    def close(self) -> None:
        """Close in an orderly way; the owner is told at once, the socket may linger a moment."""
        if self._reason is not None:
            return
        self._reason = Lost.LOCAL
        self.session.close()
        self._tell_lost()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._clock.callLater(LINGER_S, self.transport.abortConnection)
        self.transport.hang_up()

    def abort(self, reason: Lost = Lost.LOCAL) -> None:
        """Close at once, with a reset; the owner is told at once."""
        self._reason = self._reason or reason
        self.session.close()
        self._tell_lost()
        self.transport.abortConnection()

    # --- deadlines

    def _no_handshake(self) -> None:
        self.log.debug("closing {addr}: no handshake came in time", addr=self.addr)
        self.abort(Lost.TIMEOUT)

    def _check(self) -> None:
        now = self._clock.seconds()
        if self.transport.sent_total != self._sent_total or not self.transport.sending:
            self._sent_total, self._sent_at = self.transport.sent_total, now
        expecting = (self.session.buffered or self.session.payload_left) and not self._waiting
        if not expecting or self.transport.read_held:
            self._heard_at = now
        if now - min(self._sent_at, self._heard_at) >= self._stall_s:
            text = "closing {addr}: it stands still in the midst of a transfer"
            self._owner.tell(self, LogLevel.info, text, addr=self.addr)
            self.abort(Lost.TIMEOUT)
            return
        self._timer = self._clock.callLater(CHECK_S, self._check)


def _ignore(_complete: bool) -> None:
    """Nobody waits for a payload that is dropped."""
