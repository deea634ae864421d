"""The peer wire under TLS, on real sockets with real certificates."""

from __future__ import annotations

import hashlib
import random
import socket
import ssl
from pathlib import Path

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel

from krakentx.core.bitfield import Bitfield
from krakentx.core.errors import Unavailable
from krakentx.core.peer import PeerID, PeerInfo
from krakentx.peer.tlsconfig import load_tls
from krakentx.swarm.config import BandwidthConfig, ConnConfig, ConnStateConfig, SwarmConfig
from krakentx.wire.codec import encode
from krakentx.wire.messages import Handshake, PieceRequest
from tests.peer.authority import DAY, Authority
from tests.peer.swarm import Blob, until
from tests.peer.test_hostile import IMPATIENT, MIB, rss, unharmed

pytestmark = pytest.mark.integration

GARBAGE = {
    "nothing more": b"",
    "noise": random.Random(5).randbytes(2000),
    "a record that is too long": b"\x03\x01\xff\xff" + bytes(70000),
    "a record of no hello": b"\x03\x01\x00\x04\x02\x00\x00\x00",
    "half a hello": bytes.fromhex("0301020001000001fc0303") + bytes(100),
    "an alert first": b"\x03\x03\x00\x02\x02\x28",
}


@pytest.fixture(scope="session")
def ca(tmp_path_factory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("ca"), "cluster")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory) -> Authority:
    """A CA that the cluster does not know."""
    return Authority.make(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="session")
def member(ca):
    """The certificate of a good peer."""
    return ca.issue("peer")


@pytest.fixture
def tls(ca, member):
    """TLS of a good peer, by the word of its configuration."""
    return lambda peers: load_tls(ca.config(peers, member))


def hello(blob: Blob, number: int = 200) -> bytes:
    bits = Bitfield(blob.meta.piece_count)
    return encode(Handshake(PeerID(bytes([number]) * 20), blob.digest, blob.meta.info_hash, bits, "ns"))


@pytest.fixture
def seeded(peer, tracker):
    """An origin that holds a blob of 6 MiB, with these options."""

    async def run(blob: Blob, **options):
        each = await peer(origin=True, **options)
        each.blob = blob
        await each.keep(blob)
        tracker.seed(each.scheduler, blob)
        return each

    return run


def lines(logs, word="TLS"):
    """Lines of the log with a word, but for those that only `--log-level debug` shows."""
    shown = [event for event in logs if event.get("log_format") and event["log_level"] is not LogLevel.debug]
    return [text for event in shown if word in (text := event["log_format"].format(**event))]


# ---- who talks to whom


@pytest_twisted.ensureDeferred
async def test_a_cluster_that_is_encrypted_throughout(peer, seeded, tls, blob, tracker, logs):
    origin = await seeded(blob(9 * MIB + 5), tls=tls("required"))
    first, second = await peer(tls=tls("required")), await peer(tls=tls("required"))
    assert await first.read(origin.blob) == origin.blob.data
    assert await second.read(origin.blob) == origin.blob.data
    counters = [each.scheduler.counters for each in (origin, first, second)]
    assert sum(each.sent_copy_bytes for each in counters) == 2 * len(origin.blob.data)
    assert [each.sent_sendfile_bytes for each in counters] == [0, 0, 0]
    assert [each.tls_refused for each in counters] == [0, 0, 0]


@pytest_twisted.ensureDeferred
async def test_agents_give_to_each_other(peer, seeded, tls, blob, tracker, logs):
    origin = await seeded(blob(5 * MIB), tls=tls("required"))
    first, second = await peer(tls=tls("required")), await peer(tls=tls("required"))
    await first.scheduler.download("ns", origin.blob.digest)
    await origin.scheduler.stopService()
    assert await second.read(origin.blob) == origin.blob.data
    assert first.scheduler.counters.sent_copy_bytes == 5 * MIB


@pytest.mark.parametrize(
    ("holder", "asker", "encrypted"),
    [
        ("optional", "optional", True),
        ("optional", "off", False),
        ("off", "optional", False),
        ("off", "off", False),
        ("required", "optional", True),
        ("optional", "required", True),
        ("required", "required", True),
    ],
)
@pytest_twisted.ensureDeferred
async def test_who_understands_whom(holder, asker, encrypted, peer, seeded, tls, blob, logs):
    origin = await seeded(blob(3 * MIB), tls=tls(holder))
    agent = await peer(tls=tls(asker))
    assert await agent.read(origin.blob) == origin.blob.data
    counters = origin.scheduler.counters
    assert (counters.sent_copy_bytes if encrypted else counters.sent_sendfile_bytes) == 3 * MIB
    assert lines(logs) == []


