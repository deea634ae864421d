"""One connection: a real socket, an owner that records, and a clock that moves when told."""

from __future__ import annotations

import os

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from krakentx.core.bitfield import Bitfield
from krakentx.core.digest import Digest
from krakentx.core.errors import LocalProtocolError
from krakentx.core.peer import InfoHash, PeerID
from krakentx.peer import protocol as protocol_module
from krakentx.peer.counters import Counters
from krakentx.peer.protocol import CHECK_S, LINGER_S, MESSAGES_PER_TURN, PeerProtocol
from krakentx.peer.secure import BulkPort
from krakentx.peer.transfers import FileRun, Sink
from krakentx.swarm.events import Lost, MessageReceived, PayloadOffered, PieceProgress
from krakentx.wire.codec import encode
from krakentx.wire.messages import AnnouncePiece, Complete, Handshake, PiecePayload, PieceRequest
from krakentx.wire.session import Role
from tests.peer.swarm import until

pytestmark = pytest.mark.integration

HELLO = Handshake(PeerID(bytes(20)), Digest.of(b""), InfoHash(bytes(20)), Bitfield(4), "ns")
REPLY = Handshake(PeerID(bytes([1]) * 20), Digest.of(b""), InfoHash(bytes(20)), Bitfield(4))


class Owner:
    """Records what it is told; `decide` is called for each event."""

    def __init__(self):
        self.congested = False
        self.events = []
        self.handshakes = []
        self.lost_reasons = []
        self.told = []
        self.gone = False
        self.decide = lambda event: None

    def connected(self, peer):
        peer.transport.account(Counters())

    def feed(self, event):
        self.events.append(event)
        self.decide(event)

    def greeted(self, peer, handshake):
        self.handshakes.append(handshake)

    def tell(self, peer, level, text, **fields):
        self.told.append(text)

    def lost(self, peer, reason):
        self.lost_reasons.append(reason)

    def disconnected(self, peer):
        self.gone = True


@pytest.fixture
def owner():
    return Owner()


@pytest_twisted.async_yield_fixture
async def pair(owner, clock, dial, logs):
    """A protocol that accepted, and the raw client at its other end."""
    peer = PeerProtocol(owner, clock, role=Role.ACCEPTOR)
    factory = Factory.forProtocol(lambda: peer)
    factory.noisy = False
    port = BulkPort(0, factory, 5, "127.0.0.1", reactor)
    port.startListening()
    client = await dial(port.getHost().port)
    await until(lambda: peer.transport is not None)
    yield peer, client
    await port.stopListening()
    peer.abort()
    clock.advance(LINGER_S)
    await until(lambda: owner.gone)


async def activate(peer, client, owner):
    """Let both handshakes pass."""
    client.send(encode(HELLO))
    await until(lambda: owner.handshakes)
    peer.conn = 1
    peer.send(REPLY)
    peer.activate()
    peer.go_on()
    await client.until(encode(REPLY))
    client.received = b""


async def turns(clock, count=5):
    """Let both the reactor and the clock pass some moments."""
    for _ in range(count):
        await deferLater(reactor, 0.002)
        clock.advance(0.001)


@pytest_twisted.ensureDeferred
async def test_a_handshake_may_come_in_drops(pair, owner):
    peer, client = pair
    for byte in encode(HELLO):
        client.send(bytes([byte]))
        await deferLater(reactor, 0)
    await until(lambda: owner.handshakes)
    assert owner.handshakes == [HELLO]
    assert peer.peer_id == HELLO.peer_id
    assert peer.addr.startswith("127.0.0.1:")


@pytest_twisted.ensureDeferred
async def test_nothing_is_read_before_the_handshake_is_decided(pair, owner, clock):
    peer, client = pair
    client.send(encode(HELLO) + encode(AnnouncePiece(3)))
    await turns(clock)
    assert owner.handshakes == [HELLO]
    peer.conn = 7
    peer.send(REPLY)
    peer.activate()
    assert owner.events == []
    peer.go_on()
    assert owner.events == [MessageReceived(7, AnnouncePiece(3))]


