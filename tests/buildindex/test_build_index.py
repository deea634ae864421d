"""A build-index over real sockets on port 0, with a testfs for its backend and a stand-in for the origins."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted
from klein import Klein
from twisted.internet import reactor
from twisted.internet.task import deferLater

from krakentx.backend.config import BackendChoice, BackendConfig
from krakentx.backend.config import TestfsConfig as BackendTestfs
from krakentx.buildindex.config import BuildIndexConfig, TagServerConfig, TagTypeConfig
from krakentx.buildindex.service import build
from krakentx.clients.config import HostsConfig, UpstreamConfig
from krakentx.core.digest import Digest
from krakentx.testfs.config import TestfsConfig
from krakentx.testfs.service import build as build_testfs
from krakentx.web.app import new_app
from krakentx.web.replies import reply
from krakentx.web.service import HttpService

A, B = Digest.of(b"a"), Digest.of(b"b")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


class FakeOrigins:
    """One origin with blobs in memory."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.replicated: list[Digest] = []
        self.down = False
        self.app: Klein = new_app("plain")

        @self.app.route("/blobs/<digest>/locations")
        def locations(request: Any, digest: str) -> bytes:
            return reply(request, 200, headers={"Origin-Locations": request.getHeader("host")})

        @self.app.route("/readiness")
        def ready(request: Any) -> bytes:
            return reply(request, 200, b"OK\n")

        @self.app.route("/internal/namespace/<path:ns>/blobs/<digest>", methods=["HEAD"])
        def stat(request: Any, ns: str, digest: str) -> bytes:
            data = self.blobs.get(Digest.parse(digest))
            if self.down:
                return reply(request, 503)
            return reply(request, 404) if data is None else reply(request, 200, data)

        @self.app.route("/namespace/<path:ns>/blobs/<digest>", methods=["GET"])
        def get(request: Any, ns: str, digest: str) -> bytes:
            data = self.blobs.get(Digest.parse(digest))
            return reply(request, 404) if data is None else reply(request, 200, data)

        @self.app.route("/namespace/<path:ns>/blobs/<digest>/remote/<path:remote>", methods=["POST"])
        def replicate(request: Any, ns: str, digest: str, remote: str) -> bytes:
            self.replicated.append(Digest.parse(digest))
            return reply(request, 200)

    def add(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.blobs[digest] = data
        return digest

    def image(self, name: str) -> Digest:
        """A manifest with a config and a layer."""
        parts = [self.add(f"{kind} of {name}".encode()) for kind in ("config", "layer")]
        config, layer = ({"digest": str(each), "size": 1, "mediaType": "x"} for each in parts)
        return self.add(
            json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}).encode()
        )

    def index(self, *children: Digest) -> Digest:
        manifests = [{"digest": str(each), "size": 1, "mediaType": MANIFEST} for each in children]
        return self.add(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode())


@pytest.fixture
def origins() -> FakeOrigins:
    return FakeOrigins()


@pytest_twisted.async_yield_fixture
async def testfs(start, tmp_path: Path) -> Any:
    yield await start(build_testfs(TestfsConfig(0, "127.0.0.1", tmp_path / "testfs"), reactor=reactor))


@pytest_twisted.async_yield_fixture
async def make(origins: FakeOrigins, start, tmp_path: Path, testfs: Any) -> Any:
    http = await start(HttpService("origins", origins.app.resource(), 0, "127.0.0.1", reactor=reactor))
    upstream = UpstreamConfig(hosts=HostsConfig(static=(f"127.0.0.1:{http.port_number}",)))

    async def one(name: str = "bi", *, check: bool = False, backend: bool = True, **more: Any) -> Any:
        choice = BackendChoice(testfs=BackendTestfs(f"127.0.0.1:{testfs.http.port_number}", "tags", "docker_tag"))
        config = BuildIndexConfig(
            **{"port": 0, **more},
            interface="127.0.0.1",
            data_dir=tmp_path / name,
            origin=upstream,
            backends=[BackendConfig(choice)] if backend else [],
            tagserver=TagServerConfig(check_dependencies=check),
        )
        return await start(build(config, reactor=reactor, rng=random.Random(1)))

    yield one


def url(service: Any) -> str:
    return f"http://127.0.0.1:{service.http.port_number}"