@pytest_twisted.ensureDeferred
async def test_where_it_is_required_the_plain_wire_is_refused(peer, seeded, tls, blob, logs):
    origin = await seeded(blob(MIB), tls=tls("required"))
    agent = await peer(stall_s=0.4)
    with pytest.raises(Unavailable):
        await agent.read(origin.blob)
    assert agent.scheduler.counters.received_peers_bytes == 0
    assert origin.scheduler.counters.tls_refused >= 1
    assert len(lines(logs, "plain wire, and tls.peers is `required` here")) == origin.scheduler.counters.tls_refused


@pytest_twisted.ensureDeferred
async def test_where_it_is_required_a_plain_peer_gets_no_word(peer, seeded, tls, blob, logs):
    origin = await seeded(blob(MIB))
    agent = await peer(tls=tls("required"), stall_s=0.4)
    with pytest.raises(Unavailable):
        await agent.read(origin.blob)
    assert agent.scheduler.counters.dial_failures >= 1
    assert origin.scheduler.counters.sent_bytes == 0
    assert any("it broke the protocol" in line for line in lines(logs, "closing"))


@pytest_twisted.ensureDeferred
async def test_a_tracker_that_drops_the_announcement_does_no_harm(peer, seeded, tls, blob, tracker, logs):
    origin = await seeded(blob(MIB), tls=tls("required"))
    known = tracker.peers[origin.blob.meta.info_hash]
    for key, info in known.items():
        known[key] = evolve(info, tls=False)
    agent = await peer(tls=tls("required"))
    assert await agent.read(origin.blob) == origin.blob.data


# ---- certificates that do not hold


async def refused(peer, origin, tls):
    agent = await peer(tls=tls, stall_s=0.4)
    with pytest.raises(Unavailable):
        await agent.read(origin.blob)
    assert agent.scheduler.counters.received_peers_bytes == 0
    return agent


@pytest_twisted.ensureDeferred
async def test_a_dialer_of_another_ca_is_refused(peer, seeded, tls, ca, stranger, blob, logs):
    origin = await seeded(blob(MIB), tls=tls("required"))
    other = stranger.config("required", stranger.issue("peer"))
    mixed = load_tls(other)
    # It believes in ours, so that the refusal is the origin's.
    mixed.dial.load_verify_locations(ca.path)
    await refused(peer, origin, mixed)
    assert origin.scheduler.counters.tls_refused >= 1
    assert any("its certificate does not hold: self-signed" in line for line in lines(logs, "TLS: closing 127.0.0.1"))


@pytest_twisted.ensureDeferred
async def test_an_acceptor_of_another_ca_is_refused(peer, seeded, tls, ca, stranger, blob, logs):
    other = load_tls(stranger.config("required", stranger.issue("peer")))
    other.accept.load_verify_locations(ca.path)
    origin = await seeded(blob(MIB), tls=other)
    agent = await refused(peer, origin, tls("required"))
    assert agent.scheduler.counters.dial_failures >= 1
    assert any("its certificate does not hold" in line for line in lines(logs, "dial of"))
    # The one that was refused is told why, too.
    assert any("it refuses us: unknown ca" in line for line in lines(logs, "TLS: closing"))


@pytest.mark.parametrize(
    ("begins", "ends", "problem"),
    [(-2 * DAY, -DAY, "certificate has expired"), (DAY, 2 * DAY, "certificate is not yet valid")],
)
@pytest_twisted.ensureDeferred
async def test_a_certificate_out_of_its_time_is_refused(begins, ends, problem, peer, seeded, tls, ca, blob, logs):
    origin = await seeded(blob(MIB), tls=tls("required"))
    old = load_tls(ca.config("required", ca.issue("late", begins=begins, ends=ends)))
    assert any("peers will refuse it" in line and problem in line for line in lines(logs, "tls.client.cert"))
    logs.clear()
    await refused(peer, origin, old)
    assert any(problem in line for line in lines(logs, "TLS: closing"))


