"""The trackers of a world: the hand-out of the real one, and the ring by which agents choose theirs."""

from __future__ import annotations

from collections import Counter
from random import Random

from attrs import Factory, define

from krakentx.core.digest import Digest
from krakentx.core.hashring import ranked
from krakentx.core.peer import InfoHash, PeerID, PeerInfo
from krakentx.swarm.handout import hand_out

_LIMIT = 50


@define
class Trackers:
    """Remembers who announced what, and answers.

    Args:
        names: each blob belongs to one of them.
    """

    rng: Random
    names: tuple[str, ...]
    announces: Counter[str] = Factory(Counter)  # by tracker
    _swarms: dict[InfoHash, dict[PeerID, PeerInfo]] = Factory(dict)
    _owners: dict[Digest, str] = Factory(dict)

    def announce(
        self, digest: Digest, torrent: InfoHash, peer: PeerInfo, origins: list[PeerInfo]
    ) -> tuple[PeerInfo, ...]:
        """Record a peer and choose others for it; nobody for one that has everything."""
        owner = self._owners.get(digest)
        if owner is None:
            owner = self._owners[digest] = ranked(digest, self.names)[0]
        self.announces[owner] += 1
        known = self._swarms.setdefault(torrent, {})
        known[peer.peer_id] = peer
        if peer.complete:
            return ()
        rng, zone = self.rng, peer.zone
        return hand_out(peer.peer_id, known.values(), origins, limit=_LIMIT, policy="completeness", rng=rng, zone=zone)
