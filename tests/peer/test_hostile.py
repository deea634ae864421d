"""What strangers may send: each thing ends its connection and nothing else, and memory stays bounded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.task import deferLater

from krakentx.core.bitfield import Bitfield
from krakentx.core.peer import InfoHash, PeerID
from krakentx.swarm.config import ConnConfig, ConnStateConfig, SwarmConfig
from krakentx.wire.codec import encode
from krakentx.wire.messages import (
    AnnouncePiece,
    CancelPiece,
    Complete,
    Handshake,
    PieceError,
    PiecePayload,
    PieceRequest,
)
from tests.peer.swarm import until

pytestmark = pytest.mark.integration

MIB = 1 << 20
IMPATIENT = SwarmConfig(conn=ConnConfig(handshake_timeout_s=0.3, max_pending_handshakes=8))


def rss() -> int:
    """Bytes of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def typed(kind: int, field: int = 0, body: bytes = b"") -> bytes:
    """A message of a type, with the body of some field."""
    head = b"\x10" + varint(kind) if kind else b""
    return frame(head + (bytes([field << 3 | 2]) + varint(len(body)) + body if field else b""))


def hello(blob, number: int = 200, **changes) -> Handshake:
    greeting = Handshake(
        PeerID(bytes([number]) * 20), blob.digest, blob.meta.info_hash, Bitfield(blob.meta.piece_count), "ns"
    )
    return evolve(greeting, **changes)


@pytest_twisted.async_yield_fixture
async def target(peer, tracker, blob, logs):
    """An origin with a blob of four pieces, and one honest connection."""
    each = await peer(origin=True, config=IMPATIENT)
    each.blob = blob(4 * MIB)
    await each.keep(each.blob)
    tracker.seed(each.scheduler, each.blob)
    yield each


@pytest.fixture
def greeted(target, dial):
    """A stranger whose handshake was answered."""

    async def run(number: int = 200):
        client = await dial(target.scheduler.port_number)
        client.send(encode(hello(target.blob, number)))
        await client.until(target.blob.meta.info_hash.hex().encode())
        client.received = b""
        return client

    return run


async def unharmed(target, peer) -> None:
    """An honest agent still gets the blob, and nothing has leaked."""
    agent = await peer()
    assert await agent.read(target.blob) == target.blob.data
    await agent.scheduler.stopService()
    await until(lambda: target.scheduler.connection_count == 0)
    assert target.engine.load()["connections"] == 0
    assert target.engine.load()["handshakes"] == 0
    assert target.scheduler._factory.strangers == 0


BEFORE = {
    "too long": (32769).to_bytes(4, "big") + bytes(100),
    "a TLS hello": bytes.fromhex("16030100a5010000a10303") + bytes(200),
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "an empty frame": bytes(4),
    "a bitfield without a body": frame(b"\x10\x00"),
    "a request first": encode(PieceRequest(0, 0, MIB)),
    "a payload first": encode(PiecePayload(0, 0, MIB)),
    "complete first": encode(Complete()),
    "no protobuf": frame(b"\xff\xff\xff\xff"),
    "another type first": typed(99),
}


@pytest.mark.parametrize("what", BEFORE)
@pytest_twisted.ensureDeferred
async def test_before_the_handshake(target, peer, dial, what):
    client = await dial(target.scheduler.port_number)
    client.send(BEFORE[what])
    assert await client.closed(1.0) == b""
    await unharmed(target, peer)


def bitset(count: int, *words: int) -> bytes:
    return count.to_bytes(8, "big") + b"".join(word.to_bytes(8, "big") for word in words)


HANDSHAKES = {
    "a bitset of a terabit": bitset(1 << 40),
    "a bitset of all bits": bitset((1 << 64) - 1),
    "a bitset that ends early": bitset(640, 1),
    "no bitset": b"",
    "bits above the count": bitset(4, 0xFF),
}


