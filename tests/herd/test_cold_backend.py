"""Images that only a slow backend has: each blob is fetched once, however many wait, and no fetch is given up."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from klein import Klein
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.web.client import ResponseNeverReceived

from krakentx.backend.config import BackendChoice, BackendConfig, TestfsConfig
from krakentx.core.digest import Digest
from krakentx.web.service import HttpService
from tests.herd.world import Image, ask, evolved, herd_config, pull, registry_of
from tests.ports import free_ports

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

SIZE = 2_000_000
TAKES_S = 1.5


@define
class SlowFiles:
    """What testfs would be at the end of a thin line. `fail` of the next downloads break off in their midst."""

    files: dict[str, bytes] = field(factory=dict)
    downloads: Counter[str] = field(factory=Counter)
    fail: int = 0

    def app(self) -> Klein:
        app = Klein()

        @app.route("/files/<path:name>", methods=["HEAD", "GET"])
        async def file(request: Any, name: str) -> bytes:
            data = self.files.get(name)
            if data is None:
                request.setResponseCode(404)
                return b""
            request.setHeader("Size", str(len(data)))
            request.setHeader("Content-Length", str(len(data)))
            if request.method == b"HEAD":
                return b""
            self.downloads[name] += 1
            if len(data) < SIZE:
                return data
            for at in range(0, len(data), SIZE // 10):
                await deferLater(reactor, TAKES_S / 10)
                if self.fail and at > SIZE // 2:
                    self.fail -= 1
                    request.channel.transport.abortConnection()
                    await Deferred()
                request.write(data[at : at + SIZE // 10])
            return b""

        @app.route("/files/<path:name>", methods=["POST"])
        def take(request: Any, name: str) -> bytes:
            return b""

        return app

    def hold(self, image: Image, repo: str, tag: str) -> None:
        for data in (*image.blobs, image.manifest):
            self.files[f"blobs/{Digest.of(data).hex}"] = data
        link = f"tags/docker/registry/v2/repositories/{repo}/_manifests/tags/{tag}/current/link"
        self.files[link] = str(image.digest).encode()

    def fetched(self, data: bytes) -> int:
        return self.downloads[f"blobs/{Digest.of(data).hex}"]


@pytest_twisted.async_yield_fixture
async def cold(world, tmp_path) -> Any:
    """A herd whose backend is slow, and that backend."""
    slow = SlowFiles()
    (port,) = free_ports(1)

    def backend(root: str, kind: str) -> list[BackendConfig]:
        return [BackendConfig(BackendChoice(TestfsConfig(f"127.0.0.1:{port}", root, kind)))]

    config = evolved(
        herd_config(tmp_path / "herd"),
        origin__backends=backend("blobs", "identity"),
        build_index__backends=backend("tags", "docker_tag"),
    )
    one = await world(config)
    await one.run(HttpService("slow", slow.app().resource(), port, "127.0.0.1", reactor=reactor))
    yield one, slow


@pytest_twisted.ensureDeferred
async def test_s14_many_cold_pulls_are_one_fetch_from_the_backend(cold) -> None:
    one, slow = cold
    image = Image.make(1, SIZE)
    slow.hold(image, "a", "v1")
    agents = [await one.add_agent() for _ in range(6)]
    bases = [one.proxy, *map(registry_of, agents)] * 3
    pulled = await gatherResults([Deferred.fromCoroutine(pull(base, "a", "v1")) for base in bases])
    assert pulled == [image] * len(bases)
    assert [slow.fetched(data) for data in (*image.blobs, image.manifest)] == [1, 1, 1]


@pytest_twisted.ensureDeferred
async def test_s14_when_a_fetch_breaks_off_those_who_wait_get_the_next_one(cold) -> None:
    one, slow = cold
    image = Image.make(2, SIZE)
    slow.hold(image, "a", "v1")
    slow.fail = 1
    bases = [one.proxy, registry_of(await one.add_agent())]
    answers = await gatherResults(
        [Deferred.fromCoroutine(ask("GET", f"{each}/v2/a/blobs/{Digest.of(image.layers[0])}")) for each in bases]
    )
    assert [answer.body for answer in answers] == [image.layers[0]] * 2
    assert slow.fetched(image.layers[0]) == 2


@pytest_twisted.ensureDeferred
async def test_s26_the_manifest_does_not_wait_for_layers_and_a_fetch_outlives_its_client(cold) -> None:
    one, slow = cold
    image = Image.make(3, SIZE)
    slow.hold(image, "a", "v1")
    base = registry_of(await one.add_agent())
    began = reactor.seconds()
    manifest = await ask("GET", f"{base}/v2/a/manifests/v1")
    assert manifest.body == image.manifest and reactor.seconds() - began < TAKES_S / 2
    url = f"{base}/v2/a/blobs/{Digest.of(image.layers[0])}"
    with pytest.raises(ResponseNeverReceived):
        await ask("GET", url, limit_s=TAKES_S / 3)
    again = await ask("GET", url)
    assert again.body == image.layers[0]
    assert reactor.seconds() - began < 2 * TAKES_S, "it went on where the first one left"
    assert slow.fetched(image.layers[0]) == 1
