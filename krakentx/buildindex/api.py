"""Routes of the build-index (docs/wire.md has none of them: they are the reference's)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from krakentx.buildindex.logic import BuildIndex, ITagQueue, page
from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput
from krakentx.web.app import new_app
from krakentx.web.bodies import read_body
from krakentx.web.health import Check, add_health
from krakentx.web.metrics import Metrics, add_metrics
from krakentx.web.params import json_value, path_digest, path_value, query_bool, seconds_of
from krakentx.web.replies import reply, reply_json, reply_text

_MAX_JSON = 4 << 20


def build_index_app(
    index: BuildIndex,
    queue: ITagQueue,
    *,
    origin: Callable[[], str],
    metrics: Metrics,
    ready: dict[str, Check],
    reactor: IReactorTime,
) -> Klein:
    """The HTTP face of a build-index.

    Args:
        origin: address of the origins beside it, for other clusters.
    """
    app: Klein = new_app("plain")
    add_health(app, reactor=reactor, ready=ready)
    add_metrics(app, metrics)
    _tags(app, index)
    _lists(app, index)
    _internal(app, index, queue)

    @app.route("/origin", methods=["GET"])
    def tell_origin(request: Request) -> bytes:
        return reply_text(request, origin())

    return app


def _tags(app: Klein, index: BuildIndex) -> None:
    @app.route("/tags/<path:tag>/digest/<digest>", methods=["PUT"])
    async def put(request: Request, tag: str, digest: str) -> bytes:
        replicate = query_bool(request, "replicate")
        await index.put(path_value("tag", tag), path_digest(digest), replicate=replicate)
        return reply(request, 200)

    @app.route("/tags/<path:tag>", methods=["GET"])
    async def get(request: Request, tag: str) -> bytes:
        return reply_text(request, str(await index.get(path_value("tag", tag))))

    @app.route("/tags/<path:tag>", methods=["HEAD"])
    async def has(request: Request, tag: str) -> bytes:
        await index.exists(path_value("tag", tag))
        return reply(request, 200)

    @app.route("/remotes/tags/<path:tag>", methods=["POST"])
    async def replicate(request: Request, tag: str) -> bytes:
        await index.replicate(path_value("tag", tag))
        return reply(request, 200)


def _lists(app: Klein, index: BuildIndex) -> None:
    @app.route("/repositories/<path:repo>/tags", methods=["GET"])
    async def tags(request: Request, repo: str) -> bytes:
        return _reply_page(request, await index.tags(path_value("repo", repo)))

    @app.route("/list/<rest:prefix>", methods=["GET"])
    async def names(request: Request, prefix: str) -> bytes:
        return _reply_page(request, await index.names(path_value("prefix", prefix) if prefix else ""))


def _internal(app: Klein, index: BuildIndex, queue: ITagQueue) -> None:
    @app.route("/internal/duplicate/tags/<path:tag>/digest/<digest>", methods=["PUT"])
    async def put_copy(request: Request, tag: str, digest: str) -> bytes:
        data = _object(await read_body(request, _MAX_JSON))
        await index.put_copy(path_value("tag", tag), path_digest(digest), _delay_s(data))
        return reply(request, 200)

    @app.route("/internal/duplicate/remotes/tags/<path:tag>/digest/<digest>", methods=["POST"])
    async def replicate_copy(request: Request, tag: str, digest: str) -> bytes:
        data = _object(await read_body(request, _MAX_JSON))
        named = data.get("dependencies") or []
        if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
            raise InvalidInput("parameter", "dependencies must be a list of digests")
        dependencies = [Digest.parse(each) for each in named]
        await queue.replicate(path_value("tag", tag), path_digest(digest), dependencies, _delay_s(data))
        return reply(request, 200)


def _reply_page(request: Request, names: list[str]) -> bytes:
    limit, offset = _paging(request)
    part = page(names, limit, offset)
    path = request.path.decode("latin-1")
    following = ""
    if part.following:
        query = {**({} if limit is None else {"limit": str(limit)}), "offset": part.following}
        following = f"{path}?{urlencode(query)}"
    links = {"next": following, "self": request.uri.decode("latin-1")}
    return reply_json(request, {"Links": links, "size": len(part.names), "result": part.names or None})


def _paging(request: Request) -> tuple[int | None, str | None]:
    args = request.args or {}
    if set(args) - {b"limit", b"offset"} or any(len(values) > 1 for values in args.values()):
        raise InvalidInput("parameter", "only limit and offset may be given, each once")
    limit = args[b"limit"][0].decode("latin-1") if b"limit" in args else None
    offset = args[b"offset"][0].decode("utf-8", "replace") if b"offset" in args else None
    if limit is None:
        return None, offset
    digits = limit.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and int(limit)):
        raise InvalidInput("parameter", f"limit={limit[:40]!r} is no whole number other than 0")
    return int(limit), offset


def _object(body: bytes) -> dict[str, Any]:
    data = json_value(body)
    if not isinstance(data, dict):
        raise InvalidInput("parameter", "the body must be a JSON object")
    return {str(key).lower(): value for key, value in data.items()}


def _delay_s(data: dict[str, Any]) -> float:
    return seconds_of("delay", data.get("delay", 0))
