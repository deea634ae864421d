"""Links: the connections of one Engine, and the effects that concern them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from typing import Protocol as Interface

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger, LogLevel

from krakentx.core.errors import LocalProtocolError
from krakentx.core.peer import InfoHash, PeerID
from krakentx.peer.counters import Counters
from krakentx.peer.factories import DialError, dial
from krakentx.peer.protocol import PeerProtocol
from krakentx.peer.quiet import Quiet
from krakentx.peer.rates import Traffic
from krakentx.peer.tasks import Tasks
from krakentx.peer.tlsconfig import PeerTls
from krakentx.peer.torrents import Torrent
from krakentx.peer.transfers import FileRun, Sink
from krakentx.swarm import effects as fx
from krakentx.swarm import events as ev
from krakentx.swarm.config import SwarmConfig
from krakentx.swarm.events import ConnID, Lost
from krakentx.wire.messages import Handshake, PiecePayload
from krakentx.wire.session import Role

_PENDING = "Added pending conn: {peer} at {addr} for {torrent}"
_ACTIVE = "Moved conn from pending to active: {peer} at {addr} for {torrent}"

LINES_A_MINUTE = 10
"""Lines of what one host did wrong."""
GREETINGS_A_MINUTE = 200
"""Lines of one host's connections that came to be: a rollout of large images has many."""


class IDoor(Interface):
    """Keeps count of strangers; see `AcceptFactory`. Connections that we dialled are none of its business."""

    def known(self, protocol: PeerProtocol) -> None:
        """It is a connection of the Engine now."""

    def estranged(self, protocol: PeerProtocol) -> None:
        """It is none any more, and its socket may linger."""

    def gone(self, protocol: PeerProtocol) -> None:
        """Its socket is closed."""


