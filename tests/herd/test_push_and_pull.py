"""The main job in one process: what is pushed to the proxy is pulled through agents."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from krakentx.core.digest import Digest
from tests.herd.world import (
    MANIFEST_TYPE,
    PIECE,
    Chunks,
    Image,
    ask,
    management_of,
    pull,
    push,
    push_blob,
    registry_of,
    until,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

MIB = 1 << 20


async def both(*work):
    return await gatherResults([Deferred.fromCoroutine(each) for each in work], consumeErrors=True)


@pytest_twisted.ensureDeferred
async def test_what_was_pushed_is_pulled_and_the_second_agent_gets_it_from_the_first(world, logs) -> None:
    one = await world(agents=2)
    first, second = one.agents
    image = Image.make(1, 3 * MIB + 7, 100, 0)
    assert (await push(one.proxy, "company/app", "v1", image)).status == 201
    assert await pull(one.proxy, "company/app", "v1") == image

    assert await pull(registry_of(first), "company/app", "v1") == image
    origin = one.herd.origin.scheduler.counters
    before = origin.sent_bytes
    assert before >= 3 * MIB
    assert await pull(registry_of(second), "company/app", "v1") == image
    sent = first.scheduler.counters
    assert sent.sent_bytes >= 0.95 * (3 * MIB)
    assert origin.sent_bytes - before <= 0.05 * (3 * MIB)
    for counters in (origin, sent):
        assert counters.sent_sendfile_bytes >= 0.95 * counters.sent_bytes

    tags = await ask("GET", f"{registry_of(second)}/v2/company/app/tags/list")
    assert tags.json() == {"name": "company/app", "tags": ["v1"]}
    catalog = await ask("GET", f"{one.proxy}/v2/_catalog")
    assert catalog.json() == {"repositories": ["company/app"]}


@pytest_twisted.ensureDeferred
async def test_agents_refuse_pushes_in_the_words_of_a_registry(world) -> None:
    one = await world(agents=1)
    answer = await ask("POST", f"{registry_of(one.agents[0])}/v2/a/blobs/uploads/", b"")
    assert answer.status == 405
    assert answer.json()["errors"][0]["code"] == "UNSUPPORTED"


@pytest_twisted.ensureDeferred
async def test_s22_head_tells_the_size_and_downloads_nothing(world) -> None:
    one = await world(agents=1)
    image = Image.make(2, 2 * MIB)
    await push(one.proxy, "a", "v1", image)
    base = registry_of(one.agents[0])
    digest = Digest.of(image.layers[0])
    head = await ask("HEAD", f"{base}/v2/a/blobs/{digest}")
    assert (head.status, head.header("Content-Length")) == (200, str(2 * MIB))
    assert head.header("Docker-Content-Digest") == str(digest)
    assert one.agents[0].scheduler.counters.received_peers_bytes == 0
    assert one.agents[0].cache.stat(digest) is None
    head = await ask("HEAD", f"{base}/v2/a/manifests/v1")
    assert head.header("Docker-Content-Digest") == str(image.digest)
    assert head.header("Content-Type") == MANIFEST_TYPE
    assert head.header("Content-Length") == str(len(image.manifest))


@pytest_twisted.ensureDeferred
async def test_a_cold_pull_gives_its_first_byte_quickly_and_ranges_too(world) -> None:
    one = await world(agents=1)
    image = Image.make(3, 24 * MIB)
    await push(one.proxy, "a", "v1", image)
    base, layer = registry_of(one.agents[0]), image.layers[0]
    url = f"{base}/v2/a/blobs/{Digest.of(layer)}"
    part = await ask("GET", url, headers={"Range": f"bytes={20 * MIB}-{20 * MIB + 99}"})
    assert (part.status, part.body) == (206, layer[20 * MIB : 20 * MIB + 100])
    whole = await ask("GET", url)
    assert whole.body == layer and whole.first_s < 1.0


@pytest_twisted.ensureDeferred
async def test_what_is_absent_is_404_and_bad_input_has_its_status(world) -> None:
    one = await world(agents=1)
    unknown = Digest.of(b"nobody has this")
    for base in (one.proxy, registry_of(one.agents[0])):
        for method in ("HEAD", "GET"):
            assert (await ask(method, f"{base}/v2/a/blobs/{unknown}")).status == 404
            assert (await ask(method, f"{base}/v2/a/manifests/none")).status == 404
        answer = await ask("GET", f"{base}/v2/a/blobs/{unknown}")
        assert answer.json()["errors"][0]["code"] == "BLOB_UNKNOWN"
        answer = await ask("GET", f"{base}/v2/a/manifests/none")
        assert answer.json()["errors"][0]["code"] == "MANIFEST_UNKNOWN"
        assert (await ask("GET", f"{base}/v2/a/blobs/sha256:bad")).status == 400
        assert (await ask("GET", f"{base}/v2/UPPER/manifests/x")).status == 400
    begun = await ask("POST", f"{one.proxy}/v2/a/blobs/uploads/", b"")
    place = one.proxy + begun.header("Location")
    assert (await ask("PATCH", place, b"abc", {"Content-Range": "3-5"})).status == 416
    patched = await ask("PATCH", place, b"abc", {"Content-Range": "0-2"})
    assert (patched.status, patched.header("Range")) == (202, "0-2")
    wrong = await ask("PUT", f"{one.proxy}{patched.header('Location')}?digest={unknown}", b"")
    assert (wrong.status, wrong.json()["errors"][0]["code"]) == (400, "DIGEST_INVALID")
    big = json.dumps({"schemaVersion": 2, "fill": "x" * (5 * MIB)}).encode()
    answer = await ask("PUT", f"{one.proxy}/v2/a/manifests/big", Chunks(big), {"Content-Type": MANIFEST_TYPE})
    assert answer.status == 413
    missing = Image.make(4, 10)
    answer = await ask("PUT", f"{one.proxy}/v2/a/manifests/v", missing.manifest, {"Content-Type": MANIFEST_TYPE})
    assert answer.status == 400


@pytest_twisted.ensureDeferred
async def test_s11_a_tag_that_moved_is_seen_by_every_agent_at_once(world) -> None:
    one = await world(agents=2)
    old, new = Image.make(5, 1000), Image.make(6, 2000)
    await push(one.proxy, "a", "prod", old)
    assert await pull(registry_of(one.agents[0]), "a", "prod") == old
    await push(one.proxy, "a", "prod", new)
    for agent in one.agents:
        assert await pull(registry_of(agent), "a", "prod") == new
    by_digest = await ask("GET", f"{registry_of(one.agents[1])}/v2/a/manifests/{old.digest}")
    assert by_digest.body == old.manifest


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("pushed", "asked"), [("postgres", "library/postgres"), ("library/postgres", "postgres")])
async def test_s04_short_names_of_docker_io_are_found_either_way(world, pushed, asked) -> None:
    one = await world(agents=1)
    image = Image.make(7, 1000)
    await push(one.proxy, pushed, "14", image)
    assert await pull(registry_of(one.agents[0]), asked, "14") == image
    answer = await ask("GET", f"{registry_of(one.agents[0])}/v2/{asked}/manifests/14?ns=docker.io")
    assert answer.body == image.manifest


@pytest_twisted.ensureDeferred
async def test_s27_twenty_pushes_of_one_blob_at_once_leave_one_copy(world) -> None:
    one = await world(agents=0)
    data = Image.make(8, 300_000).layers[0]
    answers = await both(*(push_blob(one.proxy, f"repo{n % 3}", data) for n in range(20)))
    assert [answer.status for answer in answers] == [201] * 20
    got = await ask("GET", f"{one.proxy}/v2/repo1/blobs/{Digest.of(data)}")
    assert got.body == data
    assert len(one.herd.proxy.uploads) == 0
    folder = one.herd_config.data_dir
    assert list((folder / "proxy").rglob("data")) == []
    copies = [path for path in (folder / "origin").rglob("data") if path.stat().st_size == len(data)]
    assert len(copies) == 1


@pytest_twisted.ensureDeferred
async def test_a_restart_keeps_everything_that_was_acknowledged(world) -> None:
    one = await world(agents=1)
    image = Image.make(9, MIB, 5)
    await push(one.proxy, "a", "v1", image)
    assert await pull(registry_of(one.agents[0]), "a", "v1") == image
    begun = await ask("POST", f"{one.proxy}/v2/a/blobs/uploads/", b"")
    await ask("PATCH", one.proxy + begun.header("Location"), b"x" * 1000)
    await one.restart_herd()
    status = await ask("GET", one.proxy + begun.header("Location"))
    assert (status.status, status.header("Range")) == (204, "0-999")
    agent = await one.restart_agent(0)
    assert await pull(registry_of(agent), "a", "v1") == image
    assert agent.scheduler.counters.received_peers_bytes == 0
    fresh = await one.add_agent()
    assert await pull(registry_of(fresh), "a", "v1") == image


@pytest_twisted.ensureDeferred
async def test_the_management_port_of_an_agent(world) -> None:
    one = await world(agents=1)
    image = Image.make(10, 5 * PIECE)
    await push(one.proxy, "test/app", "v1", image)
    base, digest = management_of(one.agents[0]), Digest.of(image.layers[0])
    assert (await ask("GET", f"{base}/health")).body == b"OK"
    await until(lambda: _ready(base))
    for tag in ("test%2Fapp:v1", "test%2Fapp%3Av1", "test%252Fapp%253Av1"):
        assert (await ask("GET", f"{base}/tags/{tag}")).body == str(image.digest).encode()
    absent = await ask("GET", f"{base}/tags/test%2Fapp:none")
    assert (absent.status, absent.body) == (404, b"")
    for name in (digest.hex, str(digest)):
        blob = await ask("GET", f"{base}/namespace/test%2Fapp/blobs/{name}")
        assert (blob.status, blob.body) == (200, image.layers[0])
        assert blob.length == len(image.layers[0])
    assert (await ask("GET", f"{base}/namespace/a/blobs/{Digest.of(b'?').hex}")).status == 404
    assert (await ask("GET", f"{base}/x/blacklist")).json() == []
    assert (await ask("PATCH", f"{base}/x/config/scheduler", b'{"SeederTTI": 1000000000}')).status == 200
    for bad in (b"{", b'{"SeederTTI": "5m"}'):
        assert (await ask("PATCH", f"{base}/x/config/scheduler", bad)).status == 400
    metrics = (await ask("GET", f"{base}/metrics")).body
    assert b"kraken_agent_peer_received_peers_bytes" in metrics
    assert (await ask("DELETE", f"{base}/blobs/{digest}")).status == 200
    assert one.agents[0].cache.stat(digest) is None


async def _ready(base: str) -> bool:
    return (await ask("GET", f"{base}/readiness")).status == 200


@pytest_twisted.ensureDeferred
async def test_the_management_port_of_the_proxy(world) -> None:
    one = await world()
    image = Image.make(11, 1000, 2000)
    await push(one.proxy, "deep/er/app", "v1", image)
    base = f"http://127.0.0.1:{one.herd_config.proxy.server.port}"
    assert (await ask("GET", f"{base}/health")).body == b"OK\n"
    assert (await ask("GET", f"{base}/readiness")).status == 200
    for version in ("v1", "v2"):
        body = json.dumps({"tag": "registry.example/deep/er/app:v1"}).encode()
        answer = await ask("POST", f"{base}/proxy/{version}/registry/prefetch", body)
        assert (answer.status, answer.json()["prefetched"]) == (200, True)
    assert b"kraken_proxy_http_requests" in (await ask("GET", f"{base}/metrics")).body


@pytest_twisted.ensureDeferred
async def test_each_pushed_image_is_one_line_of_the_log(world, logs) -> None:
    one = await world()
    for number in range(3):
        await push(one.proxy, "a", f"v{number}", Image.make(number, 100))
    told = [event for event in logs if "push" in (event.get("log_format") or "")]
    assert len(told) == 3


@pytest_twisted.ensureDeferred
async def test_networks_that_are_not_allowed_are_told_the_key(world) -> None:
    one = await world()
    agent = await one.add_agent(allowed_cidrs=("10.0.0.0/8",), admin_cidrs=("10.0.0.0/8",))
    answer = await ask("GET", f"{registry_of(agent)}/v2/")
    assert answer.status == 403
    (error,) = answer.json()["errors"]
    assert error["code"] == "DENIED" and "allowed_cidrs" in error["message"]
    answer = await ask("DELETE", f"{management_of(agent)}/blobs/{Digest.of(b'')}")
    assert (answer.status, b"admin_cidrs" in answer.body) == (403, True)
    assert (await ask("PATCH", f"{management_of(agent)}/x/config/scheduler", b"{}")).status == 403
    assert (await ask("GET", f"{management_of(agent)}/health")).status == 200