@pytest.mark.parametrize("what", HANDSHAKES)
@pytest_twisted.ensureDeferred
async def test_handshakes_with_a_bad_bitset(target, peer, dial, what):
    before = rss()
    good = encode(hello(target.blob))
    own = Bitfield(4).to_wire()
    bad = HANDSHAKES[what]
    body = good[4:].replace(bytes([len(own)]) + own, varint(len(bad)) + bad)
    # The length of the handshake's own body, behind its tag, has changed with it.
    client = await dial(target.scheduler.port_number)
    inner = body[body.index(b"\x1a") + 3 :]
    client.send(frame(b"\x1a" + varint(len(inner)) + inner))
    assert await client.closed(1.0) == b""
    assert rss() - before < 20 * MIB
    await unharmed(target, peer)


@pytest.mark.parametrize("pieces", [0, 3, 5, 1000])
@pytest_twisted.ensureDeferred
async def test_a_bitfield_of_another_length(target, peer, dial, pieces):
    client = await dial(target.scheduler.port_number)
    client.send(encode(hello(target.blob, bitfield=Bitfield.full(pieces))))
    await deferLater(reactor, 0.05)
    client.drop()
    await unharmed(target, peer)


@pytest_twisted.ensureDeferred
async def test_a_false_info_hash_leaks_no_slot(target, peer, dial):
    for number in range(30):
        client = await dial(target.scheduler.port_number)
        client.send(encode(hello(target.blob, number + 1, info_hash=InfoHash(bytes(20)))))
        assert await client.closed(1.0) == b""
    await unharmed(target, peer)


@pytest_twisted.ensureDeferred
async def test_slots_come_free_when_connections_end(target, peer, greeted):
    clients = [await greeted(number) for number in range(1, ConnStateConfig().max_open_conn + 1)]
    for client in clients:
        client.drop()
    await until(lambda: target.scheduler.connection_count == 0)
    await unharmed(target, peer)


@pytest_twisted.ensureDeferred
async def test_a_socket_that_says_nothing_is_closed(target, peer, dial):
    client = await dial(target.scheduler.port_number)
    assert await client.closed(1.0) == b""
    await unharmed(target, peer)


@pytest_twisted.ensureDeferred
async def test_a_handshake_in_drops_is_cut_off(target, peer, dial):
    client = await dial(target.scheduler.port_number)
    for byte in encode(hello(target.blob)):
        client.send(bytes([byte]))
        await deferLater(reactor, 0.02)
        if client.lost:
            break
    assert client.lost
    await unharmed(target, peer)


@pytest_twisted.ensureDeferred
async def test_sockets_without_a_handshake_are_bounded(target, peer, dial):
    clients = [await dial(target.scheduler.port_number) for _ in range(40)]
    await deferLater(reactor, 0.05)
    assert target.scheduler._factory.strangers == 2  # a quarter of the room for one address
    assert target.scheduler.counters.refused_sockets == 38
    for client in clients:
        await client.closed(1.0)
    await unharmed(target, peer)


