"""Routes of the tracker (docs/wire.md, "Announce")."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from attrs import evolve
from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput
from krakentx.core.peer import InfoHash, PeerID, PeerInfo
from krakentx.tracker.interfaces import Announcement, IOrigins
from krakentx.tracker.logic import HandOut, Tracker
from krakentx.web.app import new_app
from krakentx.web.bodies import read_body
from krakentx.web.errors import error_reply
from krakentx.web.health import Check, add_health
from krakentx.web.metrics import Metrics, add_metrics
from krakentx.web.params import json_value, path_digest, path_value, query_bool
from krakentx.web.replies import reply

_log = Logger()

MAX_ANNOUNCE_BYTES = 64 << 10
MAX_BATCH = 500
"""Torrents in one request; it takes the event loop a few milliseconds."""
MAX_BATCH_BYTES = 128 << 10
_MAX_FAILED = 50
_NS = 1_000_000_000
_MAX_NS = 1 << 63


def parse_announce(body: bytes, info_hash: str | None) -> Announcement:
    """Read the body of an announce.

    Args:
        info_hash: from the path (v2); None to take the body's (v1).

    Raises:
        InvalidInput: something is missing or of another type.
    """
    data = json_value(body)
    if not isinstance(data, dict):
        raise InvalidInput("announce", "expected an object")
    digest = data.get("digest")
    name = data.get("name")
    if isinstance(digest, str) and digest:
        parsed = Digest.parse(digest)
    elif isinstance(name, str):
        parsed = Digest.from_hex(name)
    else:
        raise InvalidInput("announce", "it has neither digest nor name")
    failed = data.get("failed_peers")
    return Announcement(
        digest=parsed,
        info_hash=InfoHash.from_json(data.get("info_hash")) if info_hash is None else InfoHash.parse(info_hash),
        peer=PeerInfo.from_json(data.get("peer")),
        again_s=_again_s(data.get("again")),
        failed=tuple(map(PeerID.from_json, failed[:_MAX_FAILED])) if isinstance(failed, list) else (),
        stopped=data.get("stopped") is True,
    )


def parse_announces(body: bytes) -> list[Announcement]:
    """Read the body of a batch: one peer, complete, and its torrents.

    Raises:
        InvalidInput: something is missing or of another type, or there is none or too many.
    """
    data = json_value(body)
    if not isinstance(data, dict):
        raise InvalidInput("announces", "expected an object")
    torrents, again = data.get("torrents"), data.get("again")
    if not isinstance(torrents, dict) or not 0 < len(torrents) <= MAX_BATCH:
        raise InvalidInput("announces", f"expected 1 to {MAX_BATCH} torrents, each info hash with its digest")
    peer = evolve(PeerInfo.from_json(data.get("peer")), complete=True)
    again_s = _again_s(again)
    return [Announcement(_digest(digest), InfoHash.parse(name), peer, again_s) for name, digest in torrents.items()]


def _digest(value: object) -> Digest:
    if not isinstance(value, str):
        raise InvalidInput("digest", "expected a string")
    return Digest.parse(value)


def _again_s(value: object) -> float | None:
    return value / _NS if type(value) is int and 0 < value < _MAX_NS else None


@lru_cache(maxsize=1 << 16)
def _peer_json(peer: PeerInfo) -> str:
    """One entry of an answer. Kept, since the same peers are named in one answer after the other."""
    return json.dumps(peer.to_json(), separators=(",", ":"))


def encode_hand_out(answer: HandOut, source: str) -> bytes:
    """The answer's JSON; `seen_ip` and `notice` are ours and ignored by the reference."""
    peers = f"[{','.join(map(_peer_json, answer.peers))}]" if answer.peers else "null"
    notice = f',"notice":{json.dumps(answer.notice)}' if answer.notice else ""
    return (
        f'{{"peers":{peers},"interval":{int(answer.interval_s * _NS)},"seen_ip":{json.dumps(source)}{notice}}}\n'
    ).encode()