class Links:
    """Dials, sends, receives and closes. Implements `IPeerOwner`.

    Args:
        feed: tells the Engine.
        congested: whether the Engine is behind.
        torrents: those that are open.
        greet: an accepted connection has greeted; `welcome` follows when the disk was looked at.
        door: is told who of the accepted is a stranger.
        unreachable: a peer of a torrent could not be dialled.
        tls: None = the plain wire only.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        config: SwarmConfig,
        counters: Counters,
        tasks: Tasks,
        torrents: Mapping[InfoHash, Torrent],
        feed: Callable[[ev.Event], None],
        congested: Callable[[], bool],
        greet: Callable[[PeerProtocol, Handshake], None],
        door: IDoor,
        unreachable: Callable[[InfoHash, PeerID], None],
        tls: PeerTls | None,
    ) -> None:
        self.conns: dict[ConnID, PeerProtocol] = {}
        self.sockets: set[PeerProtocol] = set()
        self.feed = feed
        self._reactor = reactor
        self._counters = counters
        self._tasks = tasks
        self._torrents = torrents
        self._congested = congested
        self._greet = greet
        self._door = door
        self._unreachable = unreachable
        self._tls = tls
        self.traffic = Traffic(reactor)
        self._quiet = Quiet(reactor, LINES_A_MINUTE)
        self._greetings = Quiet(reactor, GREETINGS_A_MINUTE)
        self._dialling: dict[ConnID, Deferred[None]] = {}
        self.configure(config)

    def configure(self, config: SwarmConfig) -> None:
        """Go on with other limits; a deadline that runs already is not moved."""
        self._config = config
        bandwidth = config.conn.bandwidth
        self.traffic.set_rates(bandwidth.egress_bytes_s, bandwidth.ingress_bytes_s)

    # --- for connections: IPeerOwner

    @property
    def congested(self) -> bool:
        """See `IPeerOwner`."""
        return self._congested()

    def build(self, role: Role, conn: ConnID | None = None) -> PeerProtocol:
        """A new connection, not yet connected."""
        return PeerProtocol(
            self, self._reactor, role=role, conn=conn, handshake_s=self._config.conn.handshake_timeout_s
        )

    def connected(self, peer: PeerProtocol) -> None:
        """See `IPeerOwner`."""
        self.sockets.add(peer)
        peer.transport.account(self._counters, self.traffic.egress, self.traffic.ingress)

    def greeted(self, peer: PeerProtocol, handshake: Handshake) -> None:
        """See `IPeerOwner`."""
        if peer.role is Role.DIALER:
            self.welcome(peer, handshake)
        else:
            self._greet(peer, handshake)

    def welcome(self, peer: PeerProtocol, handshake: Handshake) -> None:
        """Let the Engine see the handshake of a connection that has its id."""
        assert peer.conn is not None
        self.conns[peer.conn] = peer
        peer.transport.join(handshake.info_hash)
        self.feed(ev.HandshakeReceived(peer.conn, handshake))

    def tell(self, peer: PeerProtocol, level: object, text: str, **fields: object) -> None:
        """See `IPeerOwner`."""
        self._quiet.emit(peer.host, self.log, level, text, **fields)

    def lost(self, peer: PeerProtocol, reason: Lost) -> None:
        """See `IPeerOwner`."""
        self._door.estranged(peer)
        if reason is Lost.PROTOCOL:
            self._counters.protocol_errors += 1
        if peer.conn is not None and self.conns.pop(peer.conn, None) is not None:
            self.log.debug("conn with {addr} ended: {reason}", addr=peer.addr, reason=reason.value)
            self.feed(ev.PeerLost(peer.conn, reason))

    def disconnected(self, peer: PeerProtocol) -> None:
        """See `IPeerOwner`."""
        self.sockets.discard(peer)
        self._door.gone(peer)

    def greeting_handled(self, event: ev.HandshakeReceived) -> None:
        """The Engine has seen a handshake: unless it closed the connection, messages may flow."""
        peer = self.conns.get(event.conn)
        if peer is None:
            return  # the Engine refused it
        self._door.known(peer)
        if peer.role is Role.ACCEPTOR:
            self._greeting(_PENDING, event.handshake.peer_id, peer.host, peer.addr, event.handshake.info_hash)
        self._greeting(_ACTIVE, event.handshake.peer_id, peer.host, peer.addr, event.handshake.info_hash)
        peer.activate()
        peer.go_on()

    def _greeting(self, text: str, peer: PeerID, host: str, addr: str, torrent: InfoHash) -> None:
        self._greetings.emit(host, self.log, LogLevel.info, text, peer=str(peer), addr=addr, torrent=str(torrent))

    # --- effects

    def dial(self, effect: fx.Dial) -> None:
        """See `effects.Dial`."""
        self._counters.dials += 1
        to = effect.peer
        self._greeting(_PENDING, to.peer_id, to.ip, to.address, effect.torrent)
        self._dialling[effect.conn] = self._tasks.own(self._dialled(effect))

    async def _dialled(self, effect: fx.Dial) -> None:
        peer = effect.peer
        build = partial(self.build, Role.DIALER, effect.conn)
        tls = self._tls if self._tls is not None and self._tls.secures(peer) else None
        try:
            protocol = await dial(self._reactor, peer.ip, peer.port, build, effect.timeout_s, tls)
        except DialError as error:
            self.log.info(
                "dial of {peer} failed: {problem}, addr {addr}",
                peer=str(peer.peer_id),
                problem=error.problem,
                addr=error.addr,
            )
            self._dial_failed(effect, error.reason)
            return
        except CancelledError:
            raise
        except Exception:  # our bug, and yet the Engine's slot must come free
            self.log.failure("dial of {peer} at {addr} failed", peer=str(peer.peer_id), addr=peer.address)
            self._dial_failed(effect, Lost.UNREACHABLE)
            return
        self._dialling.pop(effect.conn, None)
        self.conns[effect.conn] = protocol
        self.feed(ev.DialSucceeded(effect.conn))

    def _dial_failed(self, effect: fx.Dial, reason: Lost) -> None:
        self._dialling.pop(effect.conn, None)
        self._counters.dial_failures += 1
        self._unreachable(effect.torrent, effect.peer.peer_id)
        self.feed(ev.PeerLost(effect.conn, reason))

    def send(self, effect: fx.Send) -> None:
        """See `effects.Send`."""
        peer = self.conns.get(effect.conn)
        if peer is not None:
            self._guarded(peer, peer.send, effect.message)

    def send_piece(self, effect: fx.SendPiece) -> None:
        """See `effects.SendPiece`."""
        peer, torrent = self.conns.get(effect.conn), self._torrents.get(effect.torrent)
        if peer is None or torrent is None or torrent.closing:
            return
        size = torrent.meta.piece_size(effect.index)
        torrent.hold()

        def on_end(complete: bool) -> None:
            torrent.release()
            if complete:
                self.feed(ev.PieceSent(effect.conn, effect.index))

        def on_begin() -> None:
            self.feed(ev.PieceSendBegan(effect.conn, effect.index))

        run = FileRun(b"", torrent.fileno(), torrent.meta.offset(effect.index), size, on_begin, on_end)
        if not self._guarded(peer, peer.send_file, PiecePayload(effect.index, 0, size), run):
            torrent.release()

    def receive_piece(self, effect: fx.ReceivePiece) -> None:
        """See `effects.ReceivePiece`."""
        peer, torrent = self.conns.get(effect.conn), self._torrents.get(effect.torrent)
        if peer is None:
            return
        if torrent is None or torrent.closing:
            # Put away in this very turn; the connection is about to be closed.
            peer.skip()
            return
        meta, index = torrent.meta, effect.index
        torrent.hold()

        def on_end(complete: bool) -> None:
            torrent.release()
            if not complete or peer.closing:
                return
            if sink.error is not None:
                self.feed(ev.StorageFailed(torrent.info_hash, torrent.storage_trouble(sink.error)))
                return
            self._counters.received_peers_bytes += meta.piece_size(index)
            good = meta.fits(index, passed)
            if not good:
                self._counters.corrupt_pieces += 1
                text = "piece {piece} of {digest} from {addr} is corrupt"
                self.tell(peer, LogLevel.warn, text, piece=index, digest=str(meta.digest), addr=peer.addr)
            self.feed(ev.PieceArrived(effect.conn, index, good))

        passed = meta.new_sum()
        sink = Sink(torrent.fileno(), meta.offset(index), meta.piece_size(index), on_end, passed)
        if not self._guarded(peer, peer.receive, sink):
            torrent.release()

    def skip_payload(self, effect: fx.SkipPayload) -> None:
        """See `effects.SkipPayload`."""
        peer = self.conns.get(effect.conn)
        if peer is not None:
            self._counters.skipped_bytes += peer.session.payload_left
            peer.skip()

    def close(self, effect: fx.Close) -> None:
        """See `effects.Close`."""
        dialling = self._dialling.pop(effect.conn, None)
        if dialling is not None:
            dialling.cancel()
            self.feed(ev.PeerLost(effect.conn, Lost.LOCAL))
        peer = self.conns.get(effect.conn)
        if peer is not None:
            self.log.debug("closing conn with {addr}: {reason}", addr=peer.addr, reason=effect.reason)
            peer.close()

    def _guarded(self, peer: PeerProtocol, call: Callable[..., None], *args: object) -> bool:
        """Do something that our own bug could make illegal: then only this connection suffers."""
        try:
            call(*args)
        except LocalProtocolError:
            self.log.failure("closing {addr}", addr=peer.addr)
            peer.abort(Lost.LOCAL)
            return False
        return True

    # --- the end

    def abort(self, conn: ConnID) -> None:
        """Close a connection that a bug of ours has left in an unknown state."""
        if conn in self.conns:
            self.conns[conn].abort(Lost.LOCAL)

    def stop(self) -> None:
        """Close every connection."""
        for peer in list(self.sockets):
            peer.abort(Lost.LOCAL)