@pytest_twisted.ensureDeferred
async def test_what_the_holder_does_not_accept(seeded, tls, ca, member, blob, logs):
    """Clients of another make: without a certificate, and of an older TLS."""
    origin = await seeded(blob(MIB), tls=tls("required"))

    def attempt(older: bool) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(ca.path)
        if older:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(member.cert.path, member.key.path)
        with socket.create_connection(("127.0.0.1", origin.scheduler.port_number), 5) as raw:
            try:
                with context.wrap_socket(raw) as secure:
                    secure.sendall(hello(origin.blob))
                    return f"answered: {secure.recv(100)!r}"
            except OSError as error:
                return str(error)

    assert "answered" not in await deferToThread(attempt, False)
    assert "answered" not in await deferToThread(attempt, True)
    assert len(lines(logs, "it shows no certificate")) == 1
    assert len(lines(logs, "it does not speak TLS 1.3")) == 1
    assert origin.scheduler.counters.tls_refused == 2


@pytest_twisted.ensureDeferred
async def test_a_listener_that_never_shakes_hands_costs_one_dial_timeout(peer, tls, blob, tracker, logs):
    blob = blob(MIB)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        info = PeerInfo(PeerID(bytes([99]) * 20), "127.0.0.1", mute.getsockname()[1], complete=True, tls=True)
        tracker.metas[blob.digest] = blob.meta
        tracker.peers[blob.meta.info_hash] = {info.peer_id: info}
        quick = SwarmConfig(connstate=ConnStateConfig(dial_timeout_s=0.3))
        agent = await peer(tls=tls("optional"), config=quick, stall_s=0.6)
        began = reactor.seconds()
        with pytest.raises(Unavailable):
            await agent.read(blob)
        assert agent.scheduler.counters.dial_failures >= 1
        assert tracker.lost[0] == info.peer_id
        assert reactor.seconds() - began < 3
        assert any("no answer in time" in line for line in lines(logs, "dial of"))
        await until(lambda: not agent.scheduler._executor.links.sockets)


@pytest_twisted.ensureDeferred
async def test_a_stop_in_the_midst_of_shaking_hands_leaves_nothing(peer, tls, blob, tracker, logs):
    blob = blob(MIB)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        info = PeerInfo(PeerID(bytes([99]) * 20), "127.0.0.1", mute.getsockname()[1], complete=True, tls=True)
        tracker.metas[blob.digest] = blob.meta
        tracker.peers[blob.meta.info_hash] = {info.peer_id: info}
        agent = await peer(tls=tls("optional"))
        await agent.scheduler.open("ns", blob.digest)
        await until(lambda: agent.scheduler._executor.links.sockets)
        await agent.scheduler.stopService()
        assert not agent.scheduler._executor.links.sockets


# ---- strangers


@pytest_twisted.async_yield_fixture
async def target(seeded, tls, blob, logs):
    """An origin with a blob of four pieces that speaks both wires and has little patience."""
    yield await seeded(blob(4 * MIB), tls=tls("optional"), config=IMPATIENT)


@pytest.mark.parametrize("what", GARBAGE)
@pytest_twisted.ensureDeferred
async def test_whatever_follows_the_first_byte_of_tls(target, peer, dial, what, logs):
    for _ in range(3):
        client = await dial(target.scheduler.port_number)
        client.send(b"\x16" + GARBAGE[what])
        await client.closed(1.0)
    told = len(lines(logs, "TLS: closing"))
    assert told == target.scheduler.counters.tls_refused and told in (0, 3)  # a deadline that passed is not told
    await unharmed(target, peer)


@pytest_twisted.ensureDeferred
async def test_sockets_that_only_begin_tls_are_bounded(target, peer, dial):
    clients = [await dial(target.scheduler.port_number) for _ in range(40)]
    for client in clients:
        client.send(b"\x16")
    await deferLater(reactor, 0.05)
    assert target.scheduler._factory.strangers == 2  # a quarter of the room for one address, as without TLS
    assert target.scheduler.counters.refused_sockets == 38
    for client in clients:
        await client.closed(1.0)
    await unharmed(target, peer)


