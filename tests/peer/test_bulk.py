"""The transport between file and socket, over real sockets of the loopback."""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
from pathlib import Path

import pytest
import pytest_twisted
from isal.isal_zlib import crc32
from twisted.internet import abstract, main, reactor, tcp
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from krakentx.core.errors import LocalProtocolError
from krakentx.core.sums import PieceSum
from krakentx.peer import bulk
from krakentx.peer.counters import Counters
from krakentx.peer.rates import Gate
from krakentx.peer.secure import BulkPort
from krakentx.peer.transfers import FileRun, Sink, write_fully

MIB = 1 << 20


class Recorder(Protocol):
    """Remembers what happens."""

    def __init__(self):
        self.made = Deferred()
        self.lost = Deferred()
        self.reason = None
        self.data = b""

    def connectionMade(self):
        self.made.callback(self)

    def dataReceived(self, data):
        self.data += data

    def connectionLost(self, reason):
        self.reason = reason
        self.lost.callback(None)


@pytest_twisted.async_yield_fixture
async def pair():
    """A bulk transport, and the blocking-free plain socket at its other end."""
    ports, sockets, protocols = [], [], []

    async def make(sndbuf=None):
        protocol = Recorder()
        protocols.append(protocol)
        factory = Factory.forProtocol(lambda: protocol)
        factory.noisy = False
        port = BulkPort(0, factory, 5, "127.0.0.1", reactor)
        port.startListening()
        ports.append(port)
        plain = socket.socket()
        if sndbuf:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, sndbuf)
        plain.connect(("127.0.0.1", port.getHost().port))
        plain.setblocking(False)
        sockets.append(plain)
        await protocol.made
        protocol.transport.account(Counters())
        if sndbuf:
            protocol.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
        return protocol, plain

    yield make
    for plain in sockets:
        plain.close()
    for port in ports:
        await port.stopListening()
    for protocol in protocols:
        await protocol.lost


async def read(plain: socket.socket, count: int, chunk: int = MIB) -> bytes:
    """Exactly `count` bytes, or what came before the end."""
    parts = bytearray()
    while len(parts) < count:
        try:
            data = plain.recv(min(chunk, count - len(parts)))
        except BlockingIOError:
            await deferLater(reactor, 0.001)
            continue
        if not data:
            break
        parts += data
        await deferLater(reactor, 0)
    return bytes(parts)


