"""A proxy in a process of its own (as far as it knows): origins over HTTP, one of which is in trouble."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from klein import Klein
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from krakentx.clients.config import HostsConfig, UpstreamConfig
from krakentx.core.digest import Digest
from krakentx.proxy.config import ProxyConfig, ServerConfig
from krakentx.proxy.service import ProxyService
from krakentx.proxy.service import build as build_proxy
from krakentx.web.service import HttpService
from tests.herd.world import Image, ask, pull, push, push_blob, registry_of
from tests.ports import free_ports

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

MIB = 1 << 20


@define
class Trouble:
    """An origin that names itself first and the other one after it, takes every upload, and fails at the end."""

    commit: Any = 504
    other: str = ""
    asked: list[str] = field(factory=list)

    async def start(self, world: Any) -> str:
        app = Klein()
        (port,) = free_ports(1)
        me = f"127.0.0.1:{port}"

        @app.route("/blobs/<digest>/locations")
        def locations(request: Any, digest: str) -> bytes:
            request.setHeader("Origin-Locations", ",".join(filter(None, [me, self.other])))
            return b""

        @app.route("/", branch=True)
        async def anything(request: Any) -> bytes:
            self.asked.append(request.method.decode())
            if request.method == b"POST":
                request.setHeader("Location", "some-id")
            elif request.method == b"HEAD":
                request.setResponseCode(404)
            elif request.method == b"PUT":
                if self.commit is None:
                    request.channel.transport.abortConnection()
                    await Deferred()
                request.setResponseCode(self.commit)
            return b""

        await world.run(HttpService("bad", app.resource(), port, "127.0.0.1", reactor=reactor))
        return me


async def _proxy(one: Any, *origins: str) -> tuple[ProxyService, str]:
    registry, server = free_ports(2)
    config = ProxyConfig(
        port=(registry,),
        server=ServerConfig(port=server),
        data_dir=one.folder / "proxy-alone",
        origin=UpstreamConfig(HostsConfig(static=origins)),
        build_index=UpstreamConfig(HostsConfig(static=(f"127.0.0.1:{one.herd_config.build_index.port}",))),
    )
    return await one.run(build_proxy(config, reactor=reactor)), f"http://127.0.0.1:{registry}"


@pytest_twisted.ensureDeferred
async def test_pushes_and_pulls_over_http(world) -> None:
    one = await world(agents=1)
    proxy, base = await _proxy(one, f"127.0.0.1:{one.herd_config.origin.port}")
    image = Image.make(1, 2 * MIB, 0)
    assert (await push(base, "a", "v1", image)).status == 201
    assert await pull(base, "a", "v1") == image
    assert await pull(registry_of(one.agents[0]), "a", "v1") == image
    other = Image.make(2, 3 * MIB)
    await push(one.proxy, "a", "v2", other)
    pulled = await gatherResults([Deferred.fromCoroutine(pull(base, "a", "v2")) for _ in range(5)])
    assert pulled == [other] * 5
    assert len(proxy.uploads) == 0


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("commit", [504, 500, None], ids=["504", "500", "hangs up"])
async def test_s02_the_next_replica_takes_what_the_first_one_cannot(world, commit) -> None:
    one = await world()
    trouble = Trouble(commit, f"127.0.0.1:{one.herd_config.origin.port}")
    _, base = await _proxy(one, await trouble.start(one))
    image = Image.make(3, MIB)
    assert (await push(base, "a", "v1", image)).status == 201
    assert "PUT" in trouble.asked
    assert await pull(one.proxy, "a", "v1") == image


@pytest_twisted.ensureDeferred
async def test_s02_when_no_origin_takes_it_the_client_reads_why(world) -> None:
    one = await world()
    trouble = Trouble()
    proxy, base = await _proxy(one, await trouble.start(one))
    data = Image.make(4, MIB).layers[0]
    answer = await push_blob(base, "a", data)
    assert answer.status == 503
    (error,) = answer.json()["errors"]
    assert error["code"] == "UNAVAILABLE" and "504" in error["message"]
    assert (await ask("HEAD", f"{base}/v2/a/blobs/{Digest.of(data)}")).status in (404, 503)
    assert len(proxy.uploads) == 0 and list((one.folder / "proxy-alone" / "cache").rglob("data")) == []


@pytest_twisted.ensureDeferred
async def test_s16_an_upload_that_another_proxy_has_begun_is_plainly_unknown(world) -> None:
    """With 404 clients begin the layer anew; forwarding it to the proxy that has it is later work."""
    one = await world()
    proxy, base = await _proxy(one, f"127.0.0.1:{one.herd_config.origin.port}")
    begun = await ask("POST", f"{one.proxy}/v2/a/blobs/uploads/", b"")
    place = begun.header("Location")
    for method, suffix in (("PATCH", ""), ("PUT", f"?digest={Digest.of(b'x')}"), ("GET", ""), ("DELETE", "")):
        answer = await ask(method, base + place + suffix, b"x" if method in ("PATCH", "PUT") else None)
        assert (answer.status, answer.json()["errors"][0]["code"]) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert (await ask("PATCH", one.proxy + place, b"x")).status == 202
    assert len(proxy.uploads) == 0
