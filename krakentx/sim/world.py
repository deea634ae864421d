"""A small world of hosts: real Engines over a modelled network, one virtual clock, one seed.

Every host runs the Engine of the agent. Messages take the latency of the network and keep their order per connection;
a piece takes its size over the share of the line that its two hosts had when it began (shares are not recomputed while
it runs). A seed fixes a run to the last event: `World.log` holds what happened when `trace` is on.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from itertools import count
from random import Random

from attrs import Factory, define, field, frozen

from krakentx.core.bitfield import Bitfield
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import InfoHash, PeerContext, PeerID, PeerInfo
from krakentx.sim.network import Pipe
from krakentx.swarm import effects as fx
from krakentx.swarm import events as ev
from krakentx.swarm.config import SwarmConfig
from krakentx.swarm.engine import Engine
from krakentx.swarm.events import ConnID, Event, FetchProblem, Lost
from krakentx.swarm.handout import hand_out


@frozen
class Faults:
    """What goes wrong, as probabilities (per host, per piece, per message) and times in seconds."""

    host_death: float = 0.0  # a host falls silent at some moment of `death_window_s`
    death_window_s: float = 1.0
    stall: float = 0.0  # a piece stops half-way and the connection says no more of it
    reset: float = 0.0  # a connection is reset while a piece is under way
    mute: float = 0.0  # a host takes requests and never answers
    liar: float = 0.0  # a host sends wrong bytes in `lie` of its pieces
    lie: float = 0.3
    forger: float = 0.0  # a host sends wrong bytes that fit the piece sum, in `lie` of its pieces
    tracker_down_s: tuple[float, float] = (0.0, 0.0)
    announce_loss: float = 0.0
    http_down: bool = False


@frozen
class Network:
    """Rates in bytes per second, times in seconds."""

    rate: float = 100e6
    latency_s: float = 0.0005
    tracker_delay_s: float = 0.01
    http_rate: float = 100e6
    announce_interval_s: float = 3.0


@define(eq=False)
class Host:
    """One process: its Engine and what an executor would keep for it."""

    context: PeerContext
    engine: Engine
    world: World
    blobs: dict[InfoHash, dict[int, bool]] = Factory(dict)  # piece -> its bytes are right
    pipes: dict[ConnID, Pipe] = Factory(dict)
    finished_at: dict[InfoHash, float] = Factory(dict)
    failed: dict[InfoHash, str] = Factory(dict)
    abandoned: set[ConnID] = Factory(set)  # dials that were closed before they were up
    fetching: dict[InfoHash, int] = Factory(dict)
    writing: set[tuple[InfoHash, int]] = Factory(set)  # pieces under a writer: at most one each
    uploads: int = 0
    downloads: int = 0
    alive: bool = True
    mute: bool = False
    liar: bool = False
    forger: bool = False
    tick: int = 0
    received: Counter[str] = Factory(Counter)  # bytes by source
    messages: int = 0

    @property
    def honest(self) -> bool:
        """Neither dead, nor lying, nor mute: a host that must finish."""
        return self.alive and not (self.liar or self.forger or self.mute)

    def info(self, *, complete: bool = False) -> PeerInfo:
        """As the tracker sees it."""
        return self.context.as_peer(complete=complete)

    def tell(self, event: Event) -> None:
        """Let the Engine handle an event, and do what it wants."""
        if self.alive:
            self.world.events += 1
            for effect in self.engine.handle(event, self.world.now):
                self.world.do(self, effect)


@define
class World:
    """Hosts, their tracker, and time."""

    seed: int
    network: Network = Factory(Network)
    faults: Faults = Factory(Faults)
    config: SwarmConfig = Factory(SwarmConfig)
    trace: bool = False
    now: float = 0.0
    rng: Random = field(init=False)
    hosts: dict[tuple[str, int], Host] = Factory(dict)
    origins: list[Host] = Factory(list)
    swarm: dict[InfoHash, dict[PeerID, PeerInfo]] = Factory(dict)
    metas: dict[InfoHash, MetaInfo] = Factory(dict)
    sent: Counter[str] = Factory(Counter)  # piece bytes put on the wire, by kind of sender
    events: int = 0
    log: list[str] = Factory(list)
    fault_counts: Counter[str] = Factory(Counter)
    _heap: list[tuple[float, int, Callable[[], None]]] = Factory(list)
    _order: count[int] = Factory(count)

    def __attrs_post_init__(self) -> None:
        self.rng = Random(self.seed)

    # ---- building

    def add_host(self, name: str, *, origin: bool = False, fallback: bool = True, faulty: bool = True) -> Host:
        """A new host; whether it dies, lies or is mute is drawn now, for an agent that is allowed to be `faulty`."""
        number = len(self.hosts) + 1
        ip = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        context = PeerContext(ip, 16001, PeerID(self.rng.randbytes(20)), cluster=name, origin=origin)
        engine = Engine(
            context=context,
            config=self.config,
            rng=Random(self.rng.random()),
            dials=not origin,
            fallback=fallback and not origin,
        )
        host = self.hosts[ip, 16001] = Host(context, engine, self)
        if origin:
            self.origins.append(host)
        elif faulty:
            draw, faults = self.rng.random, self.faults
            host.mute = draw() < faults.mute
            host.liar = draw() < faults.liar
            host.forger = draw() < faults.forger
            if draw() < faults.host_death:
                self.at(self.rng.random() * faults.death_window_s, lambda: self.kill(host))
            for kind in ("mute", "liar", "forger"):
                self.fault_counts[kind] += getattr(host, kind)
        return host

    def add_blob(self, host: Host, meta: MetaInfo, *, have: Bitfield | None = None, wanted: bool = True) -> None:
        """Let a host download a blob, or seed it."""
        have = have or Bitfield(meta.piece_count)
        self.metas[meta.info_hash] = meta
        host.blobs[meta.info_hash] = dict.fromkeys(have, True)
        host.tell(ev.TorrentAdded(meta, have, "namespace", wanted))

    def kill(self, host: Host) -> None:
        """The host falls silent: no packet of it arrives any more, and none is refused."""
        self.fault_counts["death"] += 1
        host.alive = False
        for pipe in host.pipes.values():
            pipe.dead = True

    # ---- time

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._heap, (self.now + delay_s, next(self._order), action))

    def run(self, until_s: float, done: Callable[[], bool]) -> bool:
        """Let time pass until `done` or the time is up. Returns whether it is done."""
        heap = self._heap
        while heap and heap[0][0] <= until_s:
            self.now, _, action = heapq.heappop(heap)
            action()
            if done():
                return True
        return done()

    def note(self, host: Host, text: str) -> None:
        """One line of the log."""
        if self.trace:
            self.log.append(f"{self.now:10.4f} {host.context.cluster:>8} {text}")

    # ---- effects

    def do(self, host: Host, effect: fx.Effect) -> None:
        """Execute one effect for a host. Decides nothing."""
        if self.trace:
            self.note(host, repr(effect)[:200])
        if isinstance(effect, fx.Send | fx.SendPiece | fx.ReceivePiece | fx.SkipPayload | fx.Close):
            self._on_pipe(host, effect)
        elif isinstance(effect, fx.WakeAt):
            host.tick += 1
            self.at(max(0.0, effect.when - self.now), self._ticker(host, host.tick))
        elif isinstance(effect, fx.Dial):
            self._dial(host, effect)
        elif isinstance(effect, fx.Announce):
            self._announce(host, effect)
        elif isinstance(effect, fx.FetchFromOrigin):
            self._fetch(host, effect)
        elif isinstance(effect, fx.VerifyBlob):
            self._verify(host, effect.torrent)
        elif isinstance(effect, fx.Finished):
            pieces = host.blobs[effect.torrent]
            assert len(pieces) == self.metas[effect.torrent].piece_count and all(pieces.values()), "wrong bytes"
            host.finished_at[effect.torrent] = self.now
        elif isinstance(effect, fx.Failed):
            host.failed[effect.torrent] = effect.reason

    def _on_pipe(
        self, host: Host, effect: fx.Send | fx.SendPiece | fx.ReceivePiece | fx.SkipPayload | fx.Close
    ) -> None:
        pipe = host.pipes.get(effect.conn)
        if pipe is None:  # the other side has closed it, or it was never up
            if isinstance(effect, fx.Close):
                host.abandoned.add(effect.conn)
        elif isinstance(effect, fx.Send):
            host.messages += 1
            pipe.send(host, effect.message)
        elif isinstance(effect, fx.SendPiece):
            pipe.send_piece(host, self.metas[effect.torrent], effect.index)
        elif isinstance(effect, fx.ReceivePiece):
            key = (effect.torrent, effect.index)
            assert key not in host.writing, f"two writers of piece {effect.index}"
            host.writing.add(key)
            pipe.grant(host, key)
        elif isinstance(effect, fx.SkipPayload):
            pipe.grant(host, None)
        else:
            pipe.close(host)

    def _ticker(self, host: Host, number: int) -> Callable[[], None]:
        def fire() -> None:
            if number == host.tick:  # a later wish replaces an earlier one
                host.tell(ev.Tick())

        return fire

    def _dial(self, host: Host, effect: fx.Dial) -> None:
        other = self.hosts.get((effect.peer.ip, effect.peer.port))
        if other is None or not other.alive:
            self.at(effect.timeout_s, lambda: host.tell(ev.PeerLost(effect.conn, Lost.TIMEOUT)))
            return

        def arrive() -> None:
            if effect.conn in host.abandoned:
                host.abandoned.remove(effect.conn)
            elif other.alive:
                Pipe(self, host, effect.conn, other, other.engine.new_conn(), effect.torrent)
                self.at(self.network.latency_s, lambda: host.tell(ev.DialSucceeded(effect.conn)))
            else:
                self.at(effect.timeout_s, lambda: host.tell(ev.PeerLost(effect.conn, Lost.TIMEOUT)))

        self.at(self.network.latency_s, arrive)

    def _announce(self, host: Host, effect: fx.Announce) -> None:
        down, up = self.faults.tracker_down_s
        torrent = effect.torrent
        if down <= self.now < up or self.rng.random() < self.faults.announce_loss:
            self.fault_counts["announce"] += 1
            self.at(0.5, lambda: host.tell(ev.AnnounceFailed(torrent)))
            return
        known = self.swarm.setdefault(torrent, {})
        known[host.context.peer_id] = host.info(complete=effect.complete)
        peers: tuple[PeerInfo, ...] = ()
        if not effect.complete:
            origins = [origin.info(complete=True) for origin in self.origins if torrent in origin.blobs]
            key = host.context.peer_id
            peers = hand_out(key, known.values(), origins, limit=50, policy="completeness", rng=self.rng)
        interval = self.network.announce_interval_s
        delay = self.network.tracker_delay_s * (0.5 + self.rng.random())
        self.at(delay, lambda: host.tell(ev.PeersOffered(torrent, peers, interval)))

    def _fetch(self, host: Host, effect: fx.FetchFromOrigin) -> None:
        if self.faults.http_down:
            problem = FetchProblem.UNAVAILABLE
            self.at(0.1, lambda: host.tell(ev.FetchEnded(effect.torrent, effect.pieces, problem)))
            return
        meta = self.metas[effect.torrent]
        for piece in effect.pieces:
            assert (effect.torrent, piece) not in host.writing, f"two writers of piece {piece}"
            host.writing.add((effect.torrent, piece))
        host.fetching[effect.torrent] = host.fetching.get(effect.torrent, 0) + 1
        rest = list(effect.pieces)

        def step() -> None:
            piece = rest.pop(0)
            host.writing.discard((effect.torrent, piece))
            host.blobs[effect.torrent][piece] = True
            host.received["http"] += meta.piece_size(piece)
            host.tell(ev.PieceFetched(effect.torrent, piece))
            if rest:
                self.at(share(rest[0]), step)
            else:
                host.fetching[effect.torrent] -= 1
                host.tell(ev.FetchEnded(effect.torrent, effect.pieces))

        def share(piece: int) -> float:
            return meta.piece_size(piece) * host.fetching[effect.torrent] / self.network.http_rate

        self.at(self.network.latency_s * 4 + share(rest[0]), step)

    def _verify(self, host: Host, torrent: InfoHash) -> None:
        good = all(host.blobs[torrent].values())
        if not good:
            self.fault_counts["corrupt_blob"] += 1
            host.blobs[torrent].clear()
        answer: Event = ev.BlobVerified(torrent) if good else ev.BlobCorrupt(torrent)
        self.at(0.01, lambda: host.tell(answer))
