"""Routes of the origin (docs/wire.md has none of them: they are the reference's)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from krakentx.clients.origin import PIECES_HEADER
from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput
from krakentx.core.peer import PeerContext
from krakentx.origin.line import Line
from krakentx.origin.logic import Origin
from krakentx.origin.uploads import parse_content_range
from krakentx.peer.rates import Toll
from krakentx.web.access import Allowed
from krakentx.web.app import new_app
from krakentx.web.bodies import body_chunks, read_body, send_blob
from krakentx.web.health import Check, add_health
from krakentx.web.metrics import Metrics, add_metrics
from krakentx.web.params import json_value, path_digest, path_value, query_bool, query_int, seconds_of
from krakentx.web.replies import reply, reply_json

_MAX_JSON = 64 << 10
_PIECES_TAKE_S = 10.0  # an agent that takes nothing for so long would hold its turn for nothing
_BLOB = "/namespace/<path:namespace>/blobs/<digest>"
_INTERNAL_BLOB = "/internal/namespace/<path:namespace>/blobs/<digest>"

Replicate = Callable[[str, Digest, str], Awaitable[None]]
Configure = Callable[[object], None]


def origin_app(
    origin: Origin,
    *,
    context: Callable[[], PeerContext],
    line: Line,
    toll: Callable[[Digest], Toll],
    replicate: Replicate,
    configure: Configure,
    admin: Allowed,
    metrics: Metrics,
    ready: dict[str, Check],
    reactor: IReactorTime,
) -> Klein:
    """The HTTP face of an origin.

    Args:
        context: told to the tracker.
        line: of the agents that fetch pieces.
        toll: where those pieces pay, as on the peer wire.
        replicate: sends a blob of the cache to another cluster of origins.
        configure: new settings for the peer, as read from JSON.
        admin: who may delete blobs and change settings.
    """
    app: Klein = new_app("plain")
    add_health(app, reactor=reactor, ready=ready)
    add_metrics(app, metrics)
    _reading(app, origin, context, line, toll)
    _uploads(app, origin)
    _transfers(app, origin)
    _upkeep(app, origin, replicate, configure, admin, reactor)
    return app


def _reading(
    app: Klein, origin: Origin, context: Callable[[], PeerContext], line: Line, toll: Callable[[Digest], Toll]
) -> None:
    @app.route(_BLOB, methods=["GET", "HEAD"])
    async def download(request: Request, namespace: str, digest: str) -> None:
        name, wanted = path_value("namespace", namespace), path_digest(digest)
        if not request.getHeader(PIECES_HEADER):
            await send_blob(request, await origin.open(name, wanted))
            return
        async with line.turn():
            reader = await origin.open(name, wanted)
            await send_blob(request, reader, take_s=_PIECES_TAKE_S, pay=toll(wanted).pay)

    @app.route(_INTERNAL_BLOB, methods=["HEAD"])
    async def stat(request: Request, namespace: str, digest: str) -> bytes:
        local = query_bool(request, "local")
        size = await origin.stat(path_value("namespace", namespace), path_digest(digest), local=local)
        request.setHeader("Content-Length", str(size))
        return b""

    @app.route(_INTERNAL_BLOB + "/metainfo", methods=["GET"])
    async def metainfo(request: Request, namespace: str, digest: str) -> bytes:
        strong = query_bool(request, "strong_sums")
        meta = await origin.metainfo(path_value("namespace", namespace), path_digest(digest), strong=strong)
        return reply(request, 200, meta.to_json(), "application/json")

    @app.route(_BLOB + "/prefetch", methods=["POST"])
    async def prefetch(request: Request, namespace: str, digest: str) -> bytes:
        await origin.prefetch(path_value("namespace", namespace), path_digest(digest))
        return reply(request, 200)

    @app.route("/blobs/<digest>/locations", methods=["GET"])
    def locations(request: Request, digest: str) -> bytes:
        parsed = path_digest(digest)
        # Alone it has no name of its own: the one by which it was reached is the one that works.
        owners = origin.ring.owners(parsed) or [request.getHeader("host") or ""]
        return reply(request, 200, headers={"Origin-Locations": ",".join(owners)})

    @app.route("/internal/peercontext", methods=["GET"])
    def peer_context(request: Request) -> bytes:
        return reply_json(request, context().to_json())


def _uploads(app: Klein, origin: Origin) -> None:
    @app.route(_BLOB + "/uploads", methods=["POST"])
    async def start(request: Request, namespace: str, digest: str) -> bytes:
        uid = await origin.start(path_value("namespace", namespace), path_digest(digest))
        return reply(request, 200, headers={"Location": uid})

    @app.route(_BLOB + "/uploads/<uid>", methods=["PATCH"])
    async def patch(request: Request, namespace: str, digest: str, uid: str) -> bytes:
        start, end = parse_content_range(request.getHeader("Content-Range"))
        chunks = body_chunks(request)
        await origin.patch(path_value("namespace", namespace), path_digest(digest), uid, start, end, chunks)
        return reply(request, 200)

    @app.route(_BLOB + "/uploads/<uid>", methods=["PUT"])
    async def commit(request: Request, namespace: str, digest: str, uid: str) -> bytes:
        await origin.commit(path_value("namespace", namespace), path_digest(digest), uid)
        return reply(request, 200)

    @app.route("/internal/duplicate" + _BLOB + "/uploads/<uid>", methods=["PUT"])
    async def commit_copy(request: Request, namespace: str, digest: str, uid: str) -> bytes:
        delay_s = _delay_s(await read_body(request, _MAX_JSON))
        await origin.commit_copy(path_value("namespace", namespace), path_digest(digest), uid, delay_s)
        return reply(request, 200)


def _transfers(app: Klein, origin: Origin) -> None:
    @app.route("/internal/blobs/<digest>/uploads", methods=["POST"])
    async def start_transfer(request: Request, digest: str) -> bytes:
        uid = await origin.start_transfer(path_digest(digest))
        return reply(request, 200, headers={"Location": uid})

    @app.route("/internal/blobs/<digest>/uploads/<uid>", methods=["PATCH"])
    async def patch_transfer(request: Request, digest: str, uid: str) -> bytes:
        start, end = parse_content_range(request.getHeader("Content-Range"))
        await origin.patch_transfer(path_digest(digest), uid, start, end, body_chunks(request))
        return reply(request, 200)

    @app.route("/internal/blobs/<digest>/uploads/<uid>", methods=["PUT"])
    async def commit_transfer(request: Request, digest: str, uid: str) -> bytes:
        await origin.commit_transfer(path_digest(digest), uid)
        return reply(request, 200)


def _upkeep(
    app: Klein, origin: Origin, replicate: Replicate, configure: Configure, admin: Allowed, clock: IReactorTime
) -> None:
    @app.route("/internal/blobs/<digest>", methods=["DELETE"])
    async def delete(request: Request, digest: str) -> bytes:
        admin.check(request)
        await origin.delete(path_digest(digest))
        return reply(request, 202)

    @app.route("/internal/blobs/<digest>/metainfo", methods=["POST"])
    async def cut_anew(request: Request, digest: str) -> bytes:
        admin.check(request)
        length = query_int(request, "piece_length", minimum=1)
        if length is None:
            raise InvalidInput("parameter", "piece_length is required")
        await origin.set_piece_length(path_digest(digest), length)
        return reply(request, 200)

    @app.route(_BLOB + "/remote/<path:remote>", methods=["POST"])
    async def to_remote(request: Request, namespace: str, digest: str, remote: str) -> bytes:
        await replicate(path_value("namespace", namespace), path_digest(digest), path_value("remote", remote))
        return reply(request, 200)

    @app.route("/forcecleanup", methods=["POST"])
    async def clean_up(request: Request) -> bytes:
        admin.check(request)
        hours = query_int(request, "ttl_hr")
        if hours is None:
            raise InvalidInput("parameter", "ttl_hr is required")
        deleted, problems = await origin.clean_up(clock.seconds(), hours * 3600.0)
        return reply_json(request, {"deleted": deleted or None, "errors": problems or None})

    @app.route("/x/config/scheduler", methods=["PATCH"])
    async def patch_scheduler(request: Request) -> bytes:
        admin.check(request)
        configure(json_value(await read_body(request, _MAX_JSON)))
        return reply(request, 200)


def _delay_s(body: bytes) -> float:
    data = json_value(body)
    values = [value for key, value in data.items() if key.lower() == "delay"] if isinstance(data, dict) else []
    if len(values) != 1:
        raise InvalidInput("parameter", "the body must be a JSON object with Delay in nanoseconds")
    return seconds_of("Delay", values[0])
