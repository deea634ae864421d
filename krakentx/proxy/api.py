"""Routes of the proxy's management port (docs/wire.md, "Proxy")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from klein import Klein
from twisted.logger import Logger
from twisted.web.http import RESPONSES

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput, KrakenError
from krakentx.core.imagename import check_repository
from krakentx.proxy.prefetch import Prefetcher
from krakentx.web.app import new_app
from krakentx.web.bodies import read_body
from krakentx.web.errors import status_of
from krakentx.web.health import Check, add_health
from krakentx.web.metrics import Metrics, add_metrics
from krakentx.web.params import json_value
from krakentx.web.replies import reply, reply_json

_MAX_BODY = 1 << 20
_IMAGE = re.compile(
    r"application/vnd\.(docker\.distribution\.manifest\.v\d+\+(json|prettyjws)|oci\.image\.manifest\.v1\+json)"
)

log = Logger()


def management_app(*, prefetcher: Prefetcher, metrics: Metrics, ready: Mapping[str, Check], reactor: Any) -> Klein:
    """The management port as a Klein app."""
    app = new_app("plain")
    add_health(app, reactor=reactor, ready=ready, not_ready="proxy not ready")
    add_metrics(app, metrics)

    @app.route("/registry/notifications", methods=["POST"])
    async def notifications(request: Any) -> bytes:
        events = _fold(json_value(await read_body(request, _MAX_BODY))).get("events")
        for repo, digest in _pushes(events):
            try:
                await prefetcher.pushed(repo, digest)
            except KrakenError as error:
                log.warn("preheat of {repo}: {error}", repo=repo, digest=str(digest), error=str(error))
        return reply(request, 200)

    async def prefetch(request: Any, *, wait: bool) -> bytes:
        trace: dict[str, str] = {}
        try:
            body = _fold(json_value(await read_body(request, _MAX_BODY)))
            if isinstance(body.get("trace_id"), str) and body["trace_id"]:
                trace["trace_id"] = body["trace_id"]
            tag = body.get("tag")
            if not isinstance(tag, str):
                raise InvalidInput("parameter", "the body needs a `tag`")
            await prefetcher.prefetch(tag, wait=wait)
        except KrakenError as error:
            # A manifest that cannot be read is nothing the caller could mend.
            status = 500 if isinstance(error, InvalidInput) and error.what == "manifest" else status_of(error)
            answer = {"error": RESPONSES[status].decode(), "prefetched": False, "status": "failure"}
            return reply_json(request, {**answer, "message": str(error), **trace}, status)
        answer = {"tag": tag.rsplit("/", 1)[-1], "prefetched": True, "status": "success"}
        return reply_json(request, {**answer, "message": "prefetching initiated successfully", **trace})

    @app.route("/proxy/v1/registry/prefetch", methods=["POST"])
    async def prefetch_v1(request: Any) -> bytes:
        return await prefetch(request, wait=False)

    @app.route("/proxy/v2/registry/prefetch", methods=["POST"])
    async def prefetch_v2(request: Any) -> bytes:
        return await prefetch(request, wait=True)

    return app


def _fold(value: Any) -> dict[str, Any]:
    """Keys without regard to case, as the reference reads them."""
    if not isinstance(value, dict):
        raise InvalidInput("parameter", "expected a JSON object")
    return {str(key).lower(): item for key, item in value.items()}


def _pushes(events: Any) -> list[tuple[str, Digest]]:
    """Repository and digest of each image that was pushed; whatever else happened, or cannot be read, is left out."""
    found = []
    for event in events if isinstance(events, list) else []:
        try:
            folded = _fold(event)
            target = _fold(folded.get("target"))
            if folded.get("action") == "push" and _IMAGE.fullmatch(str(target.get("mediatype"))):
                found.append((check_repository(str(target["repository"])), Digest.parse(str(target["digest"]))))
        except (InvalidInput, KeyError):
            continue
    return found
