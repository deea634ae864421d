"""How long a small message takes while pieces flow both ways on a slow line; as root, on two hosts made for it.

    python -m tests.bench.latency [--chunk KIB] [--unsent KIB] [--whole]

Ten connections between two processes, each with a piece of 4 MiB leaving at either end all the time, over a line of
200 Mbit/s each way. Every 10 ms a message is written on the next of them, with the time in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from statistics import quantiles
from typing import Any

from krakentx.core.bitfield import Bitfield
from krakentx.core.digest import Digest
from krakentx.core.peer import InfoHash, PeerID
from krakentx.peer import bulk, protocol, transfers
from krakentx.peer.counters import Counters
from krakentx.peer.factories import dial
from krakentx.peer.protocol import PeerProtocol
from krakentx.peer.secure import BulkPort
from krakentx.peer.transfers import FileRun, Sink
from krakentx.swarm.events import ConnID, Event, Lost, MessageReceived, PayloadOffered
from krakentx.wire.messages import CHUNKS, AnnouncePiece, Handshake, PiecePayload
from krakentx.wire.session import Role

_CONNS, _PORT, _PIECE = 10, 16001, 4 << 20
_EVERY_S, _WARM_S, _LAST_S = 0.01, 3.0, 10.0
_TICKS = 10_000  # of a second, in the index of a message
_HOSTS = (("ktx-lat-a", "10.213.7.1"), ("ktx-lat-b", "10.213.7.2"))


class Side:
    """One process: its connections, and how old messages were when they were handled."""

    congested = False

    def __init__(self, reactor: Any, fd: int, *, chunks: bool) -> None:
        self.peers: list[PeerProtocol] = []
        self.ages_ms: list[float] = []
        self.bytes = 0
        self._turn = 0
        self._reactor = reactor
        self._fd = fd
        features = frozenset({CHUNKS} if chunks else ())
        self._hello = Handshake(
            PeerID(bytes(20)), Digest.of(b""), InfoHash(bytes(20)), Bitfield(4), "ns", features=features
        )

    def build(self, role: Role) -> PeerProtocol:
        return PeerProtocol(self, self._reactor, role=role, conn=ConnID(len(self.peers)))

    def connected(self, peer: PeerProtocol) -> None:
        peer.conn = ConnID(len(self.peers))
        self.peers.append(peer)
        peer.transport.account(Counters())
        if peer.role is Role.DIALER:
            peer.send(self._hello)

    def greeted(self, peer: PeerProtocol, handshake: Handshake) -> None:
        if peer.role is Role.ACCEPTOR:
            peer.send(self._hello)
        peer.activate()
        peer.go_on()
        self._give(peer)

    def _give(self, peer: PeerProtocol) -> None:
        def on_end(complete: bool) -> None:
            if complete:
                self._give(peer)

        run = FileRun(b"", self._fd, 0, _PIECE, lambda: None, on_end)
        peer.send_file(PiecePayload(0, 0, _PIECE), run)

    def feed(self, event: Event) -> None:
        if isinstance(event, PayloadOffered):
            self.peers[event.conn].receive(Sink(self._fd, _PIECE * (1 + event.conn), _PIECE, self._took))
        elif isinstance(event, MessageReceived) and isinstance(event.message, AnnouncePiece):
            ticks = (int(time.monotonic() * _TICKS) - event.message.index) & 0x7FFFFFFF
            self.ages_ms.append(ticks * 1000 / _TICKS)

    def _took(self, complete: bool) -> None:
        self.bytes += _PIECE * complete

    def talk(self) -> None:
        """Say one thing on the next connection."""
        if not self.peers:
            return
        self._turn += 1
        peer = self.peers[self._turn % len(self.peers)]
        if not peer.closing:
            peer.send(AnnouncePiece(int(time.monotonic() * _TICKS) & 0x7FFFFFFF))

    def tell(self, peer: PeerProtocol, level: object, text: str, **fields: object) -> None:
        print(text, fields, file=sys.stderr)

    def lost(self, peer: PeerProtocol, reason: Lost) -> None:
        """The other side has ended."""

    def disconnected(self, peer: PeerProtocol) -> None:
        """The other side has ended."""


def run_side(dials: bool, chunks: bool) -> None:
    """Be one of the two; the acceptor prints what it measured."""
    from twisted.internet import reactor as any_reactor
    from twisted.internet.defer import Deferred
    from twisted.internet.protocol import Factory
    from twisted.internet.task import LoopingCall

    reactor: Any = any_reactor
    with tempfile.TemporaryFile() as file:
        file.truncate(_PIECE * (1 + _CONNS))
        side = Side(reactor, file.fileno(), chunks=chunks)
        if dials:

            def meet() -> None:
                for _ in range(_CONNS):
                    Deferred.fromCoroutine(dial(reactor, _HOSTS[0][1], _PORT, lambda: side.build(Role.DIALER), 5.0))

            reactor.callLater(0.7, meet)  # the other one listens by then
        else:
            factory = Factory.forProtocol(lambda: side.build(Role.ACCEPTOR))  # type: ignore[arg-type, return-value]
            BulkPort(_PORT, factory, 50, "", reactor).startListening()
        talking = LoopingCall(side.talk)
        reactor.callLater(1.5, talking.start, _EVERY_S)
        reactor.callLater(_WARM_S, side.ages_ms.clear)
        reactor.callLater(_WARM_S, setattr, side, "bytes", 0)
        reactor.callLater(_WARM_S + _LAST_S, reactor.stop)
        reactor.run()
    cuts = quantiles(side.ages_ms, n=100)
    usage = os.times()
    print(
        json.dumps(
            {
                "messages": len(side.ages_ms),
                "p50_ms": round(cuts[49], 1),
                "p90_ms": round(cuts[89], 1),
                "p99_ms": round(cuts[98], 1),
                "max_ms": round(max(side.ages_ms), 1),
                "mbit_s": round(side.bytes * 8 / _LAST_S / 1e6),
                "cpu_s": round(usage.user + usage.system, 2),
            }
        )
    )


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def main(argv: list[str]) -> None:
    """Make the line, run both sides, take the line away."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.latency", description=__doc__)
    parser.add_argument("--chunk", type=int, default=transfers.CHUNK >> 10, help="KiB of a chunk")
    parser.add_argument(
        "--unsent", type=int, default=bulk.UNSENT >> 10, help="KiB that may wait in the kernel (0: any)"
    )
    parser.add_argument("--whole", action="store_true", help="pieces go whole, as to a peer that knows no chunks")
    parser.add_argument("--rate", default="200mbit", help="of the line (200mbit)")
    parser.add_argument("--side", choices=["a", "b"], help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.side:
        transfers.CHUNK = protocol.CHUNK = options.chunk << 10
        bulk.UNSENT = options.unsent << 10 or (1 << 31) - 1
        run_side(options.side == "b", not options.whole)
        return
    names = [name for name, _ in _HOSTS]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", "veth0", "netns", names[0], "type", "veth", "peer", "name", "veth0", "netns", names[1])
        for name, address in _HOSTS:
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "veth0")
            _ip("-n", name, "link", "set", "veth0", "up")
            tbf = ["root", "tbf", "rate", options.rate, "burst", "64kb", "latency", "20ms"]
            _ip("netns", "exec", name, "tc", "qdisc", "add", "dev", "veth0", *tbf)
        sides = [
            subprocess.Popen(
                ["ip", "netns", "exec", name, sys.executable, "-m", "tests.bench.latency", *argv, "--side", side]
            )
            for name, side in zip(names, "ab", strict=True)
        ]
        for each in sides:
            each.wait()
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


if __name__ == "__main__":
    main(sys.argv[1:])
