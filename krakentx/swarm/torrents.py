"""The life of a torrent: from the first request for it to the day when nobody asks any more; and its sense of time."""

from __future__ import annotations

from math import inf

from attrs import define

from krakentx.core.bitfield import Bitfield
from krakentx.swarm import events as ev
from krakentx.swarm.announce import AnnounceTimer
from krakentx.swarm.connections import Connections
from krakentx.swarm.downloads import Downloads
from krakentx.swarm.effects import Announce, Close, DropPieces, Failed, Finished, Forget
from krakentx.swarm.events import Lost
from krakentx.swarm.fallback import Fallback
from krakentx.swarm.locality import RackShare
from krakentx.swarm.picker import Rarity
from krakentx.swarm.slots import Candidates
from krakentx.swarm.state import Conn, Desk, Link, Phase, Torrent
from krakentx.swarm.uploads import Uploads

_LOOK_S = 0.5  # how often a download looks at itself
_STALLED_S = 1.0  # a download that got no byte for so long wants other peers


@define
class Torrents:
    """Adds, completes, restarts and forgets torrents; wakes them and their connections."""

    desk: Desk
    connections: Connections
    downloads: Downloads
    uploads: Uploads

    def add(self, event: ev.TorrentAdded, now: float) -> None:
        """A torrent comes in, or comes to be wanted."""
        desk, info_hash = self.desk, event.meta.info_hash
        torrent = desk.torrents.get(info_hash)
        if torrent is not None and torrent.phase is Phase.COMPLETE and not event.have.complete:
            self._forget(torrent, "its file has gone")  # evicted from the cache: begin anew
            torrent = None
        if torrent is None:
            full = (1 << event.meta.piece_count) - 1
            missing = full & ~event.have.mask
            torrent = desk.torrents[info_hash] = Torrent(
                meta=event.meta,
                info_hash=info_hash,
                namespace=event.namespace,
                full=full,
                missing=missing,
                phase=Phase.HOLDING if missing or event.wanted else Phase.COMPLETE,
                announcer=AnnounceTimer(now, desk.rng),
                fallback=Fallback(now),
                rarity=Rarity(event.meta.piece_count),
                piece_at=now,
                wanted_at=now,
                gain_at=now,
                near_at=now,
                rack=RackShare(event.meta.piece_count, desk.context.peer_id),
                used_at=now,
            )
        elif event.wanted and torrent.phase is Phase.COMPLETE:
            desk.emit(Finished(info_hash))
        if event.wanted and torrent.phase is Phase.HOLDING:
            torrent.phase = Phase.LEECHING
            torrent.piece_at = torrent.gain_at = torrent.near_at = torrent.wanted_at = now
            if not torrent.missing:
                self.downloads.verify(torrent)
            desk.free(torrent)
        self.look(torrent, now)

    def verified(self, torrent: Torrent, now: float) -> None:
        """The whole hashes to its name."""
        torrent.phase = Phase.COMPLETE
        torrent.used_at = now
        torrent.givers.clear()
        torrent.readers.clear()
        torrent.candidates = Candidates()  # a seeder dials nobody
        self.desk.emit(Finished(torrent.info_hash))
        self.connections.completed(torrent)
        torrent.announcer.at_once(now)
        self.look(torrent, now)

    def corrupt(self, torrent: Torrent, bad: Bitfield | None, now: float) -> None:
        """Each piece fits its CRC-32, the whole does not fit: somebody forged pieces. Get those again.

        With strong sums it is known which, and any other peer may give them. Without, a lone agent that gave is the
        liar; among several nobody knows, so each is under a suspicion that grows with every time, and what did not come
        from an origin comes from one now. Origins are named by the tracker and are believed, as the metainfo is; until
        the second time.
        """
        desk = self.desk
        torrent.restarts += 1
        torrent.careful = not bad
        suspects = bad.mask if bad else torrent.full & ~torrent.trusted
        if not suspects or (torrent.careful and torrent.restarts > 1):
            suspects = torrent.full
        desk.emit(DropPieces(torrent.info_hash, Bitfield(torrent.meta.piece_count, suspects)))
        if torrent.restarts > desk.config.max_restarts:
            self.end(torrent, "the blob does not hash to its name")
            return
        self.connections.suspect(torrent, suspects, now)
        torrent.missing = suspects
        torrent.trusted &= ~suspects
        torrent.phase = Phase.LEECHING
        torrent.piece_at = torrent.gain_at = torrent.near_at = now
        desk.free(torrent)
        self.look(torrent, now)

    def end(self, torrent: Torrent, reason: str) -> None:
        """Forget a torrent; if it was being downloaded, that has failed."""
        failed = torrent.phase in (Phase.LEECHING, Phase.VERIFYING)
        self._forget(torrent, reason)
        if failed:
            self.desk.emit(Failed(torrent.info_hash, reason))

    def _forget(self, torrent: Torrent, reason: str) -> None:
        self.connections.close_all(torrent, reason)
        self.desk.alarms.cancel(torrent)
        del self.desk.torrents[torrent.info_hash]

    # ---- time

    def check(self, conn: Conn, now: float) -> None:
        """A connection's time has come."""
        config, connections = self.desk.config, self.connections
        if conn.link is not Link.ACTIVE:
            connections.lost(conn, Lost.TIMEOUT, now)
            self.desk.emit(Close(conn.id, "no answer in time"))
            return
        when = self.downloads.check(conn, now)
        if conn.id not in self.desk.conns:
            return
        if not config.disable_preemption:
            stuck = self.uploads.stuck_since(conn.id)
            patience = config.conn_tti_s + config.piece_timeout_s(conn.torrent.meta.piece_length)
            at_rest = conn.receiving is None and not self.uploads.busy(conn.id)
            if stuck is not None and now - stuck > patience:
                connections.give_up(conn, "does not read", now)
                return
            if at_rest and now - conn.heard_at >= config.conn_tti_s:
                connections.close(conn, "idle")
                return
            if at_rest and not conn.asked and now - conn.since >= config.conn_ttl_s:
                connections.close(conn, "old")
                return
            when = min(when, now + config.conn_tti_s)
        self.desk.alarms.no_later(conn, max(when, now + 1e-3))

    def look(self, torrent: Torrent, now: float) -> None:
        """A torrent looks at itself, and says when to look again."""
        desk, config = self.desk, self.desk.config
        leeching = torrent.phase is Phase.LEECHING
        complete = torrent.phase is Phase.COMPLETE
        wanted = leeching or torrent.phase is Phase.VERIFYING
        when = torrent.piece_at + config.leecher_tti_s if wanted else torrent.used_at + config.seeder_tti_s
        if config.disable_preemption:
            when = inf
        elif now >= when:
            if wanted:
                self.end(torrent, "torrent timed out")
            else:
                self._forget(torrent, "nobody asks for it")
                desk.emit(Forget(torrent.info_hash))
            return
        if leeching:
            when = min(when, now + _LOOK_S)
            self._watch(torrent, now)
            if now < (hope := torrent.gain_at + config.fallback.after_s):
                when = min(when, hope)
        if desk.dials and (leeching or complete):
            if torrent.announcer.take(now, config.announce):
                desk.emit(Announce(torrent.info_hash, complete))
                if complete:
                    self._announce_others(now)
            when = min(when, torrent.announcer.due(config.announce))
        if when < inf:
            desk.alarms.no_later(torrent, max(when, now + 1e-3))

    def _announce_others(self, now: float) -> None:
        """What is soon due goes with one that goes anyway: a tracker of ours takes all in one request."""
        config = self.desk.config.announce
        for other in self.desk.torrents.values():
            if other.phase is Phase.COMPLETE and other.announcer.take(now, config, config.seeder_interval_s / 2):
                self.desk.emit(Announce(other.info_hash, True))

    def _watch(self, torrent: Torrent, now: float) -> None:
        """A download that is short of peers, or gets nothing from them, does something about it."""
        config, connections = self.desk.config, self.connections
        stalled = now - torrent.gain_at > _STALLED_S
        active = sum(conn.link is Link.ACTIVE for conn in torrent.conns.values())
        if stalled or active < config.connstate.dialled_limit:
            torrent.announcer.hurry(config.announce)
        if stalled:
            connections.rotate(torrent, now)
        few = connections.lacking(torrent) if now >= torrent.wanted_at + _LOOK_S else 0
        connections.fill(torrent, now, few)
        if stalled or torrent.missing.bit_count() <= config.dispatch.endgame_threshold:
            self.downloads.refill_all(torrent, now)
        self.downloads.dare(torrent, now)
        self.downloads.fetch(torrent, now)
