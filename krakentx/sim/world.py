"""A world of hosts: real Engines over modelled lines, their trackers, one virtual clock, one seed.

Modelled: cards, uplinks of racks, latency, dials, announces and their answers, pieces of metainfo, HTTP from origins,
and faults. Hashing, when asked for. Not modelled: other CPU, disk, slow start and loss of TCP, bandwidth of messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from attrs import Factory, define, field

from krakentx.core.bitfield import Bitfield
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import InfoHash, PeerContext, PeerID, PeerInfo
from krakentx.sim.clock import Clock
from krakentx.sim.faults import Faults, StrongSums
from krakentx.sim.fetch import Fetch, Server
from krakentx.sim.flows import Flows
from krakentx.sim.host import Host, MakeMind, Mind
from krakentx.sim.network import Network
from krakentx.sim.pipe import Rack, Wire, connect
from krakentx.sim.tracker import Trackers
from krakentx.swarm import effects as fx
from krakentx.swarm import events as ev
from krakentx.swarm.config import SwarmConfig
from krakentx.swarm.engine import Engine
from krakentx.swarm.events import Event, FetchProblem, Lost
from krakentx.wire.messages import CHUNKS, Handshake, PieceRequest

_VERIFY_S = 0.001
_HTTP_REFUSAL_S = 0.1
_PORT = 16001


@define
class World:
    """Hosts, their trackers, and time.

    Args:
        make: what decides for the hosts.
        record: takes one line for each effect.
        listen: takes one line for each event that a host is told of.
    """

    seed: int
    network: Network = Factory(Network)
    faults: Faults = Factory(Faults)
    config: SwarmConfig = Factory(SwarmConfig)
    strong_sums: StrongSums = StrongSums.ALWAYS
    make: MakeMind = Engine
    record: Callable[[str], None] | None = None
    listen: Callable[[str], None] | None = None
    rng: Random = field(init=False)
    clock: Clock = field(init=False)
    flows: Flows = field(init=False)
    wire: Wire = field(init=False)
    trackers: Trackers = field(init=False)
    hosts: dict[tuple[str, int], Host] = Factory(dict)
    origins: list[Host] = Factory(list)
    unfinished: dict[Host, None] = Factory(dict)  # honest hosts that still want something
    sent: Counter[str] = Factory(Counter)  # bytes of pieces put on the wire, by kind of sender, and "http"
    on_bytes: Callable[[int, bool], None] = field(default=lambda _size, _origin: None)
    _fetches: dict[tuple[Host, InfoHash, tuple[int, ...]], Fetch] = Factory(dict)
    _servers: dict[Host, Server] = Factory(dict)
    _do: dict[type[fx.Effect], Callable[[Host, Any], None]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.clock = Clock(self.network.latency_s)
        self.flows = Flows(self.clock)
        self.wire = Wire(self.clock, self.flows)
        names = tuple(f"tracker{number}:8351" for number in range(self.network.trackers))
        self.trackers = Trackers(Random(self.rng.random()), names)
        self._do = {
            fx.Send: self._send,
            fx.SendPiece: self._send_piece,
            fx.ReceivePiece: self._receive,
            fx.SkipPayload: self._skip,
            fx.Close: self._close,
            fx.WakeAt: self._wake_at,
            fx.Dial: self._dial,
            fx.Announce: self._announce,
            fx.FetchFromOrigin: self._fetch,
            fx.StopFetch: self._stop_fetch,
            fx.VerifyBlob: self._verify,
            fx.DropPieces: self._drop_pieces,
            fx.Finished: self._finished,
            fx.Failed: self._failed,
            fx.Forget: self._forget,
            fx.Ban: lambda host, effect: None,
            fx.PieceReady: lambda host, effect: None,
        }
        if self.record is not None:
            self._do = {kind: partial(self._recorded, do) for kind, do in self._do.items()}

    @property
    def fault_counts(self) -> Counter[str]:
        """Faults that came to pass, by kind."""
        return self.wire.counts

    # ---- building

    def add_rack(self, name: str, rate: float) -> Rack:
        """A rack with an uplink of `rate` bytes per second, each way."""
        return Rack(name, self.flows.line(f"{name} up", rate), self.flows.line(f"{name} down", rate))

    def add_host(
        self,
        name: str,
        *,
        origin: bool = False,
        fallback: bool = True,
        rate: float | None = None,
        rack: Rack | None = None,
    ) -> Host:
        """A new host; what will be wrong with it is drawn now."""
        number = len(self.hosts) + 1
        ip = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        zone = rack.name if rack else ""
        context = PeerContext(ip, _PORT, PeerID(self.rng.randbytes(20)), zone=zone, cluster=name, origin=origin)
        rate = rate or self.network.rate
        caps = self.config.conn.bandwidth
        host = self.hosts[ip, _PORT] = Host(
            context=context,
            engine=self._mind(context, fallback),
            clock=self.clock,
            execute=self._do,
            told=None if self.listen is None else self._listened,
            up=self.flows.line(f"{name} up", min(rate, caps.egress_bytes_s or rate)),
            down=self.flows.line(f"{name} down", min(rate, caps.ingress_bytes_s or rate)),
            rack=rack,
            hash_rate=self.network.hash_rate,
        )
        draw, faults = self.rng.random, self.faults
        if origin:
            self.origins.append(host)
            if draw() < faults.origin_death:
                self._some_day(self.kill, host)
            return host
        host.mute = draw() < faults.mute
        host.liar = draw() < faults.liar
        host.forger = draw() < faults.forger
        for kind in ("mute", "liar", "forger"):
            self.fault_counts[kind] += getattr(host, kind)
        if draw() < faults.host_death:
            self._some_day(self.kill, host)
        elif draw() < faults.blackout:
            self._some_day(self.darken, host)
        elif draw() < faults.restart:
            self._some_day(self.restart, host)
        return host

    def _mind(self, context: PeerContext, fallback: bool) -> Mind:
        agent = not context.origin
        rng = Random(self.rng.random())
        return self.make(context=context, config=self.config, rng=rng, dials=agent, fallback=fallback and agent)

    def _some_day(self, action: Callable[[Host], None], host: Host) -> None:
        self.clock.at(self.rng.random() * self.faults.window_s, action, host)

    def seed_blob(self, host: Host, meta: MetaInfo) -> None:
        """A host has a blob from the start."""
        host.blobs[meta.info_hash] = dict.fromkeys(Bitfield.full(meta.piece_count), True)
        host.wanted[meta.info_hash] = meta
        host.finished_at[meta.info_hash] = self.clock.now
        host.add(meta, wanted=False)

    def want(self, host: Host, metas: list[MetaInfo], after_s: float = 0.0, metainfo_s: float = 0.0) -> None:
        """Let a host arrive some time from now and download blobs, whose metainfo it has a little later."""
        host.arrived_at = self.clock.now + after_s
        for meta in metas:
            host.wanted[meta.info_hash] = meta
            if self.strong_sums is StrongSums.ALWAYS:
                host.strong.add(meta.info_hash)
            self.clock.at(after_s + metainfo_s, self._begin, host, meta)
        if host.honest:
            self.unfinished[host] = None

    def _begin(self, host: Host, meta: MetaInfo) -> None:
        if host.alive and meta.info_hash not in host.loaded:
            host.add(meta, wanted=True)

    # ---- faults of hosts

    def kill(self, host: Host) -> None:
        """The host falls silent: no packet of it arrives any more, and none is refused."""
        self.fault_counts["origin_death" if host.context.origin else "death"] += 1
        host.alive = False
        self.unfinished.pop(host, None)
        for end in list(host.ends.values()):
            end.abort()
            end.far.abort()

    def darken(self, host: Host) -> None:
        """The network of a host is away for a while; what was sent comes later."""
        self.fault_counts["blackout"] += 1
        host.dark = True
        for end in list(host.ends.values()):
            end.pause()
            end.far.pause()
        self.clock.at(self.faults.blackout_s, self._lighten, host)

    def _lighten(self, host: Host) -> None:
        host.dark = False
        for end in list(host.ends.values()):
            end.resume()
            end.far.resume()

    def restart(self, host: Host) -> None:
        """A process ends, and comes back with what was on its disk."""
        self.fault_counts["restart"] += 1
        host.alive = False
        for end in list(host.ends.values()):
            end.cut(Lost.RESET)
        self.clock.at(self.faults.restart_s, self._come_back, host)

    def _come_back(self, host: Host) -> None:
        host.alive = True
        host.engine = self._mind(host.context, fallback=False)
        host.abandoned.clear()
        host.writing.clear()
        host.tick += 1  # nobody wakes the new Engine for the old one
        host.loaded.clear()
        host.hashes.clear()
        if self.clock.now >= host.arrived_at:
            for meta in host.wanted.values():
                host.add(meta, wanted=meta.info_hash not in host.finished_at)

    # ---- effects

    def _recorded(self, do: Callable[[Host, Any], None], host: Host, effect: fx.Effect) -> None:
        assert self.record is not None
        self.record(f"{self.clock.now:10.6f} {host.name:>8} {repr(effect)[:200]}")
        do(host, effect)

    def _listened(self, host: Host, event: Event) -> None:
        assert self.listen is not None
        self.listen(f"{self.clock.now:10.6f} {host.name:>8} <- {repr(event)[:200]}")

    def _send(self, host: Host, effect: fx.Send) -> None:
        end = host.ends.get(effect.conn)
        if end is None:  # the other side has closed it
            return
        host.messages += 1
        message = effect.message
        far = end.far
        if type(message) is Handshake:
            end.chunks = CHUNKS in message.features
            end.send(ev.HandshakeReceived(far.conn, message))
        elif type(message) is PieceRequest and far.host.mute:  # type: ignore[attr-defined]  # every endpoint is a Host
            self.fault_counts["unanswered"] += 1
        else:
            end.send(ev.MessageReceived(far.conn, message))  # type: ignore[arg-type]  # every other message is one

    def _send_piece(self, host: Host, effect: fx.SendPiece) -> None:
        end = host.ends.get(effect.conn)
        if end is None:
            return
        parcel = host.pack(effect.torrent, effect.index, self.faults, self.rng)
        self.fault_counts["lie"] += not parcel.good
        self.fault_counts["forged"] += parcel.forged
        origin = host.context.origin
        self.sent["origin" if origin else "agent"] += parcel.size
        self.on_bytes(parcel.size, origin)
        end.send_piece(parcel)

    def _receive(self, host: Host, effect: fx.ReceivePiece) -> None:
        end = host.ends.get(effect.conn)
        if end is not None:
            host.write(effect.torrent, effect.index)
            end.grant(True)

    def _skip(self, host: Host, effect: fx.SkipPayload) -> None:
        if end := host.ends.get(effect.conn):
            end.grant(False)

    def _close(self, host: Host, effect: fx.Close) -> None:
        if end := host.ends.get(effect.conn):
            end.close()
        else:
            host.abandoned.add(effect.conn)

    def _wake_at(self, host: Host, effect: fx.WakeAt) -> None:
        host.tick += 1
        self.clock.at(max(0.0, effect.when - self.clock.now), self._tick, host, host.tick)

    def _tick(self, host: Host, number: int) -> None:
        if number == host.tick:  # a later wish replaces an earlier one
            host.tell(ev.Tick(int(self.flows.passed(host.up))))

    # ---- dials

    def _dial(self, host: Host, effect: fx.Dial) -> None:
        network = self.network
        self.clock.at(2 * network.latency_s + network.accept_s, self._answer, host, host.engine, effect)

    def _answer(self, host: Host, engine: Mind, effect: fx.Dial) -> None:
        conn = effect.conn
        other = self.hosts.get((effect.peer.ip, effect.peer.port))
        if host.engine is not engine:
            return
        if conn in host.abandoned:
            host.abandoned.remove(conn)
        elif other is None or not other.alive or other.blocked or other.dark or host.dark:
            self._later(host, effect.timeout_s, ev.PeerLost(conn, Lost.TIMEOUT))
        elif host.alive:
            end = connect(self.wire, host, conn, other, other.engine.new_conn())
            host.connections += 1
            other.connections += 1
            self.clock.at(self.config.conn.handshake_timeout_s, end.far.hang_up_if_silent)
            host.tell(ev.DialSucceeded(conn))

    # ---- trackers

    def _announce(self, host: Host, effect: fx.Announce) -> None:
        down, up = self.faults.tracker_down_s
        torrent = effect.torrent
        if host.dark or down <= self.clock.now < up or self.rng.random() < self.faults.announce_loss:
            self.fault_counts["tracker_outage" if down <= self.clock.now < up else "announce"] += 1
            self._later(host, 0.5, ev.AnnounceFailed(torrent))
            return
        digest = host.loaded[torrent].digest
        peer = host.context.as_peer(complete=effect.complete)
        origins = [origin.context.as_peer(complete=True) for origin in self.origins if torrent in origin.blobs]
        peers: tuple[PeerInfo, ...] = self.trackers.announce(digest, torrent, peer, origins)
        answer = ev.PeersOffered(torrent, peers, self.network.announce_interval_s)
        self._later(host, self.tracker_delay(), answer)

    def tracker_delay(self) -> float:
        """How long a tracker takes to answer, in seconds."""
        return self.network.tracker_delay_s * (0.5 + self.rng.random())

    def _later(self, host: Host, delay_s: float, event: Event) -> None:
        self.clock.at(delay_s, self._tell, host, host.engine, event)

    def _tell(self, host: Host, engine: Mind, event: Event) -> None:
        if host.engine is engine:  # not an answer to a process that has ended
            host.tell(event)

    # ---- HTTP

    def _fetch(self, host: Host, effect: fx.FetchFromOrigin) -> None:
        sources = [origin for origin in self.origins if origin.alive and effect.torrent in origin.blobs]
        if self.faults.http_down or not sources or host.dark:
            problem = FetchProblem.UNAVAILABLE
            self.fault_counts["fetch"] += 1
            self._later(host, _HTTP_REFUSAL_S, ev.FetchEnded(effect.torrent, effect.pieces, problem))
            return
        for piece in effect.pieces:
            host.write(effect.torrent, piece)
        key = host, effect.torrent, effect.pieces
        over = partial(self._fetches.pop, key)
        servers = [self._server(origin) for origin in sources]
        self.rng.shuffle(servers)
        self._fetches[key] = fetch = Fetch(self.flows, host, host.engine, servers, effect, self._came, over)
        self.clock.at(4 * self.network.latency_s, fetch.refused)

    def _server(self, origin: Host) -> Server:
        server = self._servers.get(origin)
        if server is None:
            network = self.network
            server = self._servers[origin] = Server(origin, self.clock, network.fetches, network.fetch_wait_s)
        return server

    def _came(self, host: Host, source: Host, size: int) -> None:
        host.received["http"] += size
        host.across += size if host.rack is not source.rack else 0
        self.sent["http"] += size
        self.on_bytes(size, True)

    def _stop_fetch(self, host: Host, effect: fx.StopFetch) -> None:
        if fetch := self._fetches.get((host, effect.torrent, effect.pieces)):
            self.clock.soon(fetch.stop)  # as in an agent, where the end of a fetch is told in a turn of its own

    # ---- ends

    def _verify(self, host: Host, effect: fx.VerifyBlob) -> None:
        torrent = effect.torrent
        wrong = host.wrong(torrent)
        took_s = _VERIFY_S + host.hash_left_s(torrent)
        if not wrong:
            self._later(host, took_s, ev.BlobVerified(torrent))
            return
        self.fault_counts["corrupt_blob"] += 1
        if self.strong_sums is StrongSums.LATE and not host.dark and any(origin.alive for origin in self.origins):
            host.strong.add(torrent)
        known = torrent in host.strong
        self._later(host, took_s + self.tracker_delay(), ev.BlobCorrupt(torrent, wrong if known else None))

    def _drop_pieces(self, host: Host, effect: fx.DropPieces) -> None:
        for piece in effect.pieces:
            host.blobs[effect.torrent].pop(piece, None)

    def _finished(self, host: Host, effect: fx.Finished) -> None:
        torrent = effect.torrent
        pieces = host.blobs[torrent]
        assert len(pieces) == host.loaded[torrent].piece_count and all(pieces.values()), "wrong bytes"
        host.finished_at.setdefault(torrent, self.clock.now)
        if host.done:
            self.unfinished.pop(host, None)

    def _forget(self, host: Host, effect: fx.Forget) -> None:
        host.loaded.pop(effect.torrent, None)

    def _failed(self, host: Host, effect: fx.Failed) -> None:
        host.failed[effect.torrent] = effect.reason
        host.loaded.pop(effect.torrent, None)
