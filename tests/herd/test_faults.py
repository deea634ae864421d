"""Parts that are down, unreachable, or full: pulls go on, and statuses are true."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from krakentx.backend.config import BackendChoice, BackendConfig
from krakentx.backend.config import TestfsConfig as TestfsBackend
from krakentx.core.digest import Digest
from krakentx.origin.config import RefreshConfig
from krakentx.testfs.config import TestfsConfig
from krakentx.testfs.service import build as build_testfs
from tests.herd.world import (
    Image,
    ask,
    evolved,
    herd_config,
    pull,
    push,
    push_blob,
    registry_of,
    until,
)
from tests.ports import free_ports

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

MIB = 1 << 20
FIRST_BYTE_S = 5.0


async def _pulled(base: str, image: Image) -> float:
    """Pull the first layer; seconds until its first byte."""
    layer = image.layers[0]
    answer = await ask("GET", f"{base}/v2/a/blobs/{Digest.of(layer)}")
    assert (answer.status, answer.body) == (200, layer), answer.body[:200]
    return answer.first_s


# An address that takes packets and never answers is what a firewall that drops looks like.
@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("address", ["192.0.2.254", "127.0.0.1"], ids=["dropped", "refused"])
async def test_a_pull_needs_no_peer_port_of_the_origin(world, tmp_path, address) -> None:
    one = await world(herd_config(tmp_path / "herd", peer_ip=address))
    if address == "127.0.0.1":
        await one.herd.origin.scheduler.disownServiceParent()
    await one.add_agent()
    image = Image.make(1, 8 * MIB)
    await push(one.proxy, "a", "v1", image)
    assert await _pulled(registry_of(one.agents[0]), image) < FIRST_BYTE_S
    counters = one.agents[0].scheduler.counters
    assert counters.received_fallback_bytes == 8 * MIB
    # The next agent has a peer, and takes most of it from there.
    second = await one.add_agent()
    assert await _pulled(registry_of(second), image) < FIRST_BYTE_S
    assert second.scheduler.counters.received_peers_bytes > 0


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "says nothing"])
async def test_a_pull_needs_no_tracker(world, silent) -> None:
    one = await world()
    await one.add_agent()
    image = Image.make(2, 8 * MIB)
    await push(one.proxy, "a", "v1", image)
    await one.herd.tracker.http.disownServiceParent()
    if silent:
        mute = reactor.listenTCP(one.herd_config.tracker.port, _Mute(), interface="127.0.0.1")
    try:
        assert await _pulled(registry_of(one.agents[0]), image) < FIRST_BYTE_S
    finally:
        if silent:
            await mute.stopListening()


def _Mute():
    from twisted.internet.protocol import Factory, Protocol

    return Factory.forProtocol(Protocol)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("status", "code"), [(503, "UNAVAILABLE"), (404, None)])
async def test_s23_without_the_herd_an_agent_says_so_and_soon(world, status, code) -> None:
    one = await world()
    agent = await one.add_agent(outage_status=status)
    image = Image.make(3, 1000, MIB)
    await push(one.proxy, "a", "v1", image)
    base = registry_of(agent)
    await _pulled(base, image)
    await one.end(one.herd)
    began = reactor.seconds()
    for path in ("manifests/v1", f"blobs/{Digest.of(image.layers[1])}", "tags/list"):
        answer = await ask("GET", f"{base}/v2/a/{path}")
        assert answer.status == status, (path, answer.body)
        assert answer.json()["errors"][0]["code"] == code or code is None
    assert reactor.seconds() - began < 5
    await _pulled(base, image)  # what is in the cache needs nobody


@pytest_twisted.ensureDeferred
async def test_s03_an_outage_of_the_backend_is_503_and_over_when_it_is_over(world, tmp_path) -> None:
    (port,) = free_ports(1)

    def backend(root: str, kind: str) -> list[BackendConfig]:
        return [BackendConfig(BackendChoice(TestfsBackend(f"127.0.0.1:{port}", root, kind)))]

    config = evolved(
        herd_config(tmp_path / "herd"),
        origin__backends=backend("blobs", "identity"),
        origin__blobrefresh=RefreshConfig(error_ttl_s=0.5),
        build_index__backends=backend("tags", "docker_tag"),
    )
    stored = TestfsConfig(port=port, data_dir=tmp_path / "testfs")
    one = await world(config)
    testfs = await one.run(build_testfs(stored, reactor=reactor))
    image = Image.make(4, 100_000)
    await push(one.proxy, "a", "v1", image)
    files = tmp_path / "testfs" / "files"
    await until(lambda: len([path for path in files.rglob("*") if path.is_file()]) == 4)
    await one.end(one.herd)
    shutil.rmtree(tmp_path / "herd")
    await one.end(testfs)

    one.herd = await one.run(_rebuilt(config))
    agent = await one.add_agent()
    for base in (one.proxy, registry_of(agent)):
        for path in ("manifests/v1", f"blobs/{Digest.of(image.layers[0])}"):
            answer = await ask("GET", f"{base}/v2/a/{path}")
            assert answer.status == 503, (base, path, answer.status, answer.body)
    assert (await push(one.proxy, "a", "v2", Image.make(5, 100))).status == 201  # pushes go on meanwhile
    await one.run(build_testfs(stored, reactor=reactor))
    # A failure is told for some seconds to those who were sent away and ask again, and then no more.
    for path in ("manifests/v1", *(f"blobs/{Digest.of(data)}" for data in image.blobs)):
        await until(lambda path=path: _answers(f"{registry_of(agent)}/v2/a/{path}"), limit_s=10)
    assert await pull(registry_of(agent), "a", "v1") == image
    assert await pull(one.proxy, "a", "v1") == image


def _rebuilt(config):
    from krakentx.herd.service import build

    return build(config, reactor=reactor, rng=random.Random(2))


async def _answers(url: str) -> bool:
    return (await ask("GET", url)).status == 200


# ---- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _big_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > MIB]


@pytest_twisted.ensureDeferred
async def test_s08_a_disk_that_fills_while_pushing_is_507_and_nothing_stays(world, small_disk) -> None:
    one = await world(herd_config(small_disk))
    data = Image.make(6, 20 * MIB).layers[0]
    begun = await ask("POST", f"{one.proxy}/v2/a/blobs/uploads/", b"")
    place = one.proxy + begun.header("Location")
    answer = await ask("PATCH", place, data)
    assert answer.status == 507
    assert answer.json()["errors"][0]["code"] == "UNAVAILABLE"
    assert (await ask("DELETE", place)).status == 204
    assert _big_files(small_disk) == []
    small = Image.make(7, MIB)
    assert (await push(one.proxy, "a", "v1", small)).status == 201
    assert await pull(one.proxy, "a", "v1") == small


@pytest_twisted.ensureDeferred
async def test_s08_a_disk_that_fills_while_pulling_is_507_and_nothing_stays(world, small_disk) -> None:
    one = await world()
    agent = await one.add_agent(data_dir=small_disk)
    big, small = Image.make(8, 20 * MIB), Image.make(9, MIB)
    await push(one.proxy, "a", "big", big)
    await push(one.proxy, "a", "small", small)
    base = registry_of(agent)
    answer = await ask("GET", f"{base}/v2/a/blobs/{Digest.of(big.layers[0])}")
    assert answer.status == 507, answer.body[:200]
    assert _big_files(small_disk) == []
    assert await pull(base, "a", "small") == small


@pytest_twisted.ensureDeferred
async def test_s08_a_disk_that_others_fill_in_the_midst_of_a_pull_cuts_it(world, small_disk) -> None:
    one = await world()
    agent = await one.add_agent(data_dir=small_disk)
    image = Image.make(10, 6 * MIB)
    await push(one.proxy, "a", "v1", image)
    # 6 MiB are free when it begins: it is let in, and others take the room at once.
    url = f"{registry_of(agent)}/v2/a/blobs/{Digest.of(image.layers[0])}"
    (small_disk / "others").write_bytes(b"x" * MIB)
    waiting = ask("GET", url)
    from twisted.internet.defer import Deferred

    pulling = Deferred.fromCoroutine(waiting)
    await until(lambda: list((small_disk / "download").rglob("data")))
    with open(small_disk / "others", "ab", buffering=0) as others:
        try:
            while others.write(b"x" * 65536) == 65536:
                pass
        except OSError:
            pass
    answer = await pulling
    assert answer.status == 507 or not answer.whole or answer.body == image.layers[0]
    (small_disk / "others").unlink()
    await until(lambda: _answers(url), limit_s=20)
    assert await pull(registry_of(agent), "a", "v1") == image


@pytest_twisted.ensureDeferred
async def test_a_push_that_is_cut_can_be_taken_up_again(world) -> None:
    one = await world()
    data = Image.make(11, 2 * MIB).layers[0]
    begun = await ask("POST", f"{one.proxy}/v2/a/blobs/uploads/", b"")
    place = one.proxy + begun.header("Location")
    await ask("PATCH", place, data[:MIB])
    status = await ask("GET", place)
    got = int(status.header("Range").partition("-")[2]) + 1
    assert got == MIB
    await ask("PATCH", place, data[got:], {"Content-Range": f"{got}-{len(data) - 1}"})
    done = await ask("PUT", f"{place}?digest={Digest.of(data)}", b"")
    assert done.status == 201
    assert (await push_blob(one.proxy, "b", data)).status == 201