def tag_url(base: Any, tag: str, digest: Digest | None = None) -> str:
    path = f"{url(base)}/tags/{quote(tag, safe='')}"
    return path if digest is None else f"{path}/digest/{digest}"


async def eventually(check: Any, seconds: float = 5.0) -> None:
    for _ in range(int(seconds / 0.05)):
        if await check():
            return
        await deferLater(reactor, 0.05)
    raise AssertionError("did not come to pass")


@pytest_twisted.ensureDeferred
async def test_put_get_head_and_move(make, fetch, testfs: Any) -> None:
    bi = await make()
    assert (await fetch("GET", tag_url(bi, "library/alpine:1"))).status == 404
    assert (await fetch("HEAD", tag_url(bi, "library/alpine:1"))).status == 404
    for digest in (A, B, A):
        assert (await fetch("PUT", tag_url(bi, "library/alpine:1", digest))).status == 200
        assert (await fetch("GET", tag_url(bi, "library/alpine:1"))).body == str(digest).encode()
    assert (await fetch("HEAD", tag_url(bi, "library/alpine:1"))).status == 200
    double = f"{url(bi)}/tags/library%252Falpine%253A1"
    assert (await fetch("GET", double)).body == str(A).encode()
    file = "tags/docker/registry/v2/repositories/library/alpine/_manifests/tags/1/current/link"

    async def written() -> bool:
        answer = await fetch("GET", f"http://127.0.0.1:{testfs.http.port_number}/files/{file}")
        return answer.body == str(A).encode()

    await eventually(written)


@pytest_twisted.ensureDeferred
async def test_bad_requests(make, fetch) -> None:
    bi = await make()
    for path in ("/tags/no-tag", "/tags/Upper:1", "/tags/..%2Fx:1", "/tags/a%3A..", "/repositories/UP/tags"):
        assert (await fetch("GET", url(bi) + path)).status == 400, path
    assert (await fetch("PUT", f"{url(bi)}/tags/a%3A1/digest/sha256:12")).status == 400
    assert (await fetch("PUT", tag_url(bi, "a:1", A) + "?replicate=perhaps")).status == 400
    for query in ("limit=0", "limit=x", "n=5", "limit=1&limit=2"):
        assert (await fetch("GET", f"{url(bi)}/list/?{query}")).status == 400, query


@pytest_twisted.ensureDeferred
async def test_lists_and_pages_hold_what_is_here_and_in_the_backend(make, fetch) -> None:
    first, second = await make("one"), await make("two")
    for number in range(5):
        assert (await fetch("PUT", tag_url(first, f"repo/a:{number}", A))).status == 200
    assert (await fetch("PUT", tag_url(second, "repo/b:x", B))).status == 200

    async def names(path: str) -> list[str]:
        found: list[str] = []
        while path:
            page = json.loads((await fetch("GET", url(second) + path)).body)
            assert page["size"] == len(page["result"] or [])
            found += page["result"] or []
            path = page["Links"]["next"]
        return found

    async def all_there() -> bool:
        return await names("/list/") == [*(f"repo/a:{n}" for n in range(5)), "repo/b:x"]

    await eventually(all_there)
    assert await names("/repositories/repo%2Fa/tags") == ["0", "1", "2", "3", "4"]
    assert await names("/repositories/repo%2Fa/tags?limit=2") == ["0", "1", "2", "3", "4"]
    assert await names("/list//repo/a/_manifests/tags") == [f"repo/a:{n}" for n in range(5)]
    assert await names("/repositories/repo%2Fnone/tags") == []


@pytest_twisted.ensureDeferred
async def test_a_backend_that_is_down_is_503_for_what_is_not_here(make, fetch, testfs: Any) -> None:
    bi = await make()
    await testfs.stopService()
    assert (await fetch("GET", tag_url(bi, "a:unknown"))).status == 503
    assert (await fetch("PUT", tag_url(bi, "a:1", A))).status == 200
    assert (await fetch("GET", tag_url(bi, "a:1"))).body == str(A).encode()
    assert (await fetch("GET", f"{url(bi)}/list/")).status == 503


@pytest_twisted.ensureDeferred
async def test_tags_survive_a_restart_without_a_backend(make, fetch) -> None:
    bi = await make(backend=False)
    assert (await fetch("PUT", tag_url(bi, "a:1", A))).status == 200
    await bi.stopService()
    bi = await make(backend=False)
    assert (await fetch("GET", tag_url(bi, "a:1"))).body == str(A).encode()
    assert (await fetch("GET", tag_url(bi, "a:2"))).status == 404