class AnnounceResource(Resource):
    """`GET /announce` (v1), `POST /announce/<infohash>` (v2), and `POST /announces` (ours, of many torrents).

    A plain resource: announces are most of what a tracker gets, and Klein would halve their number.
    """

    isLeaf = True

    def __init__(self, tracker: Tracker, *, many: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # twisted leaves it bare
        self._tracker = tracker
        self._many = many

    def render(self, request: Request) -> Any:
        """Called by twisted.web."""
        info_hash = b"".join(request.postpath or []).decode("latin-1")
        method = b"POST" if info_hash or self._many else b"GET"
        if request.method != method:
            body = b"method not allowed"
            request.write(reply(request, 405, body, "text/plain; charset=utf-8", {"Allow": method.decode()}))
            request.finish()
            return NOT_DONE_YET
        work = Deferred.fromCoroutine(self._answer(request, info_hash or None))
        request.notifyFinish().addErrback(lambda _gone: work.cancel())
        work.addErrback(lambda failure: self._fail(request, failure))
        work.addCallback(lambda data: self._finish(request, data))
        return NOT_DONE_YET

    async def _answer(self, request: Request, info_hash: str | None) -> bytes:
        source = request.getClientAddress().host
        if self._many:
            told = parse_announces(await read_body(request, MAX_BATCH_BYTES, "announces"))
            answer = await self._tracker.announce_many(told, source)
        else:
            announcement = parse_announce(await read_body(request, MAX_ANNOUNCE_BYTES, "announce"), info_hash)
            answer = await self._tracker.announce(announcement, source)
        return reply(request, 200, encode_hand_out(answer, source), "application/json")

    def _fail(self, request: Request, failure: Failure) -> bytes | None:
        return None if failure.check(CancelledError) else error_reply(request, failure, "plain")

    def _finish(self, request: Request, data: bytes | None) -> None:
        if data is not None and request.channel is not None:
            request.write(data)
            request.finish()


@implementer(IResource)
class _Root:
    """Sends announces to their resource and everything else to Klein."""

    isLeaf = False

    def __init__(self, announce: Resource, announces: Resource, rest: IResource) -> None:
        self._announce = announce
        self._announces = announces
        self._rest = rest

    def getChildWithDefault(self, name: bytes, request: Request) -> Any:
        """Called by twisted.web for the first part of the path."""
        if name == b"announce" and len(request.postpath or []) < 2:
            return self._announce
        if name == b"announces" and not request.postpath:
            return self._announces
        request.postpath = [*(request.prepath or []), *(request.postpath or [])]
        request.prepath = []
        return self._rest

    def putChild(self, path: bytes, child: IResource) -> None:
        """There are no others."""
        raise NotImplementedError

    def render(self, request: Request) -> Any:
        """Called by twisted.web when the path is empty."""
        return self._rest.render(request)


def tracker_resource(
    tracker: Tracker, origins: IOrigins, metrics: Metrics, *, ready: Check, reactor: IReactorTime
) -> IResource:
    """The HTTP face of a tracker."""
    app: Klein = new_app("plain")
    add_health(app, reactor=reactor, ready={"origins": ready})
    add_metrics(app, metrics)

    @app.route("/namespace/<path:namespace>/blobs/<digest>/metainfo", methods=["GET"])
    async def metainfo(request: Request, namespace: str, digest: str) -> bytes:
        name = path_digest(digest)
        strong = query_bool(request, "strong_sums")
        meta = await origins.metainfo(path_value("namespace", namespace), name, strong=strong)
        # An agent asks once, at the beginning of a pull; its announces come every few seconds, and are not told.
        _log.info("told {addr} the metainfo of {digest}", addr=request.getClientAddress().host, digest=str(name))
        return reply(request, 200, meta.to_json(), "application/json")

    return _Root(AnnounceResource(tracker), AnnounceResource(tracker, many=True), app.resource())
