"""A bulk transport under TLS, beside a TLS of another make at the other end."""

from __future__ import annotations

import os
import random
import socket
import ssl

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from krakentx.peer.counters import Counters
from krakentx.peer.secure import BulkPort
from krakentx.peer.tlsconfig import load_tls
from krakentx.peer.tlssocket import CHUNK
from krakentx.peer.transfers import FileRun, Sink
from tests.peer.authority import Authority
from tests.peer.swarm import until
from tests.peer.test_bulk import MIB, Recorder

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    ca = Authority.make(tmp_path_factory.mktemp("ca"), "cluster")
    return load_tls(ca.config("required", ca.issue("peer")))


@pytest_twisted.async_yield_fixture
async def pair(tls):
    """A bulk transport whose hands are shaken, and a blocking TLS socket for threads at its other end."""
    protocol = Recorder()
    factory = Factory.forProtocol(lambda: protocol)
    factory.noisy = False
    port = BulkPort(0, factory, 5, "127.0.0.1", reactor, tls=tls)
    port.startListening()

    def connect() -> ssl.SSLSocket:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
        raw.settimeout(10)
        raw.connect(("127.0.0.1", port.getHost().port))
        return tls.dial.wrap_socket(raw, suppress_ragged_eofs=False)

    secure = await deferToThread(connect)
    await protocol.made
    protocol.transport.account(Counters())
    await until(lambda: protocol.transport._tls is not None and protocol.transport._tls.shaken)
    yield protocol, secure
    secure.close()
    if not protocol.lost.called:
        protocol.transport.abortConnection()
    await port.stopListening()
    await protocol.lost


@pytest.fixture
def file(tmp_path):
    data = random.Random(3).randbytes(3 * MIB + 7)
    (tmp_path / "file").write_bytes(data)
    fd = os.open(tmp_path / "file", os.O_RDWR)
    yield fd, data
    os.close(fd)


def take(secure: ssl.SSLSocket, count: int) -> bytes:
    """Exactly `count` bytes, or what came before the end."""
    data = bytearray()
    while len(data) < count and (part := secure.recv(count - len(data))):
        data += part
    return bytes(data)


@pytest_twisted.ensureDeferred
async def test_frames_and_runs_keep_their_order(pair, file):
    protocol, secure = pair
    fd, data = file
    ended = []
    for number in range(3):
        protocol.transport.send_file(FileRun(b"run%d" % number, fd, number, MIB, lambda: None, ended.append))
    protocol.transport.write(b"frame")
    got = await deferToThread(take, secure, 5 + 3 * (4 + MIB))
    runs = [b"run%d" % number + data[number : number + MIB] for number in range(3)]
    # The frame goes before all runs that have not begun.
    assert got in (b"frame" + b"".join(runs), runs[0] + b"frame" + runs[1] + runs[2])
    assert ended == [True] * 3
    assert protocol.transport.counters.sent_copy_bytes == 3 * MIB


@pytest_twisted.ensureDeferred
async def test_one_part_waits_at_most_for_a_peer_that_does_not_read(pair, file):
    protocol, _secure = pair
    fd, _data = file
    protocol.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 10)
    for number in range(100):
        protocol.transport.send_file(FileRun(b"run", fd, number, MIB, lambda: None, lambda _complete: None))
    before = -1
    while protocol.transport.sent_total != before:  # until neither kernel takes any more
        before = protocol.transport.sent_total
        await deferLater(reactor, 0.1)
    tls = protocol.transport._tls
    assert protocol.transport.sent_total < 20 * MIB
    assert 0 < len(tls._leaving) + tls._out.pending < CHUNK + 1000


@pytest.mark.parametrize("chunk", [1, 1000, 16384, 1 << 20])
@pytest_twisted.ensureDeferred
async def test_payload_goes_into_a_sink_and_what_follows_to_the_protocol(pair, file, chunk):
    """However the records lie: one may hold the end of a payload and the frames behind it."""
    protocol, secure = pair
    fd, _data = file
    size = 3000 if chunk == 1 else MIB + 5
    data = random.Random(4).randbytes(size)
    ended, sink = [], None

    def received(got):
        nonlocal sink
        if protocol.data.startswith(b"go") and sink is None:
            prefix = protocol.data[2:]
            protocol.data = b""
            sink = Sink(fd, 100, size, ended.append)
            sink.take(memoryview(prefix))
            protocol.transport.receive_file(sink)

    plain = protocol.dataReceived
    protocol.dataReceived = lambda got: (plain(got), received(got))

    def send():
        secure.sendall(b"go")
        stream = data + b"behind it"
        for at in range(0, len(stream), chunk):
            secure.sendall(stream[at : at + chunk])

    await deferToThread(send)
    await until(lambda: protocol.data == b"behind it")
    assert ended == [True]
    assert os.pread(fd, size, 100) == data


@pytest_twisted.ensureDeferred
async def test_bytes_that_were_decrypted_before_a_pause_come_after_it(pair):
    protocol, secure = pair
    plain = protocol.dataReceived
    protocol.dataReceived = lambda got: (protocol.transport.pauseProducing(), plain(got))
    await deferToThread(secure.sendall, bytes(3 * CHUNK))
    pauses = 0
    while len(protocol.data) < 3 * CHUNK:
        held = len(protocol.data)
        await deferLater(reactor, 0.05)
        assert len(protocol.data) == held  # it does not read on by itself
        protocol.transport.resumeProducing()
        await until(lambda held=held: len(protocol.data) > held)
        pauses += 1
    assert pauses > 1


@pytest_twisted.ensureDeferred
async def test_the_last_frames_leave_before_an_orderly_end(pair):
    protocol, secure = pair
    protocol.transport.write(b"goodbye" * 10_000)
    protocol.transport.hang_up()
    assert await deferToThread(take, secure, 70_000) == b"goodbye" * 10_000
    assert await deferToThread(secure.recv, 10) == b""  # by the word of TLS: a cut would have raised
    # The other half still works, and its end is a clean one.
    await deferToThread(secure.sendall, b"yes")
    await until(lambda: protocol.data == b"yes")
    await deferToThread(secure.unwrap)
    secure.close()
    await protocol.lost
    assert protocol.reason.check(ConnectionDone)


@pytest_twisted.ensureDeferred
async def test_a_cut_is_no_clean_end(pair):
    protocol, secure = pair
    await deferToThread(secure.sendall, b"half a")
    await until(lambda: protocol.data == b"half a")
    socket.socket.shutdown(secure, socket.SHUT_WR)  # TCP ends, and TLS has said nothing of it
    await protocol.lost
    assert protocol.reason.check(ConnectionLost)
    assert "hung up" in str(protocol.reason.value)


@pytest_twisted.ensureDeferred
async def test_bytes_that_were_changed_on_the_way_end_the_connection(pair):
    protocol, secure = pair
    raw = socket.socket(fileno=os.dup(secure.fileno()))
    await deferToThread(raw.sendall, b"\x17\x03\x03\x00\x20" + bytes(32))
    await protocol.lost
    raw.close()
    assert protocol.data == b""
    assert "it does not speak TLS as it should: decryption failed or bad record mac" in str(protocol.reason.value)