@pytest_twisted.ensureDeferred
async def test_no_handshake_in_time(pair, owner, clock):
    _peer, client = pair
    client.send(encode(HELLO)[:-1])
    clock.advance(4.9)
    assert owner.lost_reasons == []
    clock.advance(0.2)
    assert owner.lost_reasons == [Lost.TIMEOUT]
    await client.closed()
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("size", [0, 10, 300_000])
@pytest_twisted.ensureDeferred
async def test_payload_goes_where_it_was_decided(pair, owner, clock, tmp_path, size, at_once):
    peer, client = pair
    await activate(peer, client, owner)
    data = os.urandom(size)
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    ended = []

    def receive():
        peer.receive(Sink(fd, 5, size, ended.append))

    owner.decide = lambda event: receive() if isinstance(event, PayloadOffered) and at_once else None
    client.send(encode(PiecePayload(2, 0, size)) + data + encode(AnnouncePiece(1)))
    await turns(clock, 10)
    if not at_once:
        assert owner.events == [PayloadOffered(1, PiecePayload(2, 0, size))]
        receive()
    await until(lambda: MessageReceived(1, AnnouncePiece(1)) in owner.events)
    assert ended == [True]
    assert os.pread(fd, size + 5, 5) == data
    os.close(fd)


@pytest_twisted.ensureDeferred
async def test_payload_can_be_skipped(pair, owner, clock):
    peer, client = pair
    await activate(peer, client, owner)
    owner.decide = lambda event: peer.skip() if isinstance(event, PayloadOffered) else None
    for _ in range(3):
        client.send(encode(PiecePayload(2, 0, 200_000)) + bytes(200_000))
    client.send(encode(Complete()))
    await until(lambda: MessageReceived(1, Complete()) in owner.events)


@pytest_twisted.ensureDeferred
async def test_a_sink_of_another_size_is_our_bug(pair, owner, clock):
    peer, client = pair
    await activate(peer, client, owner)
    client.send(encode(PiecePayload(2, 0, 100)))
    await turns(clock)
    with pytest.raises(LocalProtocolError):
        peer.receive(Sink(None, 0, 99, lambda _: None))


@pytest_twisted.ensureDeferred
async def test_progress_is_told_now_and_then(pair, owner, clock):
    peer, client = pair
    await activate(peer, client, owner)
    owner.decide = lambda event: (
        peer.receive(Sink(None, 0, 100_000, lambda _: None)) if isinstance(event, PayloadOffered) else None
    )
    client.send(encode(PiecePayload(2, 0, 100_000)))
    await turns(clock)
    for _ in range(10):
        clock.advance(0.1)
        client.send(bytes(10_000))
        await deferLater(reactor, 0.005)
    assert 2 <= sum(isinstance(event, PieceProgress) for event in owner.events) <= 5


@pytest.mark.parametrize("part", [encode(AnnouncePiece(1))[:-1], encode(PiecePayload(0, 0, 100)) + bytes(50)])
@pytest_twisted.ensureDeferred
async def test_a_transfer_that_stands_still_is_cut(pair, owner, clock, part):
    peer, client = pair
    await activate(peer, client, owner)
    owner.decide = lambda event: peer.skip() if isinstance(event, PayloadOffered) else None
    client.send(part)
    await turns(clock)
    for _ in range(5):
        clock.advance(CHECK_S)
    assert owner.lost_reasons == []
    for _ in range(3):
        clock.advance(CHECK_S)
    assert owner.lost_reasons == [Lost.TIMEOUT]


@pytest_twisted.ensureDeferred
async def test_a_peer_that_takes_nothing_is_cut(pair, owner, clock, tmp_path):
    peer, client = pair
    await activate(peer, client, owner)
    client.transport.pauseProducing()
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 64 << 20)
    ended = []
    peer.send_file(PiecePayload(0, 0, 64 << 20), FileRun(b"", fd, 0, 64 << 20, lambda: None, ended.append))
    await deferLater(reactor, 0.1)
    for _ in range(8):
        clock.advance(CHECK_S)
    assert owner.lost_reasons == [Lost.TIMEOUT]
    assert ended == [False]
    os.close(fd)