@pytest_twisted.ensureDeferred
async def test_a_hello_in_drops_is_cut_off(target, peer, dial, ca):
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(to_client, to_server).do_handshake()
    client = await dial(target.scheduler.port_number)
    for byte in to_server.read():
        client.send(bytes([byte]))
        await deferLater(reactor, 0.02)
        if client.lost:
            break
    assert client.lost
    await unharmed(target, peer)


@pytest_twisted.ensureDeferred
async def test_hands_shaken_and_nothing_said(target, peer, tls, logs):
    """The deadline of the wire's own handshake runs from the socket on."""

    def attempt() -> bytes:
        with socket.create_connection(("127.0.0.1", target.scheduler.port_number), 5) as raw:
            secure = tls("required").dial.wrap_socket(raw)
            secure.settimeout(2.0)
            try:
                return secure.recv(10)
            except ConnectionResetError:
                return b"reset"

    began = reactor.seconds()
    assert await deferToThread(attempt) in (b"", b"reset")
    assert reactor.seconds() - began < 1.5
    await unharmed(target, peer)


# ---- bytes


class Slow:
    """A dialer on a thread of its own, which asks for much and reads when it is told to."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        raw.settimeout(10)
        raw.connect(("127.0.0.1", port))
        self.secure = context.wrap_socket(raw)

    def read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count and (part := self.secure.recv(min(1 << 16, count - len(data)))):
            data += part
        return bytes(data)

    def frame(self) -> bytes:
        return self.read(int.from_bytes(self.read(4), "big"))

    def sha256(self, count: int) -> bytes:
        """What comes, for one who looks at the memory of this process: nothing of it is kept."""
        digest = hashlib.sha256()
        while count and (part := self.secure.recv(min(1 << 16, count))):
            digest.update(part)
            count -= len(part)
        return digest.digest()


@pytest_twisted.ensureDeferred
async def test_memory_stays_bounded_with_a_big_blob_and_slow_readers(seeded, tls, blob, logs):
    origin = await seeded(blob(96 * MIB, 32 * MIB), tls=tls("required"))
    clients = [await deferToThread(Slow, origin.scheduler.port_number, tls("required").dial) for _ in range(4)]
    for number, client in enumerate(clients, 1):
        await deferToThread(_greet, client, origin.blob, number)
    before = rss()
    for client in clients:
        for piece in range(3):
            client.secure.sendall(encode(PieceRequest(piece, 0, 32 * MIB)))
    await deferLater(reactor, 0.5)
    grown = rss() - before
    assert grown < 12 * MIB, f"{grown >> 20} MiB for 384 MiB that wait"
    # And when one reads, slowly, all of a piece comes.
    await deferToThread(clients[0].frame)
    got = await deferToThread(clients[0].sha256, 32 * MIB)
    data = memoryview(origin.blob.data)
    assert got in [hashlib.sha256(data[at : at + 32 * MIB]).digest() for at in range(0, 96 * MIB, 32 * MIB)]
    grown = rss() - before
    assert grown < 12 * MIB, f"{grown >> 20} MiB for the 32 MiB that left"
    for client in clients:
        client.secure.close()


def _greet(client: Slow, blob: Blob, number: int) -> None:
    client.secure.sendall(hello(blob, number))
    client.frame()


@pytest_twisted.ensureDeferred
async def test_bandwidth_limits_hold(peer, seeded, tls, blob, logs):
    origin = await seeded(blob(2 * MIB), tls=tls("required"))
    limit = BandwidthConfig(enable=True, ingress_bits_per_sec=8 * 4 * MIB, egress_bits_per_sec=8 * 4 * MIB)
    agent = await peer(tls=tls("required"), config=SwarmConfig(conn=ConnConfig(bandwidth=limit)))
    began = reactor.seconds()
    await agent.scheduler.download("ns", origin.blob.digest)
    assert 0.3 < reactor.seconds() - began < 2


@pytest_twisted.ensureDeferred
async def test_many_at_once(peer, seeded, tls, blob, logs):
    origin = await seeded(blob(12 * MIB + 1, 100_003), tls=tls("required"))
    agents = [await peer(tls=tls("required")) for _ in range(4)]
    for agent in agents:
        await agent.scheduler.open("ns", origin.blob.digest)
    await until(lambda: all(agent.cache.stat(origin.blob.digest) for agent in agents), 20)
    for agent in agents:
        assert Path(agent.cache.path(origin.blob.digest)).read_bytes() == origin.blob.data
