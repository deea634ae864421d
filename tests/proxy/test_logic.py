"""Pushes end with the origins, or leave nothing."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput, NotFound, Unavailable
from krakentx.proxy.logic import Blobs, Push, PushedTags

DATA = bytes(range(256)) * 1000
DIGEST = Digest.of(DATA)


@pytest.fixture(params=[True, False], ids=["remote", "herd"])
def push(request, origins, store, uploads) -> Push:
    return Push(origins, store, uploads, keep=request.param)


async def _push(push: Push, repo: str, data: bytes = DATA, digest: Digest = DIGEST) -> None:
    upload = await push.begin(repo)
    await upload.write(data)
    await push.finish(repo, await push.resume(repo, upload.id), digest)


@pytest_twisted.ensureDeferred
async def test_a_finished_push_is_the_origins_under_the_name_of_its_repository(push, origins, store, uploads) -> None:
    await _push(push, "company/app")
    assert origins.blobs == {("company/app", DIGEST): DATA}
    assert (store.stat(DIGEST) is not None) == push.keep
    assert not push.keep or not store.is_persisted(DIGEST)
    assert len(uploads) == 0


@pytest_twisted.ensureDeferred
async def test_s02_what_no_origin_takes_is_not_there(push, origins, store, uploads) -> None:
    origins.trouble = Unavailable("every one of 3 hosts", "a: answered 504; b: no answer")
    with pytest.raises(Unavailable):
        await _push(push, "a")
    assert store.stat(DIGEST) is None and len(uploads) == 0
    origins.trouble = None
    with pytest.raises(NotFound):
        await Blobs(origins).stat("a", DIGEST)
    await _push(push, "a")
    assert await Blobs(origins).stat("a", DIGEST) == len(DATA)


@pytest_twisted.ensureDeferred
async def test_wrong_bytes_never_reach_the_origins(push, origins, store, uploads) -> None:
    with pytest.raises(InvalidInput):
        await _push(push, "a", DATA[:-1])
    assert origins.taken == 0 and store.stat(DIGEST) is None and len(uploads) == 0


@pytest_twisted.ensureDeferred
async def test_s27_twenty_pushes_of_one_blob_are_one_hand_over_and_leave_one_copy(
    push, origins, store, uploads
) -> None:
    origins.gate = Deferred()
    pushes = [Deferred.fromCoroutine(_push(push, "a")) for _ in range(20)]
    while not origins.taken or list(uploads.root.iterdir()):
        await _turn()
    await _turn()
    origins.gate.callback(None)
    await gatherResults(pushes)
    assert origins.taken == 1
    assert len(list(store.records())) == int(push.keep)


@pytest_twisted.ensureDeferred
async def test_each_repository_hands_over_its_own(push, origins) -> None:
    origins.gate = Deferred()
    pushes = [Deferred.fromCoroutine(_push(push, repo)) for repo in ("a", "b")]
    while origins.taken < 2:
        await _turn()
    origins.gate.callback(None)
    await gatherResults(pushes)
    assert set(origins.blobs) == {("a", DIGEST), ("b", DIGEST)}


@pytest_twisted.ensureDeferred
async def test_a_manifest_goes_the_same_way(push, origins, uploads) -> None:
    await push.put("a", Digest.of(b"{}"), b"{}")
    assert origins.blobs == {("a", Digest.of(b"{}")): b"{}"} and len(uploads) == 0


@pytest_twisted.ensureDeferred
async def test_a_mount_asks_the_origins(push, origins) -> None:
    origins.blobs["source", DIGEST] = DATA
    assert await push.mount("a", DIGEST, "source")
    assert not await push.mount("a", DIGEST, None)


@pytest_twisted.ensureDeferred
async def test_the_next_start_drops_what_was_never_acknowledged(push, store, uploads) -> None:
    upload = await uploads.create()
    await upload.write(DATA)
    await upload.finish(DIGEST)  # and then the process died
    assert store.is_persisted(DIGEST)
    await push.drop(push.leftovers())
    assert store.stat(DIGEST) is None


@pytest_twisted.ensureDeferred
async def test_the_log_tells_of_a_push_once(logs) -> None:
    class Tags:
        async def put(self, repo: str, tag: str, digest: Digest) -> None:
            return None

    await PushedTags(Tags()).put("company/app", "v1", DIGEST)
    told = [event["log_format"] for event in logs if "push" in event.get("log_format", "")]
    assert told == ["push of {repo}:{tag} complete: {digest}"]


def _turn() -> Deferred[None]:
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    return deferLater(reactor, 0.005)
