"""Pieces in chunks over real sockets: what is said meanwhile arrives meanwhile."""

from __future__ import annotations

import os
import random
import socket

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from krakentx.core.bitfield import Bitfield
from krakentx.core.digest import Digest
from krakentx.core.peer import InfoHash, PeerID
from krakentx.peer.counters import Counters
from krakentx.peer.protocol import PeerProtocol
from krakentx.peer.rates import Gate
from krakentx.peer.secure import BulkPort
from krakentx.peer.transfers import CHUNK, FileRun, Sink
from krakentx.swarm.events import Lost, MessageReceived, PayloadOffered
from krakentx.wire.codec import decode, encode
from krakentx.wire.messages import CHUNKS, AnnouncePiece, CancelPiece, Complete, Handshake, PieceChunk, PiecePayload
from krakentx.wire.session import MIN_CHUNK, Role
from tests.peer.swarm import until

pytestmark = pytest.mark.integration

MIB = 1 << 20
HELLO = Handshake(PeerID(bytes(20)), Digest.of(b""), InfoHash(bytes(20)), Bitfield(4), "ns", features={CHUNKS})
REPLY = Handshake(PeerID(bytes([1]) * 20), Digest.of(b""), InfoHash(bytes(20)), Bitfield(4), features={CHUNKS})


class Side:
    """One end: takes every piece into a file, and notes what came in which order."""

    congested = False

    def __init__(self, path):
        self.came = []
        self.greetings = []
        self.lost_reason = None
        self.gone = False
        self.peer = None
        self.gates = {}
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT)

    def connected(self, peer):
        self.peer = peer
        peer.transport.account(Counters(), **self.gates)

    def greeted(self, peer, handshake):
        self.greetings.append(handshake)

    def feed(self, event):
        if isinstance(event, PayloadOffered):
            self.came.append("begin")
            sink = Sink(self.fd, 0, event.payload.length, lambda complete: self.came.append(("end", complete)))
            self.peer.receive(sink)
        elif isinstance(event, MessageReceived):
            self.came.append(event.message)

    def tell(self, peer, level, text, **fields):
        """Nothing is logged."""

    def lost(self, peer, reason):
        self.lost_reason = reason

    def disconnected(self, peer):
        self.gone = True

    def send_piece(self, fd, size):
        run = FileRun(b"", fd, 0, size, lambda: self.came.append("sending"), lambda ok: self.came.append(("sent", ok)))
        self.peer.send_file(PiecePayload(2, 0, size), run)


@pytest_twisted.async_yield_fixture
async def meet(tmp_path, dial, logs):
    """Join one side of ours with a raw client, over small buffers; or two sides of ours."""
    sides, ports = [], []

    async def make(*, hello=HELLO, reply=REPLY, gates=None, small=True):
        side = Side(tmp_path / f"side{len(sides)}")
        side.gates = gates or {}
        sides.append(side)
        protocol = PeerProtocol(side, reactor, role=Role.ACCEPTOR, conn=1)
        factory = Factory.forProtocol(lambda: protocol)
        factory.noisy = False
        port = BulkPort(0, factory, 5, "127.0.0.1", reactor)
        port.startListening()
        ports.append(port)
        client = await dial(port.getHost().port)
        if small:
            client.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        client.send(encode(hello))
        await until(lambda: side.greetings)
        protocol.send(reply)
        protocol.activate()
        protocol.go_on()
        if small:
            protocol.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
        await client.until(encode(reply))
        client.received = b""
        return side, client

    yield make
    for port in ports:
        await port.stopListening()
    for side in sides:
        side.peer.abort()
        await until(lambda side=side: side.gone)
        os.close(side.fd)


@pytest.fixture
def file(tmp_path):
    """Random bytes in an open file."""
    data = random.Random(1).randbytes(8 * MIB)
    (tmp_path / "blob").write_bytes(data)
    fd = os.open(tmp_path / "blob", os.O_RDONLY)
    yield fd, data
    os.close(fd)


def split(stream):
    """What a stream of frames and raw bytes holds."""
    messages, payload, left = [], b"", 0
    while stream:
        size = int.from_bytes(stream[:4], "big")
        message = decode(stream[4 : 4 + size])
        stream = stream[4 + size :]
        messages.append(message)
        if isinstance(message, PiecePayload):
            left = message.chunk or message.length
        elif isinstance(message, PieceChunk):
            left = message.length
        payload, stream, left = payload + stream[:left], stream[left:], 0
    return messages, payload


@pytest_twisted.ensureDeferred
async def test_a_message_leaves_while_a_large_piece_does(meet, file):
    fd, data = file
    side, client = await meet()
    client.transport.pauseProducing()
    side.send_piece(fd, len(data))
    await until(lambda: "sending" in side.came)
    side.peer.send(AnnouncePiece(1))
    side.peer.send(CancelPiece(3))
    client.transport.resumeProducing()
    await until(lambda: ("sent", True) in side.came, 20)
    whole = len(data) + len(encode(PiecePayload(2, 0, len(data), CHUNK))) + 31 * len(encode(PieceChunk(CHUNK)))
    said = encode(AnnouncePiece(1)) + encode(CancelPiece(3))
    await until(lambda: len(client.received) == whole + len(said))
    messages, payload = split(client.received)
    assert payload == data
    at = messages.index(AnnouncePiece(1))
    # One MiB is what a turn sends, and what the buffers hold is less.
    assert at <= 1 + 2 * MIB // CHUNK
    assert messages[at : at + 2] == [AnnouncePiece(1), CancelPiece(3)]
    assert sum(isinstance(message, PieceChunk) for message in messages) == 31


