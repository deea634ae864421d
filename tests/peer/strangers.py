"""Strangers who mean harm, on plain sockets: what each of them does to a peer wire, for as long as it is let."""

from __future__ import annotations

import itertools
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator

from attrs import define, evolve, field

from krakentx.core.bitfield import Bitfield
from krakentx.core.digest import Digest
from krakentx.core.metainfo import MAX_PIECES, MetaInfo
from krakentx.core.peer import InfoHash, PeerID
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

_BITS = b"\x2a"  # tag of the bitset within a handshake
_PAUSE_S = 0.002
_GIVE_UP_S = 2.0


@define(eq=False)
class Crowd:
    """Sockets of strangers towards one port.

    Args:
        meta: the blob that they talk of.
    """

    port: int
    meta: MetaInfo
    sockets: list[socket.socket] = field(factory=list)
    opened: int = 0
    over: threading.Event = field(factory=threading.Event)
    _ids: Iterator[int] = field(factory=lambda: itertools.count(1))

    # ---- life

    def run(self, deed: Callable[[Crowd], None]) -> threading.Thread:
        """Do it again and again in a thread until `over`; a stranger whose socket is gone has lost it, no more."""

        def body() -> None:
            while not self.over.is_set():
                try:
                    deed(self)
                except (OSError, IndexError):
                    pass
                time.sleep(_PAUSE_S)

        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        return thread

    def open(self, first: bytes = b"", host: int = 1) -> socket.socket:
        """A new connection from 127.0.0.HOST that says `first`."""
        sock = socket.create_connection(("127.0.0.1", self.port), _GIVE_UP_S, (f"127.0.0.{host}", 0))
        self.opened += 1
        self.sockets.append(sock)
        sock.settimeout(0.05)
        sock.sendall(first)
        return sock

    def friend(self, **changes: object) -> socket.socket:
        """A new connection whose handshake was answered."""
        sock = self.open(encode(self.hello(**changes)))
        sock.settimeout(_GIVE_UP_S)
        head = sock.recv(4, socket.MSG_WAITALL)
        if len(head) < 4:
            raise ConnectionError("refused")
        sock.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
        sock.settimeout(0.05)
        return sock

    def hello(self, **changes: object) -> Handshake:
        """A handshake of somebody new that has nothing."""
        peer = PeerID(random.randbytes(12) + next(self._ids).to_bytes(8, "big"))
        greeting = Handshake(peer, self.meta.digest, self.meta.info_hash, Bitfield(self.meta.piece_count), "hostile")
        return evolve(greeting, **changes)

    def at_most(self, count: int) -> None:
        """Keep the newest sockets only; the older ones are reset."""
        while len(self.sockets) > count:
            reset(self.sockets.pop(0))

    def left(self, within_s: float) -> int:
        """How many sockets the other side has still not closed after a while."""
        deadline = time.monotonic() + within_s
        alive = self.sockets
        while alive and time.monotonic() < deadline:
            alive = [sock for sock in alive if not _ended(sock)]
            time.sleep(0.02)
        return len(alive)

    def leave(self) -> None:
        """Reset every connection."""
        self.over.set()
        self.at_most(0)

    # ---- deeds: those who have not greeted

    def say_nothing(self) -> None:
        """Hundreds of sockets from eight addresses that never speak."""
        if self.opened < 300:
            for host in range(1, 9):
                self.open(host=host)

    def drip(self) -> None:
        """Hundreds of handshakes that come byte by byte."""
        if self.opened < 200:
            for host in range(1, 9):
                self.open(host=host)
        else:
            time.sleep(0.05)
        for sock in self.sockets:
            try:
                sock.send(encode(self.hello())[:1])
            except OSError:
                continue

    def come_and_go(self) -> None:
        """Thousands of connections from one address, some reset and some closed."""
        for _ in range(20):
            self.open(encode(self.hello()) if self.opened % 3 else b"")
        self.at_most(10)

    def stay_half(self) -> None:
        """Half of a handshake, or all of it, and then our half is closed and the rest left unread."""
        greeting = encode(self.hello())
        self.open(greeting[: len(greeting) // (1 + self.opened % 2)], 1 + self.opened % 8).shutdown(socket.SHUT_WR)
        self.at_most(300)

    def boast(self) -> None:
        """Lengths of 4 GiB, and bitsets from the greatest that is allowed to those of a terabit."""
        for size in (MAX_PIECES, MAX_PIECES + 1, 1 << 40, (1 << 64) - 1):
            self.open(huge_handshake(self.hello(), size))
        self.open(b"\xff\xff\xff\xff" + bytes(60_000))
        self.at_most(300)

    def ask_for_another(self) -> None:
        """Handshakes for torrents that are not here, and for a blob and an info hash that do not belong together."""
        self.open(encode(self.hello(info_hash=InfoHash(random.randbytes(20)), digest=Digest.of(random.randbytes(4)))))
        self.open(encode(self.hello(info_hash=InfoHash(random.randbytes(20)))))
        self.open(encode(self.hello(digest=Digest.of(b"another"))))
        self.at_most(300)

    def break_tls(self) -> None:
        """Hellos that are half, whole, followed by rubbish or by nothing; records of rubbish; and no certificate."""
        hello = tls_hello()
        for number, said in enumerate((hello[:9], hello, hello + random.randbytes(300), b"\x16" + bytes(20_000))):
            self.open(said, 1 + number)
        sock = self.open(host=5)
        sock.settimeout(_GIVE_UP_S)
        self.sockets.remove(sock)
        self.sockets.append(_trusting().wrap_socket(sock))
        self.at_most(200)

    # ---- deeds: those who have

    def talk_rubbish(self) -> None:
        """Anything but a message after the handshake."""
        sock = self.friend()
        sock.sendall(random.choice([b"\xff" * 4, bytes(4), random.randbytes(40), b"\x00\x00\x00\x04" + b"\xff" * 4]))
        self.at_most(60)

    def press_pieces(self) -> None:
        """Whole pieces that nobody asked for."""
        sock = self.friend()
        for index in range(self.meta.piece_count):
            size = self.meta.piece_size(index)
            sock.sendall(encode(PiecePayload(index, 0, size)))
            sock.sendall(bytes(size))
        self.at_most(30)

    def lie_of_length(self) -> None:
        """Headers of pieces with other bytes behind them than they say."""
        size = self.meta.piece_size(0)
        for length, more in ((size, 10), (size - 1, size), (2**31 - 1, 1000), (0, 1000), (5, 5)):
            sock = self.friend()
            sock.sendall(encode(PiecePayload(0, 0, length)) + bytes(more))
        self.at_most(60)

    def demand(self) -> None:
        """Requests without end, most of them for pieces that are none, and nothing is read."""
        asked = [PieceRequest(index, 0, size) for index in (0, 1, 2**31 - 1) for size in (self.meta.piece_length, 5)]
        self._flood(b"".join(map(encode, asked)) * 100)

    def never_read(self) -> None:
        """Every piece is asked for and none is taken."""
        if len(self.sockets) < 15:
            sock = self.friend()
            for index in range(self.meta.piece_count):
                sock.sendall(encode(PieceRequest(index, 0, self.meta.piece_size(index))))

    def chatter(self) -> None:
        """Haves, cancels, refusals and messages that are none, by the hundred thousand."""
        said = [AnnouncePiece(0), CancelPiece(0), CancelPiece(2**31 - 1), PieceError(1, "no"), PieceError(9999, "")]
        self._flood((b"".join(map(encode, said)) + b"\x00\x00\x00\x02\x10\x63") * 100)

    def claim_all(self) -> None:
        """Say that they have everything, and give nothing of it."""
        sock = self.friend()
        sock.sendall(encode(Complete()))
        self.at_most(30)

    def _flood(self, data: bytes) -> None:
        if len(self.sockets) < 8:
            self.friend().setblocking(False)
        for sock in self.sockets:
            try:
                sock.send(data)
            except BlockingIOError:
                continue


def huge_handshake(greeting: Handshake, size: int) -> bytes:
    """A handshake whose bitset says that it has so many bits; no more than fit a frame do follow."""
    frame = encode(evolve(greeting, bitfield=Bitfield(0)))[4:]
    bits = (size & (1 << 64) - 1).to_bytes(8, "big") + bytes(8 * min(-(-size // 64), 4000))
    empty = _BITS + b"\x08" + bytes(8)
    at = frame.index(empty)
    inner = frame[frame.index(b"\x12") : at] + _BITS + varint(len(bits)) + bits + frame[at + len(empty) :]
    whole = b"\x1a" + varint(len(inner)) + inner
    return len(whole).to_bytes(4, "big") + whole


def varint(number: int) -> bytes:
    """As protobuf writes a length."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _trusting() -> ssl.SSLContext:
    """Believes anybody and shows nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def tls_hello() -> bytes:
    """What a TLS client says first."""
    out = ssl.MemoryBIO()
    try:
        _trusting().wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def reset(sock: socket.socket) -> None:
    """Close with a reset."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        sock.close()


def _ended(sock: socket.socket) -> bool:
    """The other side has closed; what it said before is read and dropped."""
    try:
        sock.setblocking(False)
        while sock.recv(1 << 16):
            pass
        return True
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
