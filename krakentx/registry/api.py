"""The Distribution API (`/v2/`): which route does what. The agent's is read-only, the proxy's is not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from klein import Klein

from krakentx.core.errors import Busy, Unavailable
from krakentx.core.imagename import check_repository
from krakentx.registry.blobs import BlobRoutes
from krakentx.registry.interfaces import IBlobs, IPush, ITags
from krakentx.registry.listing import ListRoutes
from krakentx.registry.manifests import ManifestRoutes
from krakentx.registry.paths import ALLOWED, Kind, parse_path
from krakentx.registry.referrers import Referrers
from krakentx.registry.uploads import UploadRoutes
from krakentx.web.app import new_app
from krakentx.web.errors import HttpError
from krakentx.web.replies import reply_json

PUSH_HERE = "this agent only serves pulls; push to the proxy (port 15000 by default)"

Route = Callable[[Any, str, str], Awaitable[bytes | None]]


# What an outage is told as where clients know no other word for "ask the next one".
_ABSENT: dict[Kind, str] = {
    "manifest": "MANIFEST_UNKNOWN",
    "blob": "BLOB_UNKNOWN",
    "tags": "NAME_UNKNOWN",
    "referrers": "MANIFEST_UNKNOWN",
}


def registry_app(
    *, blobs: IBlobs, tags: ITags, push: IPush | None, refusal: str = PUSH_HERE, outage_is_absence: bool = False
) -> Klein:
    """The registry as a Klein app.

    The query key `ns`, by which containerd tells a mirror the host of the name, is ignored: names are looked up as they
    are.

    Args:
        push: None for a registry that only serves pulls.
        refusal: what a push is told there.
        outage_is_absence: answer 404 instead of 503 when a part is down, for clients that ask their next mirror only
            then.
    """
    app = new_app("registry")
    routes = _routes(blobs, tags, push)
    lists = ListRoutes(tags)

    @app.route("/v2")
    @app.route("/v2/")
    def ping(request: Any) -> bytes:
        _greet(request)
        return reply_json(request, {})

    @app.route("/v2/_catalog", methods=["GET"])
    async def catalog(request: Any) -> bytes:
        _greet(request)
        return await lists.catalog(request)

    @app.route("/v2/<rest:path>")
    async def anything(request: Any, path: str) -> bytes | None:
        _greet(request)
        target = parse_path(path)
        if target is None:
            raise HttpError(404, "no such route")
        method = request.method.decode("latin-1")
        # A wrong method is told before a wrong name: nothing about the name would make it right.
        route = routes.get((target.kind, method))
        if route is None:
            allowed = [name for name in ALLOWED[target.kind] if (target.kind, name) in routes]
            refused = push is None and method in ALLOWED[target.kind]
            message = refusal if refused else f"{method} is not supported here"
            raise HttpError(405, message, "UNSUPPORTED", {"Allow": ", ".join(allowed)})
        try:
            return await route(request, check_repository(target.repo), target.name)
        except (Unavailable, Busy) as error:
            if outage_is_absence and target.kind in _ABSENT:
                raise HttpError(404, f"not to be had now: {error}", _ABSENT[target.kind]) from error
            raise

    return app


def _routes(blobs: IBlobs, tags: ITags, push: IPush | None) -> dict[tuple[Kind, str], Route]:
    blob, lists, referrers = BlobRoutes(blobs), ListRoutes(tags), Referrers(blobs, tags)
    manifest = ManifestRoutes(blobs, tags, referrers)
    routes: dict[tuple[Kind, str], Route] = {
        ("blob", "GET"): blob.get,
        ("blob", "HEAD"): blob.head,
        ("manifest", "GET"): manifest.get,
        ("manifest", "HEAD"): manifest.get,
        ("tags", "GET"): lists.tags,
        ("tags", "HEAD"): lists.tags,
        ("referrers", "GET"): referrers.get,
        ("referrers", "HEAD"): referrers.get,
    }
    if push is not None:
        upload = UploadRoutes(push)

        async def put_manifest(request: Any, repo: str, name: str) -> bytes:
            return await manifest.put(push, request, repo, name)

        routes |= {
            ("manifest", "PUT"): put_manifest,
            ("uploads", "POST"): upload.post,
            ("upload", "GET"): upload.get,
            ("upload", "PATCH"): upload.patch,
            ("upload", "PUT"): upload.put,
            ("upload", "DELETE"): upload.delete,
        }
    return routes


def _greet(request: Any) -> None:
    request.setHeader("Docker-Distribution-API-Version", "registry/2.0")