@pytest_twisted.ensureDeferred
async def test_silence_between_messages_is_no_fault(pair, owner, clock):
    peer, client = pair
    await activate(peer, client, owner)
    for _ in range(100):
        clock.advance(CHECK_S)
    assert owner.lost_reasons == []


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (encode(AnnouncePiece(1)), Lost.CLEAN),
        (encode(AnnouncePiece(1))[:-1], Lost.RESET),
        (encode(PiecePayload(0, 0, 100)) + bytes(99), Lost.RESET),
    ],
)
@pytest_twisted.ensureDeferred
async def test_why_a_connection_ended(pair, owner, clock, last, reason):
    peer, client = pair
    await activate(peer, client, owner)
    owner.decide = lambda event: peer.skip() if isinstance(event, PayloadOffered) else None
    client.send(last)
    await turns(clock)
    client.transport.loseConnection()
    await until(lambda: owner.lost_reasons)
    assert owner.lost_reasons == [reason]
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_closing_tells_at_once_and_lingers_for_the_last_words(pair, owner, clock):
    peer, client = pair
    await activate(peer, client, owner)
    client.transport.pauseProducing()  # it does not see our end, and does not close
    peer.send(Complete())
    peer.close()
    peer.close()
    assert owner.lost_reasons == [Lost.LOCAL]
    client.send(encode(AnnouncePiece(2)))
    await turns(clock)
    assert owner.events == []
    assert not owner.gone
    clock.advance(LINGER_S + 0.1)
    await until(lambda: owner.gone)
    assert owner.lost_reasons == [Lost.LOCAL]


@pytest_twisted.ensureDeferred
async def test_last_words_arrive(pair, owner, clock):
    peer, client = pair
    await activate(peer, client, owner)
    client.send(encode(AnnouncePiece(2)) * 1000)  # unread when we close
    peer.send(Complete())
    peer.close()
    assert await client.closed() == encode(Complete())


@pytest_twisted.ensureDeferred
async def test_a_broken_rule_is_one_line_and_a_reset(pair, owner, clock, logs):
    peer, client = pair
    await activate(peer, client, owner)
    client.send((1 << 30).to_bytes(4, "big"))
    await client.closed()
    assert owner.lost_reasons == [Lost.PROTOCOL]
    assert owner.told == ["closing {addr}: it broke the protocol: {problem}"]


@pytest_twisted.ensureDeferred
async def test_no_connection_takes_a_whole_turn(pair, owner, clock):
    peer, client = pair
    await activate(peer, client, owner)
    count = 3 * MESSAGES_PER_TURN
    client.send(encode(AnnouncePiece(1)) * count)
    await deferLater(reactor, 0.02)
    assert len(owner.events) == MESSAGES_PER_TURN
    await turns(clock, 10)
    assert len(owner.events) == count


@pytest_twisted.ensureDeferred
async def test_reading_waits_while_the_owner_is_congested(pair, owner, clock):
    peer, client = pair
    await activate(peer, client, owner)
    owner.congested = True
    client.send(encode(AnnouncePiece(1)))
    await turns(clock)
    assert owner.events == []
    owner.congested = False
    await turns(clock)
    assert len(owner.events) == 1


@pytest_twisted.ensureDeferred
async def test_requests_wait_while_our_answers_are_not_read(pair, owner, clock, monkeypatch):
    peer, client = pair
    await activate(peer, client, owner)
    monkeypatch.setattr(protocol_module, "MAX_UNREAD_BYTES", -1)
    client.send(encode(PieceRequest(1, 0, 5)))
    await turns(clock)
    assert owner.events == []
    monkeypatch.undo()
    clock.advance(1)
    await turns(clock)
    assert len(owner.events) == 1