async def write(plain: socket.socket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[plain.send(view[:MIB]) :]
        except BlockingIOError:
            pass
        await deferLater(reactor, 0)


@pytest.fixture
def file(tmp_path: Path):
    """Factory: an open file of random bytes, and the bytes."""
    opened = []

    def make(size: int):
        data = random.Random(size).randbytes(size)
        path = tmp_path / f"file{len(opened)}"
        path.write_bytes(data)
        fd = os.open(path, os.O_RDWR)
        opened.append(fd)
        return fd, data

    yield make
    for fd in opened:
        os.close(fd)


def run_of(fd, offset, size, ended, header=b"H", on_begin=lambda: None):
    return FileRun(header, fd, offset, size, on_begin, ended.append)


def test_the_private_names_of_twisted_are_there():
    """A new Twisted that renames them must fail here, and not in the middle of a transfer."""
    descriptor = abstract.FileDescriptor
    for name in ("connected", "disconnecting", "_writeDisconnecting", "_writeDisconnected", "doWrite", "producer"):
        assert hasattr(descriptor, name), name
    for name in ("_closeWriteConnection", "abortConnection", "_dataReceived"):
        assert hasattr(tcp.Connection, name), name
    assert tcp.Port.transport is tcp.Server
    assert callable(tcp.Connector._makeTransport)
    assert main.CONNECTION_LOST and main.CONNECTION_DONE
    # Both flags are set by these methods, which we do not replace.
    assert "disconnecting" in descriptor.loseConnection.__code__.co_names
    assert "_writeDisconnecting" in descriptor.loseWriteConnection.__code__.co_names


@pytest.mark.parametrize("sendfile", [True, False])
@pytest.mark.parametrize("size", [0, 1, MIB, 5 * MIB + 3])
@pytest_twisted.ensureDeferred
async def test_a_run_arrives_whole_and_is_counted(pair, file, size, sendfile):
    protocol, plain = await pair()
    fd, data = file(size + 10)
    ended, begun = [], []
    protocol.transport.use_sendfile = sendfile
    protocol.transport.send_file(run_of(fd, 7, size, ended, b"head", lambda: begun.append(True)))
    assert await read(plain, size + 4) == b"head" + data[7 : 7 + size]
    await deferLater(reactor, 0.01)
    assert (ended, begun) == ([True], [True])
    counters = protocol.transport.counters
    assert (counters.sent_sendfile_bytes, counters.sent_copy_bytes) == ((size, 0) if sendfile else (0, size))
    assert protocol.transport.sent_total == size + 4


@pytest_twisted.ensureDeferred
async def test_frames_pass_runs_that_have_not_begun_and_never_tear_one_apart(pair, file):
    protocol, plain = await pair(sndbuf=32 << 10)
    fd, data = file(2 * MIB)
    ended = []
    for index in (0, 1):
        protocol.transport.send_file(run_of(fd, index * MIB, MIB, ended, b"H"))
    await deferLater(reactor, 0.01)  # the first has begun, and is stuck in the small buffers
    protocol.transport.write(b"frame")
    assert await read(plain, 2 * MIB + 7) == b"H" + data[:MIB] + b"frame" + b"H" + data[MIB:]
    assert ended == [True, True]


@pytest_twisted.ensureDeferred
async def test_a_file_system_without_sendfile_is_copied_from(pair, file, monkeypatch):
    def refuse(*_args):
        raise OSError(errno.EINVAL, "cannot splice")

    monkeypatch.setattr(bulk.os, "sendfile", refuse)
    protocol, plain = await pair()
    fd, data = file(MIB)
    ended = []
    protocol.transport.send_file(run_of(fd, 0, MIB, ended))
    protocol.transport.send_file(run_of(fd, 0, MIB, ended))
    assert await read(plain, 2 * MIB + 2) == (b"H" + data) * 2
    assert protocol.transport.counters.sent_copy_bytes == 2 * MIB


@pytest.mark.parametrize("sendfile", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_truncated_file_ends_the_connection(pair, file, sendfile):
    protocol, plain = await pair()
    fd, data = file(1000)
    ended = []
    protocol.transport.use_sendfile = sendfile
    protocol.transport.send_file(run_of(fd, 0, 2000, ended, b"head"))
    assert await read(plain, 3000) == b"head" + data
    await protocol.lost
    assert ended == [False]


@pytest_twisted.ensureDeferred
async def test_a_slow_reader_gets_everything(pair, file):
    protocol, plain = await pair(sndbuf=16 << 10)
    fd, data = file(MIB)
    ended = []
    protocol.transport.send_file(run_of(fd, 0, MIB, ended))
    assert await read(plain, MIB + 1, chunk=10_000) == b"H" + data
    assert ended == [True]


@pytest_twisted.ensureDeferred
async def test_losing_the_connection_waits_for_the_queue(pair, file):
    protocol, plain = await pair(sndbuf=32 << 10)
    fd, data = file(2 * MIB)
    ended = []
    for index in (0, 1):
        protocol.transport.send_file(run_of(fd, index * MIB, MIB, ended))
    protocol.transport.loseConnection()
    late = []
    protocol.transport.send_file(run_of(fd, 0, 5, late))
    assert late == [False]
    assert await read(plain, 3 * MIB) == b"H" + data[:MIB] + b"H" + data[MIB:]
    await protocol.lost
    assert protocol.reason.check(ConnectionDone)
    assert ended == [True, True]


@pytest_twisted.ensureDeferred
async def test_a_peer_that_vanishes_midway_ends_every_run(pair, file):
    protocol, plain = await pair(sndbuf=32 << 10)
    fd, _ = file(2 * MIB)
    ended = []
    for _ in range(3):
        protocol.transport.send_file(run_of(fd, 0, 2 * MIB, ended))
    await read(plain, 100_000)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    plain.close()
    await protocol.lost
    assert ended == [False, False, False]
    protocol.transport.send_file(run_of(fd, 0, 1, ended))
    assert ended[-1] is False


@pytest_twisted.ensureDeferred
async def test_abort_drops_everything_at_once(pair, file):
    protocol, _plain = await pair(sndbuf=32 << 10)
    fd, _ = file(2 * MIB)
    ended, sunk = [], []
    protocol.transport.send_file(run_of(fd, 0, 2 * MIB, ended))
    protocol.transport.receive_file(Sink(fd, 0, 100, sunk.append))
    await deferLater(reactor, 0.01)
    protocol.transport.abortConnection()
    assert (ended, sunk) == ([False], [False])
    await protocol.lost
    assert protocol.reason.check(ConnectionAborted)


@pytest_twisted.ensureDeferred
async def test_hanging_up_sends_frames_but_no_run_that_has_not_begun(pair, file):
    protocol, plain = await pair()
    fd, _ = file(MIB)
    ended = []
    protocol.transport.write(b"last words")
    protocol.transport.send_file(run_of(fd, 0, MIB, ended, b"head"))
    protocol.transport.hang_up()
    protocol.transport.write(b"not any more")
    assert ended == [False]
    assert await read(plain, MIB) == b"last words"
    plain.send(b"what was on its way")
    await deferLater(reactor, 0.02)
    assert protocol.reason is None, "it waits for the other half"
    plain.close()
    await protocol.lost
    assert protocol.reason.check(ConnectionDone)


@pytest_twisted.ensureDeferred
async def test_hanging_up_in_the_midst_of_a_run_cuts_it(pair, file):
    protocol, plain = await pair(sndbuf=32 << 10)
    fd, data = file(2 * MIB)
    ended = []
    protocol.transport.send_file(run_of(fd, 0, 2 * MIB, ended))
    await deferLater(reactor, 0.01)
    protocol.transport.write(b"a frame would be taken for payload")
    protocol.transport.hang_up()
    got = await read(plain, 3 * MIB)
    assert (b"H" + data).startswith(got) and len(got) < 2 * MIB
    assert ended == [False]


@pytest_twisted.ensureDeferred
async def test_closing_from_on_begin_is_safe(pair, file):
    protocol, _plain = await pair()
    fd, _ = file(MIB)
    ended = []
    protocol.transport.send_file(run_of(fd, 0, MIB, ended, b"head", lambda: protocol.transport.abortConnection()))
    await protocol.lost
    assert ended == [False]


@pytest_twisted.ensureDeferred
async def test_the_queue_has_a_bound(pair, file):
    protocol, _ = await pair()
    fd, _ = file(10)
    for _ in range(bulk.MAX_RUNS):
        protocol.transport.send_file(run_of(fd, 0, 1, []))
    with pytest.raises(LocalProtocolError):
        protocol.transport.send_file(run_of(fd, 0, 1, []))


@pytest_twisted.ensureDeferred
async def test_a_peer_that_reads_nothing_is_dropped(pair):
    protocol, _ = await pair(sndbuf=16 << 10)
    for _ in range(300):
        protocol.transport.write(b"x" * (16 << 10))
    await protocol.lost
    assert protocol.reason.check(ConnectionAborted)


# ---- receiving


@pytest.mark.parametrize("size", [1, 4096, MIB, 3 * MIB + 17, 64 * MIB])
@pytest_twisted.ensureDeferred
async def test_payload_goes_into_the_file_and_the_next_frame_to_the_protocol(pair, file, size):
    protocol, plain = await pair()
    fd, data = file(size)
    os.ftruncate(fd, 0)
    done = Deferred()
    passed = PieceSum(strong=False)
    sink = Sink(fd, 100, size, done.callback, passed)
    protocol.transport.receive_file(sink)
    sending = write(plain, data + b"next frame")
    sent = Deferred.fromCoroutine(sending)
    assert await done is True
    await sent
    while protocol.data != b"next frame":
        await deferLater(reactor, 0.001)
    assert os.pread(fd, size + 10, 100) == data
    assert passed.crc == crc32(data)


@pytest_twisted.ensureDeferred
async def test_payload_can_be_dropped(pair):
    protocol, plain = await pair()
    done = Deferred()
    protocol.transport.receive_file(Sink(None, 0, 2 * MIB, done.callback))
    await write(plain, bytes(2 * MIB) + b"frame")
    assert await done is True
    await deferLater(reactor, 0.01)
    assert protocol.data == b"frame"


@pytest_twisted.ensureDeferred
async def test_a_full_disk_is_a_value_and_the_stream_goes_on(pair, file, monkeypatch):
    protocol, plain = await pair()
    fd, _ = file(10)
    done = Deferred()
    sink = Sink(fd, 0, 2 * MIB, done.callback)

    def full(*_args):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwrite", full)
    protocol.transport.receive_file(sink)
    await write(plain, bytes(2 * MIB) + b"frame")
    assert await done is True
    assert sink.error.errno == errno.ENOSPC
    await deferLater(reactor, 0.01)
    assert protocol.data == b"frame"


def test_short_writes_are_finished(file, monkeypatch):
    fd, _ = file(100)
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    write_fully(fd, memoryview(b"0123456789"), 5)
    assert os.pread(fd, 10, 5) == b"0123456789"


@pytest_twisted.ensureDeferred
async def test_a_sender_that_vanishes_midway_ends_the_sink(pair, file):
    protocol, plain = await pair()
    fd, _ = file(10)
    ended = []
    protocol.transport.receive_file(Sink(fd, 0, MIB, ended.append))
    await write(plain, bytes(1000))
    plain.close()
    await protocol.lost
    assert ended == [False]


@pytest_twisted.ensureDeferred
async def test_reading_can_be_paused_midway(pair, file):
    protocol, plain = await pair()
    fd, data = file(8 * MIB)
    os.ftruncate(fd, 0)
    done = Deferred()
    sink = Sink(fd, 0, 8 * MIB, done.callback)
    protocol.transport.receive_file(sink)
    sending = Deferred.fromCoroutine(write(plain, data))
    while sink.remaining == 8 * MIB:
        await deferLater(reactor, 0)
    protocol.transport.pauseProducing()
    left = sink.remaining
    await deferLater(reactor, 0.05)
    assert sink.remaining == left > 0
    protocol.transport.resumeProducing()
    assert await done is True
    await sending
    assert os.pread(fd, 8 * MIB, 0) == data


@pytest.mark.parametrize("direction", ["egress", "ingress"])
@pytest_twisted.ensureDeferred
async def test_the_gate_holds_the_rate(pair, file, direction):
    protocol, plain = await pair()
    fd, data = file(2 * MIB)
    gate = Gate(reactor, 8e6)
    began = reactor.seconds()
    done = Deferred()
    if direction == "egress":
        protocol.transport.account(Counters(), egress=gate)
        protocol.transport.send_file(run_of(fd, 0, 2 * MIB, [], b"h"))
        protocol.transport.write(b"f")
        got = await read(plain, 2 * MIB + 2)
        assert got in (b"fh" + data, b"h" + data + b"f")
    else:
        protocol.transport.account(Counters(), ingress=gate)
        os.ftruncate(fd, 0)
        protocol.transport.receive_file(Sink(fd, 0, 2 * MIB, done.callback))
        await write(plain, data)
        await done
        assert os.pread(fd, 2 * MIB, 0) == data
    assert 0.15 < reactor.seconds() - began < 1.0


@pytest_twisted.ensureDeferred
async def test_frames_leave_while_a_run_waits_for_the_gate(pair, file):
    protocol, plain = await pair()
    fd, _ = file(MIB)
    gate = Gate(reactor, 1000.0)
    gate.lane(lambda: None).give_back(-(1 << 20))  # deep in debt: the run cannot begin for a long time
    protocol.transport.account(Counters(), egress=gate)
    protocol.transport.send_file(run_of(fd, 0, MIB, [], b"head"))
    await deferLater(reactor, 0.01)
    assert not protocol.transport.sending
    protocol.transport.write(b"frame")
    assert await read(plain, 5) == b"frame"


@pytest_twisted.ensureDeferred
async def test_many_connections_share_a_writer_fairly(pair, file):
    fd, _ = file(4 * MIB)
    pairs = [await pair() for _ in range(8)]
    for protocol, _ in pairs:
        protocol.transport.send_file(run_of(fd, 0, 4 * MIB, []))
    got = [0] * len(pairs)
    while max(got) < 2 * MIB:
        for index, (_, plain) in enumerate(pairs):
            try:
                got[index] += len(plain.recv(256 << 10))
            except BlockingIOError:
                pass
        await deferLater(reactor, 0)
    assert min(got) > MIB // 2