@pytest_twisted.ensureDeferred
async def test_refuses_tags_whose_parts_are_missing(make, fetch, origins: FakeOrigins) -> None:
    bi = await make(check=True)
    one, two = origins.image("one"), origins.image("two")
    nested = origins.index(origins.index(one, two))
    assert (await fetch("PUT", tag_url(bi, "a:1", nested))).status == 200
    layer = Digest.of(b"layer of two")
    data = origins.blobs.pop(layer)
    refused = await fetch("PUT", tag_url(bi, "a:2", nested))
    assert refused.status == 400
    assert str(layer).encode() in refused.body
    assert (await fetch("GET", tag_url(bi, "a:2"))).status == 404
    origins.blobs[layer] = data
    origins.down = True
    assert (await fetch("PUT", tag_url(bi, "a:2", nested))).status == 503
    origins.down = False
    assert (await fetch("PUT", tag_url(bi, "a:2", nested))).status == 200
    assert (await fetch("PUT", tag_url(bi, "a:3", A))).status == 400


@pytest_twisted.ensureDeferred
async def test_tag_types(make, fetch, origins: FakeOrigins) -> None:
    types = [TagTypeConfig("^plain/", "default"), TagTypeConfig("^images/")]
    bi = await make(check=True, tag_types=types)
    blob = origins.add(b"no manifest at all")
    assert (await fetch("PUT", tag_url(bi, "plain/a:1", blob))).status == 200
    assert (await fetch("PUT", tag_url(bi, "images/a:1", blob))).status == 400
    assert (await fetch("PUT", tag_url(bi, "other/a:1", blob))).status == 400


@pytest_twisted.ensureDeferred
async def test_neighbours_give_a_moved_tag_at_once(make, fetch) -> None:
    from tests.ports import free_ports

    ports = free_ports(2)
    cluster = UpstreamConfig(hosts=HostsConfig(static=tuple(f"127.0.0.1:{port}" for port in ports)))
    both = [await make(str(port), port=port, cluster=cluster) for port in ports]
    for digest in (A, B):
        assert (await fetch("PUT", tag_url(both[0], "a:1", digest))).status == 200
        for each in both:
            assert (await fetch("GET", tag_url(each, "a:1"))).body == str(digest).encode()


@pytest_twisted.ensureDeferred
async def test_gives_tags_to_another_cluster(make, fetch, origins: FakeOrigins) -> None:
    there = await make("there", check=True, backend=False)
    here = await make("here", check=True, remotes={f"127.0.0.1:{there.http.port_number}": ["^shared/"]})
    image = origins.image("one")
    assert (await fetch("PUT", tag_url(here, "shared/a:1", image) + "?replicate=true")).status == 200
    assert (await fetch("PUT", tag_url(here, "own/a:1", image) + "?replicate=true")).status == 200

    async def arrived() -> bool:
        return (await fetch("GET", tag_url(there, "shared/a:1"))).body == str(image).encode()

    await eventually(arrived)
    assert origins.replicated[-1] == image
    assert set(origins.replicated) == {image, Digest.of(b"config of one"), Digest.of(b"layer of one")}
    newer = origins.image("two")
    assert (await fetch("PUT", tag_url(here, "shared/a:1", newer) + "?replicate=true")).status == 200

    async def moved() -> bool:
        return (await fetch("GET", tag_url(there, "shared/a:1"))).body == str(newer).encode()

    await eventually(moved)
    assert (await fetch("POST", f"{url(here)}/remotes/tags/shared%2Fnone%3A1")).status == 404
    assert (await fetch("POST", f"{url(here)}/remotes/tags/shared%2Fa%3A1")).status == 200


@pytest_twisted.ensureDeferred
async def test_origin_health_and_readiness(make, fetch) -> None:
    bi = await make()
    assert (await fetch("GET", f"{url(bi)}/origin")).body.startswith(b"127.0.0.1:")
    assert (await fetch("GET", f"{url(bi)}/health")).body == b"OK\n"
    assert (await fetch("GET", f"{url(bi)}/readiness")).body == b"OK\n"