AFTER = {
    "a payload without a body": typed(2),
    "a request without a body": typed(1),
    "an announce without a body": typed(3),
    "an error without a body": typed(5),
    "a request for piece -1": bytes.fromhex("0000000f1001220b10ffffffffffffffffff01"),
    "an announce of piece -1": typed(3, 6, b"\x10" + varint(-1)),
    "an announce of piece 4 of 4": encode(AnnouncePiece(4)),
    "a payload of length -1": typed(2, 5, b"\x10\x01\x20" + varint(-1)),
    "a payload of 2 GiB": encode(PiecePayload(0, 0, 2**31 - 1)),
    "a payload of piece -1": typed(2, 5, b"\x10" + varint(-1)),
    "a payload of the wrong length": encode(PiecePayload(0, 0, 5)) + b"12345",
    "a payload with an offset": encode(PiecePayload(0, 7, MIB)),
    "a payload beyond the end": encode(PiecePayload(9, 0, MIB)),
    "a payload of nothing": encode(PiecePayload(9, 0, 0)),
    "a frame too long": (1 << 31).to_bytes(4, "big"),
    "no protobuf": frame(b"\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("what", AFTER)
@pytest_twisted.ensureDeferred
async def test_after_the_handshake(target, peer, greeted, what):
    witness = await greeted(1)
    client = await greeted(2)
    before = rss()
    client.send(AFTER[what])
    await client.closed(1.0)
    assert rss() - before < 20 * MIB
    assert not witness.lost
    witness.send(encode(PieceRequest(3, 0, MIB)))
    await witness.until(target.blob.data[-1000:])
    witness.drop()
    await unharmed(target, peer)


HARMLESS = {
    "an unknown type": typed(77),
    "a second handshake": None,
    "a cancel": encode(CancelPiece(2)),
    "a cancel beyond the end": encode(CancelPiece(2000)),
    "an error of a piece that nobody asked for": encode(PieceError(1, "no")),
    "an error beyond the end": encode(PieceError(99999, "no")),
    "an error of another code": typed(5, 8, b"\x20\x07"),
}


@pytest.mark.parametrize("what", HARMLESS)
@pytest_twisted.ensureDeferred
async def test_what_does_no_harm_is_passed_over(target, greeted, what):
    client = await greeted()
    client.send(HARMLESS[what] or encode(hello(target.blob)))
    client.send(encode(PieceRequest(1, 0, MIB)))
    await client.until(target.blob.data[2 * MIB - 1000 : 2 * MIB])


@pytest.mark.parametrize(
    "request_", [(0, 1, MIB - 1), (0, 0, 5), (0, 0, 0), (4, 0, 0), (4, 0, MIB), (2**31 - 1, 0, MIB)]
)
@pytest_twisted.ensureDeferred
async def test_requests_that_cannot_be_met_are_refused(target, greeted, request_):
    client = await greeted()
    client.send(encode(PieceRequest(*request_)))
    await until(lambda: len(client.received) > 6)
    assert client.received[4:6] == b"\x10\x05"
    client.send(encode(PieceRequest(0, 0, MIB)))
    await client.until(target.blob.data[MIB - 1000 : MIB])


@pytest_twisted.ensureDeferred
async def test_pieces_that_nobody_asked_for_are_not_kept(target, peer, greeted):
    client = await greeted()
    before = rss()
    for _ in range(40):
        if client.lost:
            break
        client.send(encode(PiecePayload(0, 0, MIB)))
        client.send(bytes(MIB))
        await deferLater(reactor, 0.005)
    await client.closed(2.0)
    client.received = b""
    assert rss() - before < 60 * MIB  # the sender of this test has a buffer too
    await unharmed(target, peer)


@pytest_twisted.ensureDeferred
async def test_a_flood_of_requests_without_reading_is_bounded(target, peer, greeted):
    client = await greeted()
    client.transport.pauseProducing()
    before = rss()
    request = encode(PieceRequest(1, 0, MIB)) * 1000
    for _ in range(100):
        client.send(request)
        await deferLater(reactor, 0.002)
        if client.lost:
            break
    assert rss() - before < 40 * MIB
    client.drop()
    await unharmed(target, peer)


@pytest_twisted.ensureDeferred
async def test_a_flood_of_small_messages_does_not_stop_the_others(target, greeted):
    flood, other = await greeted(1), await greeted(2)
    flood.send(encode(CancelPiece(1)) * 50_000)
    began = reactor.seconds()
    other.send(encode(PieceRequest(3, 0, MIB)))
    await other.until(target.blob.data[-1000:])
    assert reactor.seconds() - began < 1.0


@pytest_twisted.ensureDeferred
async def test_one_who_talked_too_much_and_left_is_noticed(target, greeted):
    flood = await greeted()
    flood.send(encode(CancelPiece(1)) * 40_000)
    await deferLater(reactor, 0.3)
    flood.drop()
    await until(lambda: not target.scheduler._executor.links.sockets, 2.0)


@pytest_twisted.ensureDeferred
async def test_who_was_sent_away_and_lingers_counts_as_a_stranger(target, peer, dial):
    """Twenty come for a torrent that is not here and do not close their half: two at a time have a socket of ours."""
    for number in range(20):
        client = await dial(target.scheduler.port_number)
        client.transport.pauseProducing()
        client.send(encode(hello(target.blob, number + 1, info_hash=InfoHash(bytes(20)))))
        await deferLater(reactor, 0.005)
        assert len(target.scheduler._executor.links.sockets) <= 2
    assert target.scheduler.counters.refused_sockets >= 10
    await until(lambda: target.scheduler._factory.strangers == 0)
    await unharmed(target, peer)
