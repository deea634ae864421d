"""Routes of testfs (docs/wire.md has none of them: they are the reference's)."""

from __future__ import annotations

from klein import Klein
from twisted.web.server import Request

from krakentx.testfs.logic import Files
from krakentx.web.app import new_app
from krakentx.web.bodies import body_chunks, send_blob
from krakentx.web.metrics import Metrics, add_metrics
from krakentx.web.replies import reply, reply_json, reply_text


def testfs_app(files: Files, metrics: Metrics) -> Klein:
    """The HTTP face of testfs."""
    app: Klein = new_app("plain")
    add_metrics(app, metrics)

    @app.route("/health", methods=["GET"])
    def health(request: Request) -> bytes:
        return reply_text(request, "OK")

    @app.route("/files/<path:name>", methods=["HEAD"])
    def stat(request: Request, name: str) -> bytes:
        size = files.stat(name)
        request.setHeader("Size", str(size))
        request.setHeader("Content-Length", str(size))
        return b""

    @app.route("/files/<path:name>", methods=["GET"])
    async def download(request: Request, name: str) -> None:
        await send_blob(request, files.open(name))

    @app.route("/files/<path:name>", methods=["POST", "PUT"])
    async def upload(request: Request, name: str) -> bytes:
        await files.put(name, body_chunks(request))
        return reply(request, 200)

    @app.route("/files/<path:name>", methods=["DELETE"])
    async def delete(request: Request, name: str) -> bytes:
        await files.delete(name)
        return reply(request, 200)

    @app.route("/list/<rest:folder>", methods=["GET"])
    async def listing(request: Request, folder: str) -> bytes:
        return reply_json(request, await files.list(folder))

    return app
