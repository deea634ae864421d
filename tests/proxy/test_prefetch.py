"""What an image consists of, and having it fetched."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from attrs import define
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from krakentx.core.digest import Digest
from krakentx.core.errors import Busy, InvalidInput, NotFound, Unavailable
from krakentx.proxy.api import management_app
from krakentx.proxy.prefetch import Limits, Prefetcher, candidates, descriptors
from krakentx.web.metrics import Metrics
from krakentx.web.service import HttpService

LIMITS = Limits(0, 1 << 40, 4)


@pytest.mark.parametrize(
    ("text", "repositories"),
    [
        ("h:5000/a:1", ["a"]),
        ("h:5000/team/project/app:1", ["team/project/app"]),
        ("registry.example/a/b:1", ["a/b"]),
        ("host/a/b/c:1", ["a/b/c", "host/a/b/c"]),
        ("library/redis:1", ["library/redis", "redis"]),
        ("localhost/redis:1", ["redis"]),
    ],
)
def test_a_name_of_any_depth_is_understood(text: str, repositories: list[str]) -> None:
    assert candidates(text) == [(repository, "1") for repository in repositories]


@pytest.mark.parametrize("text", ["", "a", "a:1", "h/a", "h:5000/a", "h/A/b:1", "h/a/b:", "h/a/../b:1"])
def test_what_is_no_image_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        candidates(text)


@define
class Tags:
    names: dict[str, Digest]

    async def get(self, repo: str, tag: str) -> Digest:
        if f"{repo}:{tag}" not in self.names:
            raise NotFound("tag", f"{repo}:{tag}")
        return self.names[f"{repo}:{tag}"]


def _entry(data: bytes) -> dict[str, object]:
    return {"digest": str(Digest.of(data)), "size": len(data), "mediaType": "x"}


LAYERS = [bytes([n]) * 1000 * (n + 1) for n in range(3)]
IMAGE = json.dumps({"schemaVersion": 2, "config": _entry(b"{}"), "layers": [_entry(each) for each in LAYERS]}).encode()
INDEX = json.dumps({"schemaVersion": 2, "manifests": [_entry(IMAGE)]}).encode()
INDEX_OF_INDEX = json.dumps({"schemaVersion": 2, "manifests": [_entry(INDEX)]}).encode()
EVERYTHING = [b"{}", *LAYERS, IMAGE, INDEX, INDEX_OF_INDEX]


@pytest.fixture
def prefetcher(origins) -> Prefetcher:
    for data in EVERYTHING:
        origins.add("deep/er/app", data)
    return Prefetcher(origins, Tags({"deep/er/app:1": Digest.of(INDEX_OF_INDEX)}), LIMITS, reactor)


def _got(origins) -> set[Digest]:
    assert len(set(origins.prefetched)) == len(origins.prefetched)
    return {digest for namespace, digest in origins.prefetched if namespace == "deep/er/app"}


@pytest_twisted.ensureDeferred
async def test_all_of_a_nested_index_is_fetched_once(prefetcher, origins) -> None:
    await prefetcher.prefetch("host.example/deep/er/app:1", wait=True)
    assert _got(origins) == {Digest.of(data) for data in EVERYTHING}


@pytest_twisted.ensureDeferred
async def test_blobs_outside_of_the_limits_are_left(prefetcher, origins) -> None:
    prefetcher.limits = Limits(1500, 2500, 4)
    await prefetcher.prefetch("host.example/deep/er/app:1", wait=True)
    assert _got(origins) == {Digest.of(LAYERS[1])}


@pytest_twisted.ensureDeferred
async def test_one_blob_that_fails_fails_the_whole(prefetcher, origins) -> None:
    del origins.blobs["deep/er/app", Digest.of(LAYERS[0])]
    with pytest.raises(Unavailable, match="1 of 7"):
        await prefetcher.prefetch("host.example/deep/er/app:1", wait=True)


@pytest_twisted.ensureDeferred
async def test_a_pushed_image_brings_what_it_refers_to(prefetcher, origins) -> None:
    await prefetcher.pushed("deep/er/app", Digest.of(IMAGE))
    await prefetcher.stopService()
    assert _got(origins) == {Digest.of(data) for data in [b"{}", *LAYERS]}


@pytest.fixture
def post(start, fetch, prefetcher):
    async def ask(path: str, body: object) -> tuple[int, bytes]:
        async def fine() -> None:
            return None

        app = management_app(prefetcher=prefetcher, metrics=Metrics("proxy"), ready={"x": fine}, reactor=reactor)
        server = await start(HttpService("proxy", app.resource(), 0, "127.0.0.1", reactor=reactor))
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await fetch("POST", f"http://127.0.0.1:{server.port_number}{path}", data=data)
        return answer.status, answer.body

    return ask


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_the_routes_answer_as_the_reference(post, origins, version) -> None:
    status, body = await post(f"/proxy/{version}/registry/prefetch", {"tag": "host/deep/er/app:1", "trace_id": "t"})
    assert status == 200
    assert json.loads(body) == {
        "tag": "app:1",
        "prefetched": True,
        "status": "success",
        "message": "prefetching initiated successfully",
        "trace_id": "t",
    }
    await deferLater(reactor, 0.01)
    assert _got(origins) == {Digest.of(data) for data in EVERYTHING}


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), ([], 400), ({}, 400), ({"tag": "x"}, 400), ({"tag": "h/a/b:none"}, 404)],
)
async def test_a_prefetch_that_cannot_be_is_told_why(post, body, status) -> None:
    got, answer = await post("/proxy/v2/registry/prefetch", body)
    assert got == status
    told = json.loads(answer)
    assert told["prefetched"] is False and told["status"] == "failure" and told["message"]


@pytest_twisted.ensureDeferred
async def test_notifications_are_taken_and_what_is_odd_is_passed_over(post, origins) -> None:
    kind = "application/vnd.oci.image.manifest.v1+json"
    target = {"mediaType": kind, "repository": "deep/er/app", "digest": str(Digest.of(IMAGE))}
    events = [
        {"action": "push"},
        {"action": "pull", "target": target},
        {"action": "push", "target": {**target, "mediaType": "application/vnd.oci.image.index.v1+json"}},
        {"action": "push", "target": {**target, "repository": "../x"}},
        7,
        {"action": "push", "target": target},
    ]
    assert await post("/registry/notifications", {"events": events}) == (200, b"")
    await deferLater(reactor, 0.01)
    assert _got(origins) == {Digest.of(data) for data in [b"{}", *LAYERS]}


@pytest_twisted.ensureDeferred
async def test_a_notification_that_is_no_json_is_refused(post) -> None:
    assert (await post("/registry/notifications", b"{"))[0] == 400


@pytest_twisted.ensureDeferred
async def test_notifications_without_end_are_refused_some_time(prefetcher, origins, monkeypatch) -> None:
    monkeypatch.setattr("krakentx.proxy.prefetch._MAX_RUNNING", 3)
    monkeypatch.setattr(type(origins), "prefetch", _never)
    for _ in range(3):
        await prefetcher.pushed("deep/er/app", Digest.of(IMAGE))
    with pytest.raises(Busy):
        await prefetcher.pushed("deep/er/app", Digest.of(IMAGE))
    await prefetcher.stopService()


async def _never(*_arguments: object) -> None:
    await Deferred()


def test_a_size_beyond_all_numbers_is_an_unreadable_manifest() -> None:
    entry = f'{{"digest": "{Digest.of(b"")}", "size": 1e999}}'
    with pytest.raises(InvalidInput):
        descriptors(f'{{"layers": [{entry}]}}'.encode())