@pytest.mark.parametrize("features", [frozenset(), frozenset({"cancel"})])
@pytest_twisted.ensureDeferred
async def test_a_peer_that_knows_no_chunks_gets_the_piece_whole(meet, file, features):
    fd, data = file
    side, client = await meet(hello=evolve(HELLO, features=features))
    side.send_piece(fd, 2 * MIB)
    await until(lambda: "sending" in side.came)
    side.peer.send(AnnouncePiece(1))
    whole = encode(PiecePayload(2, 0, 2 * MIB)) + data[: 2 * MIB]
    await until(lambda: len(client.received) == len(whole + encode(AnnouncePiece(1))))
    assert client.received == whole + encode(AnnouncePiece(1))


def in_chunks(data, sizes, between):
    """A piece as a stream, with messages before each chunk but the first."""
    stream = encode(PiecePayload(2, 0, len(data), sizes[0])) + data[: sizes[0]]
    at = sizes[0]
    for size in sizes[1:]:
        stream += between + encode(PieceChunk(size)) + data[at : at + size]
        at += size
    assert at == len(data)
    return stream


@pytest.mark.parametrize("limit", [None, 4e6])
@pytest.mark.parametrize("step", [3_001, 70_000, 5 * MIB])
@pytest_twisted.ensureDeferred
async def test_messages_between_chunks_are_heard_before_the_piece_ends(meet, file, step, limit):
    _, data = file
    data = data[: MIB + 5]
    gates = {"ingress": Gate(reactor, limit)} if limit else None
    side, client = await meet(gates=gates, small=False)
    sizes = [MIN_CHUNK, 3 * MIN_CHUNK, MIN_CHUNK + 1]
    sizes += [CHUNK, CHUNK, len(data) - sum(sizes) - 2 * CHUNK - 5, 5]
    stream = in_chunks(data, sizes, encode(AnnouncePiece(1)) * 30) + encode(Complete())
    for at in range(0, len(stream), step):
        client.send(stream[at : at + step])
        await deferLater(reactor, 0)
    await until(lambda: Complete() in side.came)
    assert side.came == ["begin", *[AnnouncePiece(1)] * 180, ("end", True), Complete()]
    assert os.pread(side.fd, len(data), 0) == data
    assert side.peer.session.payload_left == 0


@pytest_twisted.ensureDeferred
async def test_the_stream_waits_between_chunks_while_the_engine_is_behind(meet, file):
    _, data = file
    side, client = await meet(small=False)
    stream = in_chunks(data[: 3 * MIN_CHUNK], [MIN_CHUNK] * 3, encode(AnnouncePiece(1)))
    client.send(stream[: MIN_CHUNK + 100])
    await until(lambda: "begin" in side.came)
    side.congested = True
    client.send(stream[MIN_CHUNK + 100 :])
    await deferLater(reactor, 0.03)
    assert ("end", True) not in side.came
    side.congested = False
    await until(lambda: ("end", True) in side.came)
    assert side.came.count(AnnouncePiece(1)) == 2
    assert os.pread(side.fd, 3 * MIN_CHUNK, 0) == data[: 3 * MIN_CHUNK]


@pytest_twisted.ensureDeferred
async def test_a_connection_lost_between_chunks_ends_the_sink(meet):
    side, client = await meet(small=False)
    client.send(encode(PiecePayload(2, 0, 2 * MIN_CHUNK, MIN_CHUNK)) + bytes(MIN_CHUNK) + encode(AnnouncePiece(1)))
    await until(lambda: AnnouncePiece(1) in side.came)
    client.transport.loseConnection()
    await until(lambda: side.lost_reason)
    assert side.lost_reason is Lost.RESET
    assert side.came == ["begin", AnnouncePiece(1), ("end", False)]


@pytest_twisted.ensureDeferred
async def test_a_broken_rule_between_chunks_ends_the_connection(meet):
    side, client = await meet(small=False)
    client.send(encode(PiecePayload(2, 0, 2 * MIN_CHUNK, MIN_CHUNK)) + bytes(MIN_CHUNK) + encode(PieceChunk(9)))
    await until(lambda: side.lost_reason)
    assert side.lost_reason is Lost.PROTOCOL
    assert side.came == ["begin", ("end", False)]


@pytest_twisted.ensureDeferred
async def test_hanging_up_within_a_chunk_sends_no_frame_into_it(meet, file):
    fd, data = file
    side, client = await meet()
    client.transport.pauseProducing()
    side.send_piece(fd, len(data))
    await until(lambda: "sending" in side.came)
    side.peer.send(AnnouncePiece(1))
    assert side.peer.transport.frames_waiting
    side.peer.close()
    assert side.came == ["sending", ("sent", False)]
    client.transport.resumeProducing()
    await client.closed()
    first = encode(PiecePayload(2, 0, len(data), CHUNK)) + data
    assert len(client.received) < len(data)
    assert encode(AnnouncePiece(1)) not in client.received
    assert client.received[: 64 << 10] == first[: 64 << 10]
