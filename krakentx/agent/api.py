"""Routes of the agent's management port (docs/wire.md, "Agent")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from klein import Klein

from krakentx.agent.preload import Preloader
from krakentx.core.errors import NotFound
from krakentx.core.imagename import parse_tag
from krakentx.peer.scheduler import Scheduler
from krakentx.registry.interfaces import IBlobs, ITags
from krakentx.swarm.config import SwarmConfig
from krakentx.swarm.patch import patched
from krakentx.web.access import Allowed
from krakentx.web.app import new_app
from krakentx.web.bodies import read_body, send_blob
from krakentx.web.health import Check, add_health
from krakentx.web.metrics import Metrics, add_metrics
from krakentx.web.params import json_value, path_digest, path_value, query_value
from krakentx.web.replies import reply, reply_json, reply_text

_MAX_BODY = 1 << 20
_NS = 1_000_000_000


def management_app(
    *,
    blobs: IBlobs,
    tags: ITags,
    scheduler: Scheduler,
    settings: SwarmConfig,
    preloader: Preloader,
    admins: Allowed,
    ready: Mapping[str, Check],
    metrics: Metrics,
    reactor: Any,
) -> Klein:
    """The management port as a Klein app.

    Args:
        settings: of the scheduler, as it starts.
        admins: who may change the agent's state.
    """
    app = new_app("plain")
    add_health(app, reactor=reactor, alive=scheduler.probe, ready=ready, not_ready="agent not ready", end="")
    add_metrics(app, metrics)
    current = settings

    @app.route("/tags/<path:tag>", methods=["GET"])
    async def get_tag(request: Any, tag: str) -> bytes:
        try:
            digest = await tags.get(*parse_tag(path_value("tag", tag)))
        except NotFound:
            return reply(request, 404)
        return reply_text(request, str(digest))

    @app.route("/namespace/<path:namespace>/blobs/<path:digest>", methods=["GET", "HEAD"])
    async def get_blob(request: Any, namespace: str, digest: str) -> bytes | None:
        name, wanted = path_value("namespace", namespace), path_digest(digest, bare=True)
        if request.method == b"HEAD":
            size = await blobs.stat(name, wanted)
            request.setHeader("Content-Length", str(size))
            return b""
        await send_blob(request, await blobs.open(name, wanted))
        return None

    @app.route("/blobs/<path:digest>", methods=["DELETE"])
    async def delete(request: Any, digest: str) -> bytes:
        admins.check(request)
        await scheduler.remove(path_digest(digest, bare=True))
        return reply(request, 200)

    @app.route("/preload/tags/<path:tag>", methods=["GET"])
    async def preload(request: Any, tag: str) -> bytes:
        runtime = query_value(request, "runtime") or "docker"
        await preloader.preload(path_value("tag", tag), runtime, query_value(request, "namespace") or "")
        return reply(request, 200)

    @app.route("/x/config/scheduler", methods=["PATCH"])
    async def configure(request: Any) -> bytes:
        nonlocal current
        admins.check(request)
        current = patched(current, json_value(await read_body(request, _MAX_BODY)))
        scheduler.configure(current)
        return reply(request, 200)

    @app.route("/x/blacklist", methods=["GET"])
    def blacklist(request: Any) -> bytes:
        bans = [
            {"peer_id": peer.to_json(), "info_hash": torrent.to_json(), "remaining": int(left_s * _NS)}
            for peer, torrent, left_s in scheduler.blacklist()
        ]
        return reply_json(request, bans)

    return app
