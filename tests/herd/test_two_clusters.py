"""Two clusters, of which the first gives its tags to the second."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from krakentx.core.digest import Digest
from krakentx.registry.media import OCI_INDEX
from tests.herd.world import MANIFEST_TYPE, Image, ask, evolved, herd_config, pull, push, push_blob, registry_of, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


async def put(base: str, reference: object, data: bytes, media_type: str) -> None:
    answer = await ask("PUT", f"{base}/v2/shared/app/manifests/{reference}", data, {"Content-Type": media_type})
    assert answer.status == 201, answer.body


def index_of(*children: tuple[bytes, str]) -> bytes:
    listed = [{"mediaType": kind, "digest": str(Digest.of(data)), "size": len(data)} for data, kind in children]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}).encode()


async def pushed_multi(base: str, tag: str, *platforms: Image) -> bytes:
    """An index which holds the last image by itself and the others in an index of their own."""
    for image in platforms:
        for data in image.blobs:
            assert (await push_blob(base, "shared/app", data)).status == 201
        await put(base, image.digest, image.manifest, MANIFEST_TYPE)
    inner = index_of(*((image.manifest, MANIFEST_TYPE) for image in platforms[:-1]))
    await put(base, Digest.of(inner), inner, OCI_INDEX)
    outer = index_of((inner, OCI_INDEX), (platforms[-1].manifest, MANIFEST_TYPE))
    await put(base, tag, outer, OCI_INDEX)
    return outer


@pytest_twisted.async_yield_fixture
async def clusters(world, tmp_path) -> Any:
    """The first gives what is below `shared/` to the second."""
    second = await world(herd_config(tmp_path / "second" / "herd"), folder=tmp_path / "second")
    remotes = {f"127.0.0.1:{second.herd_config.build_index.port}": ["^shared/"]}
    config = evolved(herd_config(tmp_path / "first" / "herd"), build_index__remotes=remotes)
    yield await world(config, folder=tmp_path / "first"), second


async def _tells(base: str, tag: str, manifest: bytes) -> bool:
    return (await ask("GET", f"{base}/v2/shared/app/manifests/{tag}")).body == manifest


@pytest_twisted.ensureDeferred
async def test_s10_an_image_for_many_platforms_is_whole_in_the_second_cluster_before_its_tag(clusters) -> None:
    first, second = clusters
    platforms = [Image.make(number, 200_000, 10) for number in range(3)]
    index = await pushed_multi(first.proxy, "v1", *platforms)
    assert (await push(first.proxy, "own/app", "v1", Image.make(9, 10))).status == 201
    await until(lambda: _tells(second.proxy, "v1", index))
    await first.stop()  # at the very moment in which the tag is seen
    agent = await second.add_agent()
    for image in platforms:
        assert await pull(registry_of(agent), "shared/app", image.digest) == image
    assert (await ask("GET", f"{second.proxy}/v2/own/app/manifests/v1")).status == 404


@pytest_twisted.ensureDeferred
async def test_s11_a_tag_that_moved_moves_in_the_second_cluster_too(clusters) -> None:
    first, second = clusters
    agent = await second.add_agent()
    for number in range(3):
        image = Image.make(number, 1000)
        assert (await push(first.proxy, "shared/app", "prod", image)).status == 201
        began = reactor.seconds()
        await until(lambda image=image: _tells(registry_of(agent), "prod", image.manifest))
        assert reactor.seconds() - began < 5, "the stated bound between clusters that reach each other"
        assert await pull(registry_of(agent), "shared/app", "prod") == image
