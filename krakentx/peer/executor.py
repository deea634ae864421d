"""Executor: carries out what the Engine decided, with sockets, files and the clock. Decides nothing of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from krakentx.core.errors import Corrupt, KrakenError, LocalProtocolError, Unavailable
from krakentx.core.peer import InfoHash
from krakentx.peer.bulk import FileRun, Sink
from krakentx.peer.counters import Counters
from krakentx.peer.factories import DialError, dial
from krakentx.peer.fetch import StorageError, fetch_pieces
from krakentx.peer.interfaces import IAnnouncer, IFallback
from krakentx.peer.protocol import PeerProtocol
from krakentx.peer.rates import Traffic
from krakentx.peer.torrents import Torrent
from krakentx.peer.turns import IEngine, Turns
from krakentx.swarm import effects as fx
from krakentx.swarm import events as ev
from krakentx.swarm.config import SwarmConfig
from krakentx.swarm.events import ConnID, Lost
from krakentx.wire.messages import Handshake, PiecePayload
from krakentx.wire.session import Role


class Executor:
    """The hands of one Engine.

    Args:
        greet: an accepted connection has greeted; see `IPeerOwner.greeted`.
        gone: an accepted socket is no longer a stranger, or is gone.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        engine: IEngine,
        config: SwarmConfig,
        announcer: IAnnouncer | None,
        fallback: IFallback | None,
        counters: Counters,
        greet: Callable[[PeerProtocol, Handshake], None],
        gone: Callable[[PeerProtocol], None],
    ) -> None:
        self.torrents: dict[InfoHash, Torrent] = {}
        self.conns: dict[ConnID, PeerProtocol] = {}
        self.sockets: set[PeerProtocol] = set()
        self.counters = counters
        self.config = config
        self.traffic = Traffic(reactor)
        self._reactor = reactor
        self._announcer = announcer
        self._fallback = fallback
        self._greet = greet
        self._gone = gone
        self._tasks: set[Deferred[None]] = set()
        self._dialling: dict[ConnID, Deferred[None]] = {}
        self._stopped = False
        self._fetching: dict[Torrent, set[Deferred[ev.FetchProblem | None]]] = {}
        self._turns = Turns(engine, reactor, self._execute, self._handled, self._broken)
        self.feed = self._turns.feed
        self._do: dict[type[fx.Effect], Callable[[Any], None]] = {
            fx.Announce: self._announce,
            fx.Dial: self._dial,
            fx.Send: self._send,
            fx.SendPiece: self._send_piece,
            fx.ReceivePiece: self._receive_piece,
            fx.SkipPayload: self._skip_payload,
            fx.Close: self._close,
            fx.Ban: self._ban,
            fx.FetchFromOrigin: self._fetch,
            fx.VerifyBlob: self._verify,
            fx.PieceReady: self._piece_ready,
            fx.Finished: self._finished,
            fx.Failed: self._failed,
            fx.Forget: self._forget,
            fx.WakeAt: lambda effect: self._turns.wake_at(effect.when),
        }
        self.configure(config)

    def configure(self, config: SwarmConfig) -> None:
        """Take over limits that are ours and not the Engine's."""
        self.config = config
        bandwidth = config.conn.bandwidth
        if bandwidth.enable:
            self.traffic.set_rates(bandwidth.egress_bits_per_sec / 8, bandwidth.ingress_bits_per_sec / 8)
        else:
            self.traffic.set_rates(None, None)

    # --- for connections: IPeerOwner

    @property
    def congested(self) -> bool:
        """See `IPeerOwner`."""
        return self._turns.congested

    def build(self, role: Role, conn: ConnID | None = None) -> PeerProtocol:
        """A new connection, not yet connected."""
        return PeerProtocol(self, self._reactor, role=role, conn=conn, handshake_s=self.config.conn.handshake_timeout_s)

    def connected(self, peer: PeerProtocol) -> None:
        """See `IPeerOwner`."""
        self.sockets.add(peer)
        peer.transport.account(self.counters, self.traffic.egress, self.traffic.ingress)

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
        self.feed(ev.HandshakeReceived(peer.conn, handshake))

    def lost(self, peer: PeerProtocol, reason: Lost) -> None:
        """See `IPeerOwner`."""
        self._gone(peer)
        if reason is Lost.PROTOCOL:
            self.counters.protocol_errors += 1
        if peer.conn is not None and self.conns.pop(peer.conn, None) is not None:
            self.log.debug("conn with {addr} ended: {reason}", addr=peer.addr, reason=reason.value)
            self.feed(ev.PeerLost(peer.conn, reason))

    def disconnected(self, peer: PeerProtocol) -> None:
        """See `IPeerOwner`."""
        self.sockets.discard(peer)

    # --- turns

    def _execute(self, effect: fx.Effect) -> None:
        self._do[type(effect)](effect)

    def _handled(self, event: ev.Event) -> None:
        if not isinstance(event, ev.HandshakeReceived):
            return
        peer = self.conns.get(event.conn)
        if peer is None:
            return  # the Engine refused it
        torrent = str(event.handshake.info_hash)
        if peer.role is Role.ACCEPTOR:
            self._log_pending(str(event.handshake.peer_id), peer.addr, torrent)
        self.log.info(
            "Moved conn from pending to active: {peer} at {addr} for {torrent}",
            peer=str(event.handshake.peer_id),
            addr=peer.addr,
            torrent=torrent,
        )
        peer.activate()
        peer.go_on()

    def _log_pending(self, peer: str, addr: str, torrent: str) -> None:
        self.log.info("Added pending conn: {peer} at {addr} for {torrent}", peer=peer, addr=addr, torrent=torrent)

    def _broken(self, event: ev.Event) -> None:
        conn = getattr(event, "conn", None)
        if conn in self.conns:
            self.conns[conn].abort(Lost.LOCAL)

    # --- connections

    def _dial(self, effect: fx.Dial) -> None:
        self.counters.dials += 1
        self._log_pending(str(effect.peer.peer_id), effect.peer.address, str(effect.torrent))
        self._dialling[effect.conn] = self.own(self._dialled(effect))

    async def _dialled(self, effect: fx.Dial) -> None:
        peer = effect.peer
        build = partial(self.build, Role.DIALER, effect.conn)
        try:
            protocol = await dial(self._reactor, peer.ip, peer.port, build, effect.timeout_s)
        except DialError as error:
            self._dialling.pop(effect.conn, None)
            self.counters.dial_failures += 1
            self.log.info(
                "dial of {peer} failed: {problem}, addr {addr}",
                peer=str(peer.peer_id),
                problem=error.problem,
                addr=error.addr,
            )
            self.feed(ev.PeerLost(effect.conn, error.reason))
            return
        self._dialling.pop(effect.conn, None)
        self.conns[effect.conn] = protocol
        self.feed(ev.DialSucceeded(effect.conn))

    def _send(self, effect: fx.Send) -> None:
        peer = self.conns.get(effect.conn)
        if peer is not None:
            self._guarded(peer, peer.send, effect.message)

    def _send_piece(self, effect: fx.SendPiece) -> None:
        peer, torrent = self.conns.get(effect.conn), self.torrents.get(effect.torrent)
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

    def _receive_piece(self, effect: fx.ReceivePiece) -> None:
        peer, torrent = self.conns.get(effect.conn), self.torrents.get(effect.torrent)
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
            self.counters.received_peers_bytes += meta.piece_size(index)
            good = sink.crc == meta.piece_sums[index]
            if not good:
                self.counters.corrupt_pieces += 1
                self.log.warn(
                    "piece {piece} of {digest} from {addr} is corrupt",
                    piece=index,
                    digest=str(meta.digest),
                    addr=peer.addr,
                )
            self.feed(ev.PieceArrived(effect.conn, index, good))

        sink = Sink(torrent.fileno(), meta.offset(index), meta.piece_size(index), on_end)
        if not self._guarded(peer, peer.receive, sink):
            torrent.release()

    def _skip_payload(self, effect: fx.SkipPayload) -> None:
        peer = self.conns.get(effect.conn)
        if peer is not None:
            self.counters.skipped_bytes += peer.session.payload_left
            peer.skip()

    def _close(self, effect: fx.Close) -> None:
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

    def _ban(self, effect: fx.Ban) -> None:
        self.log.warn(
            "banned {peer} for {torrent} for {remaining_s:.0f} s: {reason}",
            peer=str(effect.peer),
            torrent=str(effect.torrent),
            remaining_s=effect.until - self._reactor.seconds(),
            reason=effect.reason,
        )

    # --- tracker and fallback

    def _announce(self, effect: fx.Announce) -> None:
        self.own(self._announced(effect))

    async def _announced(self, effect: fx.Announce) -> None:
        torrent = self.torrents.get(effect.torrent)
        try:
            if self._announcer is None or torrent is None:
                raise Unavailable("the tracker", "there is none")
            work = self._announcer.announce(torrent.digest, effect.torrent, complete=effect.complete)
            answer = await self._within(work, self.config.announce.answer_timeout_s)
        except (KrakenError, TimeoutError) as error:
            self.log.warn("announce of {torrent} failed: {error}", torrent=str(effect.torrent), error=str(error))
            self.feed(ev.AnnounceFailed(effect.torrent))
        else:
            self.feed(ev.PeersOffered(effect.torrent, answer.peers, answer.interval_s))

    def _fetch(self, effect: fx.FetchFromOrigin) -> None:
        torrent = self.torrents.get(effect.torrent)
        if torrent is None or self._fallback is None:
            self.feed(ev.FetchEnded(effect.torrent, effect.pieces, ev.FetchProblem.UNAVAILABLE))
            return
        torrent.hold()

        def on_piece(index: int) -> None:
            self.counters.received_fallback_bytes += torrent.meta.piece_size(index)
            self._about(torrent, ev.PieceFetched(effect.torrent, index))

        work = fetch_pieces(self._fallback, torrent, effect.pieces, effect.stall_s, self._reactor, on_piece)
        task = Deferred.fromCoroutine(work)
        self._fetching.setdefault(torrent, set()).add(task)
        task.addBoth(self._fetched, effect, torrent, task)

    def _fetched(
        self,
        result: ev.FetchProblem | Failure | None,
        effect: fx.FetchFromOrigin,
        torrent: Torrent,
        task: Deferred[ev.FetchProblem | None],
    ) -> None:
        self._fetching.get(torrent, set()).discard(task)
        torrent.release()
        if isinstance(result, Failure):
            if isinstance(result.value, StorageError):
                self._about(torrent, ev.StorageFailed(effect.torrent, torrent.storage_trouble(result.value.error)))
            elif not result.check(CancelledError):
                self.log.failure("fetching pieces of {digest} failed", digest=str(torrent.digest), failure=result)
            result = ev.FetchProblem.UNAVAILABLE
        self._about(torrent, ev.FetchEnded(effect.torrent, effect.pieces, result))

    def _about(self, torrent: Torrent, event: ev.Event) -> None:
        """Feed an event of work that may outlive its torrent: one of the same name may have come in its place."""
        if self.torrents.get(torrent.info_hash) is torrent:
            self.feed(event)

    # --- torrents

    def add(self, torrent: Torrent, *, wanted: bool) -> None:
        """Hand a torrent to the Engine."""
        if self._stopped:
            self.drop(torrent, Unavailable("the scheduler", "has been stopped"))
            return
        self.torrents[torrent.info_hash] = torrent
        self.log.info(
            "Added new torrent {torrent}: {digest}, {size_bytes} bytes in {pieces} pieces, {have} of them here",
            torrent=str(torrent.info_hash),
            digest=str(torrent.digest),
            size_bytes=torrent.meta.length,
            pieces=torrent.meta.piece_count,
            have=len(torrent.have),
        )
        self._tell_of(torrent, wanted)

    def want(self, torrent: Torrent) -> None:
        """Someone here wants a torrent that the Engine knows."""
        if not torrent.wanted and not torrent.verified:
            self._tell_of(torrent, True)

    def _tell_of(self, torrent: Torrent, wanted: bool) -> None:
        if wanted:
            torrent.wanted = True
            torrent.added_at = torrent.progress_at = self._reactor.seconds()
        self.feed(ev.TorrentAdded(torrent.meta, torrent.have, torrent.namespace, wanted))

    def _verify(self, effect: fx.VerifyBlob) -> None:
        torrent = self.torrents.get(effect.torrent)
        if torrent is not None and torrent.partial is not None:
            self.own(self._verified(torrent))

    async def _verified(self, torrent: Torrent) -> None:
        assert torrent.partial is not None
        torrent.verifying = True
        torrent.hold()
        try:
            await torrent.partial.verify()
            torrent.set_verified(self._reactor.seconds())
            await torrent.partial.commit()
        except Corrupt as error:
            self.log.error("blob {digest} is corrupt: {error}", digest=str(torrent.digest), error=str(error))
            torrent.corrupted(error)
            self._about(torrent, ev.BlobCorrupt(torrent.info_hash))
        except (OSError, KrakenError) as error:
            self._about(torrent, ev.StorageFailed(torrent.info_hash, torrent.storage_trouble(error)))
        else:
            self._about(torrent, ev.BlobVerified(torrent.info_hash))
        finally:
            torrent.verifying = False
            torrent.release()

    def _piece_ready(self, effect: fx.PieceReady) -> None:
        torrent = self.torrents.get(effect.torrent)
        if torrent is not None:
            torrent.piece_ready(effect.index, effect.source, self._reactor.seconds())

    def _finished(self, effect: fx.Finished) -> None:
        torrent = self.torrents.get(effect.torrent)
        if torrent is None:
            return
        torrent.set_committed()
        self.counters.completed += 1
        elapsed_s = max(self._reactor.seconds() - torrent.added_at, 1e-6)
        by_source = torrent.bytes_by_source
        total = max(1, sum(by_source.values()))
        self.log.info(
            "Torrent complete: {digest} downloaded {size_bytes} bytes in {elapsed_s:.2f} s, speed {rate:.1f} MiB/s, "
            "{peers:.0%} from peers, {fallback:.0%} from fallback",
            digest=str(torrent.digest),
            size_bytes=torrent.meta.length,
            elapsed_s=elapsed_s,
            rate=sum(by_source.values()) / elapsed_s / 2**20,
            peers=(by_source["peer"] + by_source["origin"]) / total,
            fallback=by_source["http"] / total,
            torrent=str(torrent.info_hash),
        )

    def _failed(self, effect: fx.Failed) -> None:
        torrent = self.torrents.get(effect.torrent)
        if torrent is not None:
            self.counters.failed += 1
            error = torrent.error_of(effect.reason)
            self.log.warn("download of {digest} failed: {error}", digest=str(torrent.digest), error=str(error))
            self.drop(torrent, error)

    def _forget(self, effect: fx.Forget) -> None:
        torrent = self.torrents.get(effect.torrent)
        if torrent is not None:
            self.log.debug("put away {torrent}", torrent=str(effect.torrent))
            self.drop(torrent, Unavailable("the swarm", "the torrent was put away"))

    def drop(self, torrent: Torrent, error: KrakenError) -> None:
        """Close a torrent which the Engine has forgotten; who waits for it gets the error."""
        if self.torrents.get(torrent.info_hash) is torrent:
            del self.torrents[torrent.info_hash]
        for task in list(self._fetching.pop(torrent, ())):
            task.cancel()
        torrent.failed(error)
        torrent.close()

    # --- tasks

    def own(self, work: Coroutine[Any, Any, None]) -> Deferred[None]:
        """Run something in the background until `stop`."""
        task = Deferred.fromCoroutine(work)
        self._tasks.add(task)

        def done(result: Failure | None) -> None:
            self._tasks.discard(task)
            if isinstance(result, Failure) and not result.check(CancelledError):
                self.log.failure("a task of the scheduler failed", failure=result)

        task.addBoth(done)
        return task

    async def _within(self, work: Awaitable[Any], timeout_s: float) -> Any:
        return await Deferred.fromCoroutine(_await(work)).addTimeout(timeout_s, self._reactor)

    def stop(self) -> None:
        """Close every connection, cancel every task, fail whoever waits. Nothing is fed to the Engine any more."""
        self._stopped = True
        self._turns.stop()
        for task in list(self._tasks):
            task.cancel()
        for peer in list(self.sockets):
            peer.abort(Lost.LOCAL)
        for torrent in list(self.torrents.values()):
            self.drop(torrent, Unavailable("the scheduler", "has been stopped"))


async def _await(work: Awaitable[Any]) -> Any:
    return await work
