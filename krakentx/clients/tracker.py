"""Client of the tracker: announces, and metainfo."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from krakentx.clients.batches import Batches
from krakentx.clients.hosts import HostPool, first_answer
from krakentx.clients.polling import poll
from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput, NotFound, Pending, Unavailable
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import AnnounceAnswer, InfoHash, PeerContext, PeerID, PeerInfo
from krakentx.web.client import HttpClient

MAX_LOST = 50
"""Most dead peers that one announce tells of."""

_LEECHER_AGAIN_S = 60.0
_MAX_NOTICE = 500
_NS = 1_000_000_000
_MAX_INTERVAL_NS = 86_400 * _NS
_MAX_ANSWER = 1 << 20
MAX_METAINFO = 9 << 20
"""Bytes; the JSON of `MAX_PIECES` has 8.1 million with strong sums. Reading more would only hold the loop up."""
_MAX_LOST_TORRENTS = 1000


@frozen
class TrackerTimeouts:
    """Deadlines in seconds."""

    announce_s: float = 5.0
    metainfo_s: float = 10.0
    pending_s: float = 900.0


def encode_announce(
    context: PeerContext, digest: Digest, info_hash: InfoHash, *, complete: bool, extra: dict[str, Any]
) -> bytes:
    """The body of an announce; keys of `extra` are ours and ignored by the reference."""
    body = {
        "name": digest.hex,
        "digest": str(digest),
        "info_hash": info_hash.to_json(),
        "peer": context.as_peer(complete=complete).to_json(),
        **extra,
    }
    return json.dumps(body, separators=(",", ":")).encode()


def decode_answer(data: bytes) -> AnnounceAnswer:
    """Read the tracker's answer. A peer that cannot be read is left out: one bad entry must not hide the others.

    Raises:
        InvalidInput: not JSON, or not an answer.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("announce", f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInput("announce", "expected an object")
    interval = value.get("interval")
    entries = value.get("peers") or []
    if type(interval) is not int or not isinstance(entries, list):
        raise InvalidInput("announce", "expected `peers` and `interval`")
    peers = []
    for entry in entries:
        try:
            peers.append(PeerInfo.from_json(entry))
        except InvalidInput:
            continue
    notice = value.get("notice")
    interval_s = min(max(0, interval), _MAX_INTERVAL_NS) / _NS
    return AnnounceAnswer(tuple(peers), interval_s, notice[:_MAX_NOTICE] if isinstance(notice, str) else "")


@define
class TrackerClient:
    """The trackers of a ring, as a peer sees them: an `IAnnouncer` and an `IMetaInfoSource`.

    Args:
        context: who announces.
        seeder_again_s: time to the next announce of a complete torrent, and the longest one for any other.
        trackers: asked in the order of the ring; the next one when one is silent or in trouble.
    """

    log = Logger()

    http: HttpClient
    trackers: HostPool
    context: PeerContext
    clock: IReactorTime
    timeouts: TrackerTimeouts = field(factory=TrackerTimeouts)
    seeder_again_s: float = 300.0
    _interval_s: float = field(default=_LEECHER_AGAIN_S, init=False)  # as the trackers said last
    _lost: dict[InfoHash, dict[PeerID, None]] = field(factory=dict, init=False)
    _notice: str = field(default="", init=False)  # told in the log already
    _batches: Batches = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._batches = Batches(
            self.http, self.clock, self.context, self.seeder_again_s, self.timeouts.announce_s, decode_answer
        )

    def report_lost(self, info_hash: InfoHash, peer: PeerID) -> None:
        """Tell the tracker with the next announce that this peer could not be reached."""
        lost = self._lost.setdefault(info_hash, {})
        if len(self._lost) > _MAX_LOST_TORRENTS:  # of torrents that failed, and are announced no more
            del self._lost[next(iter(self._lost))]
        if len(lost) < MAX_LOST:
            lost[peer] = None

    async def announce(self, digest: Digest, info_hash: InfoHash, *, complete: bool) -> AnnounceAnswer:
        """Tell of ourselves and ask for peers.

        Raises:
            Unavailable: no tracker answered within its deadline.
        """
        lost = self._lost.pop(info_hash, {})
        # The tracker forgets a peer that is silent for twice as long: leave room for a lost announce or two.
        again_s = self.seeder_again_s if complete else min(_LEECHER_AGAIN_S, 3 * self._interval_s)
        extra: dict[str, Any] = {"again": int(again_s * _NS)}
        if lost:
            extra["failed_peers"] = [peer.to_json() for peer in lost]
        answer = await self._announce(digest, info_hash, complete=complete, extra=extra)
        self._interval_s = answer.interval_s or _LEECHER_AGAIN_S
        if answer.notice and answer.notice != self._notice:
            self._notice = answer.notice
            self.log.warn("the tracker says: {notice}", notice=answer.notice)
        return answer

    async def leave(self, digest: Digest, info_hash: InfoHash) -> None:
        """Tell the tracker that we no longer give this blob.

        Raises:
            Unavailable: no tracker answered within its deadline.
        """
        self._lost.pop(info_hash, None)
        await self._announce(digest, info_hash, complete=True, extra={"stopped": True})

    async def _announce(
        self, digest: Digest, info_hash: InfoHash, *, complete: bool, extra: dict[str, Any]
    ) -> AnnounceAnswer:
        body = encode_announce(self.context, digest, info_hash, complete=complete, extra=extra)

        async def ask(host: str) -> AnnounceAnswer:
            if complete and extra.keys() == {"again"}:
                try:
                    together = await self._batches.tell(host, digest, info_hash)
                except InvalidInput as error:
                    raise Unavailable(host, error.message) from error
                if together is not None:
                    return together
            response = await self.http.request(
                "POST",
                f"http://{host}/announce/{info_hash}",
                body=body,
                timeout_s=self.timeouts.announce_s,
                max_body=_MAX_ANSWER,
            )
            try:
                return decode_answer(response.body)
            except InvalidInput as error:
                raise Unavailable(host, error.message) from error

        return await first_answer("tracker", await self.trackers.owners(digest), ask, self.trackers.health)

    async def metainfo(self, namespace: str, digest: Digest, *, strong: bool = False) -> MetaInfo:
        """How the blob is cut into pieces.

        While an origin fetches the blob from its backend this waits, asking again.

        Args:
            strong: have an origin make strong sums now if the tracker and it have none of this blob.

        Raises:
            NotFound: no backend has the blob. Unavailable: no tracker, or no origin behind it, could tell.
        """
        path = f"/namespace/{quote(namespace, safe='')}/blobs/{digest}/metainfo"
        path += "?strong_sums=true" if strong else ""

        async def once(host: str) -> MetaInfo:
            response = await self.http.request(
                "GET",
                f"http://{host}{path}",
                timeout_s=self.timeouts.metainfo_s,
                ok=(200, 202, 404),
                max_body=MAX_METAINFO,
            )
            return read_metainfo(host, digest, response.status, response.body)

        async def ask(host: str) -> MetaInfo:
            return await poll(lambda: once(host), clock=self.clock, host=host, limit_s=self.timeouts.pending_s)

        return await first_answer("tracker", await self.trackers.owners(digest), ask, self.trackers.health)

    async def readiness(self, digest: Digest) -> None:
        """Ask the first tracker of the ring whether it is ready.

        Raises:
            Unavailable: it is not.
        """
        host = (await self.trackers.owners(digest))[0]
        await self.http.request("GET", f"http://{host}/readiness", timeout_s=self.timeouts.announce_s)


def read_metainfo(host: str, digest: Digest, status: int, body: bytes) -> MetaInfo:
    """Read the answer to a question for metainfo, of a tracker or of an origin.

    Raises:
        NotFound, Pending: as the status says. Unavailable: the body cannot be read, or is of another blob.
    """
    if status == 202:
        raise Pending(f"{host} is fetching {digest}")
    if status == 404:
        raise NotFound("blob", digest)
    try:
        meta = MetaInfo.from_json(body)
    except InvalidInput as error:
        raise Unavailable(host, error.message) from error
    if meta.digest != digest:
        raise Unavailable(host, f"answered with the metainfo of {meta.digest}")
    return meta
