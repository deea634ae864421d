"""Bulk transports: TCP whose payload goes from a file to the socket and from the socket into a file.

Why not `transport.write` and `dataReceived`: a piece of 4 MiB written as bytes costs eight times the CPU of `sendfile`
(partial sends, joins, copies), and received in 64 KiB strings about twice that of large reads into one buffer.

Sending. Frames of a few bytes and runs of a file leave in this order: a chunk that has begun comes first, for its bytes
must not be torn apart; then all frames; then the next chunk. So a frame waits behind one chunk at most (a whole run,
where the peer knows no chunks), which keeps announcements and requests quick while pieces flow; `bound_unsent` sees to
it that no more than that waits in the kernel either. Each writable moment moves about 1 MiB, or what the bandwidth gate
grants, and then lets other connections have their turn.

Receiving. The protocol reads frames as ever. When one announces payload it hands us a `Sink`; from then on reads go
into one buffer of the process and from there, at once, through the running sums into the file. A read never asks for
more than the chunk still lacks and the frame of the next, so what comes behind it is left in the socket for the
protocol; between chunks it reads little at a time, or payload would come the slow way of frames. The `pwrite` is made
inline: into the page cache it takes less time than the way to a thread and back. Under a limit a frame is read to its
last byte and no further, or small pieces would come in with the frames and pass the gate unseen.

Relied upon in Twisted, beyond its public names: `FileDescriptor.connected`, `disconnecting`, `_writeDisconnecting`,
`_writeDisconnected`, `_closeWriteConnection`, and in `secure.py` `Port.transport`, `Connector._makeTransport`,
`Client._connectDone`; and that `FileDescriptor.doWrite` is what we replace (its own buffer stays empty). A
test holds them true.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from twisted.internet import main, tcp
from twisted.logger import Logger
from twisted.python.failure import Failure

from krakentx.core.errors import LocalProtocolError
from krakentx.peer.counters import Counters
from krakentx.peer.rates import Gate, Lane
from krakentx.peer.transfers import FileRun, Sink

SEND_BUDGET = 1 << 20
RECEIVE_BUDGET = 1 << 20
COPY_CHUNK = 128 << 10
MAX_FRAMES_BYTES = 1 << 20
"""A peer that lets this much of unread frames pile up does not read: it is dropped."""
MAX_RUNS = 128
FRAMES_PER_READ = 64

_NEXT_FRAME = 13  # bytes of the frame of a chunk, as long as no piece has 2 MiB of it
_FRAMES_READ = 64 << 10  # bytes at once
_FRAMES_READ_BETWEEN = 256  # the same between chunks
UNSENT = 128 << 10
"""Bytes that the kernel takes and cannot send at once, where messages are to pass pieces (docs/decisions/0008)."""
_TCP_NOTSENT_LOWAT = 25  # Linux; Python names it from 3.12 on
_SCRATCH = memoryview(bytearray(RECEIVE_BUDGET + _NEXT_FRAME))  # one per process: each read is consumed before the next
_ENDED = (7, 8)  # CLOSE, CLOSE_WAIT of Linux' TCP_INFO
_NO_SENDFILE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class BulkTransport(tcp.Connection):
    """What server and client connections have in common, TLS or not (`secure.py`).

    Producers are not for these transports: frames are small and bounded, files go by `send_file`.
    """

    log = Logger()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._frames = bytearray()
        self._runs: deque[FileRun] = deque()
        self._sink: Sink | None = None
        self._paused = False
        self._read_held = False
        self._write_held = False
        self._egress: Lane | None = None
        self._ingress: Lane | None = None
        self.counters = Counters()
        self.frame_left: Callable[[], int] = lambda: self.bufferSize  # bytes to the end of the frame that comes
        self.use_sendfile = sys.platform == "linux"
        self.sent_total = 0  # all bytes that the kernel took, to see a peer that does not read
        super().__init__(*args, **kwargs)

    def account(self, counters: Counters, egress: Gate | None = None, ingress: Gate | None = None) -> None:
        """Count into `counters`, and obey the gates."""
        self.counters = counters
        self._egress = None if egress is None else egress.lane(self._let_write)
        self._ingress = None if ingress is None else ingress.lane(self._let_read)

    def join(self, torrent: Hashable) -> None:
        """Say whose pieces pass here: the gates let torrents take turns."""
        for lane in self._lanes():
            lane.join(torrent)

    def _lanes(self) -> list[Lane]:
        return [lane for lane in (self._egress, self._ingress) if lane is not None]

    # --- sending

    def bound_unsent(self) -> None:
        """Let the kernel take few bytes that cannot leave at once: what we write waits behind them."""
        if sys.platform == "linux":
            self.socket.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT)

    @property
    def frames_waiting(self) -> int:
        """Bytes of frames that were written and have not left."""
        return len(self._frames)

    @property
    def sending(self) -> bool:
        """Something waits to leave, and not for the bandwidth gate."""
        return bool(self._frames or self._runs) and not self._write_held

    def write(self, data: bytes) -> None:
        """Queue a frame, ahead of all chunks that have not begun."""
        if not data or not self.connected or self._writeDisconnecting or self._writeDisconnected:
            return
        self._frames += data
        if len(self._frames) > MAX_FRAMES_BYTES:
            self.log.warn("{peer} does not read what we send, closing", peer=self.getPeer())  # type: ignore[no-untyped-call]
            self.abortConnection()
            return
        self.startWriting()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """As `write`, of the parts joined."""
        self.write(b"".join(iovec))

    def send_file(self, run: FileRun) -> None:
        """Queue a run.

        Raises:
            LocalProtocolError: far too many runs are queued.
        """
        if len(self._runs) >= MAX_RUNS:
            raise LocalProtocolError(f"{MAX_RUNS} files are queued on one connection")
        if not self.connected or self.disconnecting or self._writeDisconnecting or self._writeDisconnected:
            run.on_end(False)
            return
        self._runs.append(run)
        self.startWriting()

    def doWrite(self) -> Any:
        """Twisted: the socket takes bytes."""
        budget = SEND_BUDGET
        try:
            while self._frames or self._runs:
                if self._frames and not (self._runs and self._runs[0].torn):
                    self._sent(self.socket.send(self._frames))
                    continue
                if self._write_held:
                    self.stopWriting()  # type: ignore[no-untyped-call]
                    return None
                granted = min(budget, self._runs[0].due)
                if granted and self._egress is not None:
                    granted = self._egress.grant(granted)
                    if not granted:
                        self._hold_writing()
                        return None
                moved = self._send_some(self._runs[0], granted)
                budget -= moved
                if budget <= 0:
                    return None
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        return self.drained()

    def drained(self) -> Any:
        """Nothing is left to write: wait for more, or close when that was wished."""
        self.stopWriting()  # type: ignore[no-untyped-call]
        if self.disconnecting:
            return main.CONNECTION_DONE
        if self._writeDisconnecting and not self._writeDisconnected:
            self._writeDisconnected = True
            self._closeWriteConnection()
        return None

    def _sent(self, count: int) -> None:
        del self._frames[:count]
        self.sent_total += count

    def _send_some(self, run: FileRun, granted: int) -> int:
        """Send at most `granted` bytes of the first run and account for them. Returns how many went."""
        moved = 0
        try:
            if run.header:
                # MSG_MORE: the header shares a packet with the payload.
                count = self.socket.send(run.header, socket.MSG_MORE if run.due else 0)
                self.sent_total += count
                run.header = run.header[count:]
                run.torn = True
                if not run.begun:
                    run.begun = True
                    run.on_begin()
                # `on_begin` may have closed the connection, and with it dropped the run and its file.
                if run.header or not self._runs or self._runs[0] is not run:
                    return 0
            if run.due:
                moved = self._move(run, granted)
                self.sent_total += moved
            run.moved(moved)
        finally:
            if self._egress is not None:
                self._egress.give_back(granted - moved)
        if not run.remaining:
            self._runs.popleft()
            run.on_end(True)
        return moved

    def _move(self, run: FileRun, count: int) -> int:
        if self.use_sendfile:
            try:
                moved = os.sendfile(self.socket.fileno(), run.fd, run.offset, count)
            except OSError as error:
                if error.errno not in _NO_SENDFILE:
                    raise
                # Some file systems cannot be spliced from; the copying way works with all.
                self.use_sendfile = False
            else:
                self.counters.sent_sendfile_bytes += moved
                return self._not_truncated(run, moved)
        chunk = os.pread(run.fd, min(count, COPY_CHUNK), run.offset)
        moved = self.socket.send(chunk) if chunk else 0
        self.counters.sent_copy_bytes += moved
        return self._not_truncated(run, moved)

    def _not_truncated(self, run: FileRun, moved: int) -> int:
        if moved:
            return moved
        # The header has promised bytes which are no more: the stream cannot go on.
        self.log.error("file ends at {offset}, {left} bytes short of a piece", offset=run.offset, left=run.remaining)
        raise OSError(errno.EIO, "file truncated")

    # --- receiving

    def receive_file(self, sink: Sink | None) -> None:
        """Let payload of the socket go into the sink, whenever some is due, until none remains; None = it has all."""
        self._sink = sink

    def doRead(self) -> Any:
        """Twisted: the socket has bytes."""
        sink = self._sink
        if sink is None or not sink.due:
            return self._read_frames() if self._ingress is not None and self._ingress.limited else super().doRead()
        budget = RECEIVE_BUDGET
        while True:
            granted = min(sink.due, budget)
            if self._ingress is not None:
                granted = self._ingress.grant(granted)
                if not granted:
                    self._hold_reading()
                    return None
            # The frame of the next chunk comes along: to ask for it alone would cost a system call and a turn.
            behind = _NEXT_FRAME if granted == sink.due < sink.remaining else 0
            try:
                count = self.socket.recv_into(_SCRATCH, granted + behind)
            except BlockingIOError:
                count = -1
            except OSError:
                return main.CONNECTION_LOST
            passed = min(max(count, 0), granted)
            if self._ingress is not None:
                self._ingress.give_back(granted - passed)
            if count < 0:
                return None
            if count == 0:
                return main.CONNECTION_DONE
            sink.take(_SCRATCH[:passed])
            budget -= passed
            sink.on_progress()
            if self._sink is not sink:
                return None
            if not sink.remaining:
                self._sink = None
                sink.on_end(True)
                return None
            if not sink.due:
                sink.on_chunk()
                if count > passed:
                    self.protocol.dataReceived(bytes(_SCRATCH[passed:count]))
                if self._sink is not sink or self._paused:
                    return None
            # A short read has emptied the socket: asking again would only cost a system call.
            if budget <= 0 or not sink.due or count < granted + behind:
                return None

    def _read_frames(self) -> Any:
        """Not a byte further than the frame, for the next one may be payload, which has to pass the gate."""
        for _ in range(FRAMES_PER_READ):
            try:
                data = self.socket.recv(self.frame_left())
            except BlockingIOError:
                return None
            except OSError:
                return main.CONNECTION_LOST
            if not data:
                return main.CONNECTION_DONE
            self.protocol.dataReceived(data)
            payload_is_due = self._sink is not None and self._sink.due
            if payload_is_due or self._paused or self._aborting or not self.connected:
                return None
        return None

    @property
    def bufferSize(self) -> int:  # type: ignore[override]  # an attribute there
        """Twisted: how many bytes to read at once when frames are expected."""
        return _FRAMES_READ if self._sink is None else _FRAMES_READ_BETWEEN

    @property
    def read_held(self) -> bool:
        """Reading waits for the bandwidth gate."""
        return self._read_held

    def charge(self, count: int) -> None:
        """Payload bytes that came with a frame and did not pass our gate."""
        if self._ingress is not None:
            self._ingress.give_back(-count)

    # --- pausing

    @property
    def hung_up(self) -> bool:
        """The peer has closed. While we pause nobody tells: the news stand behind all that it has sent."""
        if not self.connected or not hasattr(socket, "TCP_INFO"):
            return False
        try:
            return self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _ENDED
        except OSError:
            return True

    def pauseProducing(self) -> None:
        """Stop reading until `resumeProducing`."""
        self._paused = True
        self.stopReading()  # type: ignore[no-untyped-call]

    def resumeProducing(self) -> None:
        """Read on."""
        self._paused = False
        self._start_reading()

    def _start_reading(self) -> None:
        if self.connected and not (self._paused or self._read_held or self.disconnecting):
            self.startReading()  # type: ignore[no-untyped-call]

    def _hold_reading(self) -> None:
        assert self._ingress is not None
        self._read_held = True
        self.stopReading()  # type: ignore[no-untyped-call]
        self._ingress.wait()

    def _let_read(self) -> None:
        self._read_held = False
        self._start_reading()

    def _hold_writing(self) -> None:
        assert self._egress is not None
        self._write_held = True
        self.stopWriting()  # type: ignore[no-untyped-call]
        self._egress.wait()

    def _let_write(self) -> None:
        self._write_held = False
        if self.connected:
            self.startWriting()

    def startWriting(self) -> None:
        """Twisted: tell when the socket takes bytes. A run held by the gate must not make us spin meanwhile."""
        frames_may_go = self._frames and not (self._runs and self._runs[0].torn)
        if not self._write_held or frames_may_go:
            super().startWriting()  # type: ignore[no-untyped-call]

    # --- the end

    def hang_up(self) -> None:
        """Close in an orderly way without sending the runs: frames leave, then our half is closed.

        What the peer still sends is read and dropped (closing with unread bytes would reset the connection and might
        destroy our last frames on their way), so the owner must abort when the peer does not close its half in time.
        """
        if self._runs and self._runs[0].torn:
            # A cut chunk: whatever followed would be taken for its bytes.
            self._frames.clear()
        self._drop_files()
        self.resumeProducing()
        self.loseWriteConnection()  # type: ignore[no-untyped-call]

    def abortConnection(self) -> None:
        """Close now, with a reset."""
        self._frames.clear()
        self._drop_files()
        super().abortConnection()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        """Twisted: the connection is gone."""
        self._frames.clear()
        self._drop_files()
        super().connectionLost(reason)

    def _drop_files(self) -> None:
        for lane in self._lanes():
            lane.forget()
        self._read_held = self._write_held = False
        runs, self._runs = self._runs, deque()
        sink, self._sink = self._sink, None
        for run in runs:
            run.on_end(False)
        if sink is not None:
            sink.on_end(False)
