"""Bad input, the read-only face, parts that are down, and transfers that break."""

from __future__ import annotations

import inspect
import json
import os
import resource
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from krakentx.core.digest import Digest
from krakentx.core.errors import Corrupt, Unavailable
from krakentx.registry.api import registry_app
from krakentx.registry.interfaces import IBlobs, IPush, ITags
from krakentx.registry.media import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from krakentx.storage.interfaces import IBlobReader, IUpload

ensure = pytest_twisted.ensureDeferred
INDEX = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()


def seconds(amount: float) -> Deferred[None]:
    from twisted.internet import reactor

    return deferLater(reactor, amount, lambda: None)  # type: ignore[arg-type]


def code_of(answer: Any) -> str:
    assert answer.header("Content-Type") == "application/json"
    return str(answer.json()["errors"][0]["code"])


def port_of(client: Any) -> int:
    return int(client.url.rpartition(":")[2])


@ensure
async def test_the_fakes_have_what_the_interfaces_name(memory: Any, tags_of: Any) -> None:
    reader = memory.make_reader(Digest.of(b""), b"")
    reader.close()
    upload = await memory.begin("a")
    for fake, face in (
        (memory, IBlobs),
        (memory, IPush),
        (tags_of(memory), ITags),
        (reader, IBlobReader),
        (upload, IUpload),
    ):
        for name, wanted in vars(face).items():
            if not name.startswith("_") and callable(wanted):
                ours = list(inspect.signature(getattr(fake, name)).parameters)
                assert ours == list(inspect.signature(wanted).parameters)[1:], (face, name)


# -- names


@ensure
@pytest.mark.parametrize(
    "name", ["UPPER", "a/..", "../a", "a//b", "a__b___c", "-a", "a.", "a%20b", "%C3%A4", "a" * 300, "a%2F..%2Fb", "%ff"]
)
async def test_a_bad_name_is_refused_on_every_route(registry: Any, name: str) -> None:
    digest = Digest.of(b"x")
    for method, path in (
        ("GET", "manifests/latest"),
        ("PUT", "manifests/latest"),
        ("GET", f"blobs/{digest}"),
        ("POST", "blobs/uploads/"),
        ("PATCH", "blobs/uploads/x"),
        ("GET", "tags/list"),
        ("GET", f"referrers/{digest}"),
    ):
        answer = await registry(method, f"/v2/{name}/{path}", b"" if method in ("PUT", "POST", "PATCH") else None)
        assert (answer.status, code_of(answer)) == (400, "NAME_INVALID"), (method, path)


@ensure
@pytest.mark.parametrize("tag", [".x", "-x", "a%20b", "x" * 129, "a%2Cb"])
async def test_a_bad_tag_is_refused(registry: Any, tag: str) -> None:
    for method in ("GET", "PUT"):
        answer = await registry(method, f"/v2/a/manifests/{tag}", INDEX if method == "PUT" else None)
        assert (answer.status, code_of(answer)) == (400, "TAG_INVALID")


@ensure
async def test_names_of_the_routes_own_words_work(registry: Any) -> None:
    for repo in ("a/blobs/b", "manifests/manifests", "tags/list"):
        assert (await registry("PUT", f"/v2/{repo}/manifests/tags", INDEX, Content_Type=OCI_INDEX)).status == 201
        assert (await registry("GET", f"/v2/{repo}/manifests/tags")).body == INDEX
        assert (await registry("GET", f"/v2/{repo}/tags/list")).json() == {"name": repo, "tags": ["tags"]}


@ensure
async def test_an_escaped_name_is_the_same_name(registry: Any) -> None:
    await registry("PUT", "/v2/a/b/manifests/t", INDEX, Content_Type=OCI_INDEX)
    assert (await registry("GET", "/v2/a%2Fb/manifests/t")).body == INDEX


@ensure
async def test_unknown_routes_and_methods_answer_in_json(registry: Any) -> None:
    for path in ("/v1/_ping", "/", "/v2/a", "/v2/a/b/c", "/v2/manifests/x"):
        answer = await registry("GET", path)
        assert answer.status == 404 and code_of(answer)
    for method, path in (("DELETE", "/v2/a/manifests/t"), ("DELETE", f"/v2/a/blobs/{Digest.of(b'')}")):
        answer = await registry(method, path)
        assert (answer.status, code_of(answer)) == (405, "UNSUPPORTED")
        assert "GET" in answer.header("Allow")
    assert (await registry("POST", "/v2/a/tags/list", b"")).status == 405


# -- the read-only registry


@ensure
async def test_pushes_to_the_agent_are_told_where_to_go(agent: Any, memory: Any) -> None:
    digest = Digest.of(b"x")
    for method, path in (
        ("POST", "/v2/a/blobs/uploads/"),
        ("POST", f"/v2/a/blobs/uploads/?digest={digest}"),
        ("POST", f"/v2/a/blobs/uploads/?mount={digest}&from=b"),
        ("PATCH", "/v2/a/blobs/uploads/x"),
        ("PUT", f"/v2/a/blobs/uploads/x?digest={digest}"),
        ("PUT", "/v2/a/manifests/latest"),
    ):
        answer = await agent(method, path, b"x" * 100_000)
        assert (answer.status, code_of(answer)) == (405, "UNSUPPORTED")
        assert "15000" in answer.json()["errors"][0]["message"]
    assert not memory.uploads and not memory.blobs


@ensure
async def test_the_agent_serves_pulls(agent: Any, memory: Any) -> None:
    digest = Digest.of(INDEX)
    memory.blobs[digest] = INDEX
    memory.names["library/x"] = {"latest": digest}
    assert (await agent("GET", "/v2/library/x/manifests/latest")).body == INDEX
    assert (await agent("GET", f"/v2/library/x/blobs/{digest}")).body == INDEX
    assert (await agent("GET", "/v2/_catalog")).json() == {"repositories": ["library/x"]}


@ensure
async def test_head_of_a_blob_opens_nothing(agent: Any, memory: Any) -> None:
    memory.blobs[Digest.of(INDEX)] = INDEX
    answer = await agent("HEAD", f"/v2/a/blobs/{Digest.of(INDEX)}")
    assert (answer.status, answer.length, memory.opened) == (200, len(INDEX), [])


@ensure
async def test_the_catalog_comes_in_pages_with_a_proper_link(agent: Any, memory: Any) -> None:
    memory.names = {name: {} for name in ("a", "b/c", "d")}
    first = await agent("GET", "/v2/_catalog?n=2")
    assert first.json() == {"repositories": ["a", "b/c"]}
    assert first.header("Link") == '</v2/_catalog?n=2&last=b%2Fc>; rel="next"'
    second = await agent("GET", "/v2/_catalog?n=2&last=b%2Fc")
    assert (second.json(), second.header("Link")) == ({"repositories": ["d"]}, None)


@ensure
async def test_tags_of_a_repository_that_lost_its_last_one_are_no_null(agent: Any, memory: Any) -> None:
    memory.names["a"] = {}
    assert (await agent("GET", "/v2/a/tags/list")).json() == {"name": "a", "tags": []}


@ensure
async def test_a_part_that_is_down_is_503_and_never_404(registry: Any, memory: Any) -> None:
    digest = Digest.of(INDEX)
    location = await registry.begin("a")
    memory.down = True
    for method, path in (
        ("GET", "/v2/a/manifests/latest"),
        ("GET", f"/v2/a/manifests/{digest}"),
        ("GET", f"/v2/a/blobs/{digest}"),
        ("GET", "/v2/a/tags/list"),
        ("GET", "/v2/_catalog"),
        ("PUT", "/v2/a/manifests/latest"),
        ("PUT", f"{location}?digest={digest}"),
        ("HEAD", f"/v2/a/blobs/{digest}"),
    ):
        answer = await registry(method, path, INDEX if method == "PUT" else None)
        assert (answer.status, answer.header("Retry-After")) == (503, "1"), (method, path)
        assert method == "HEAD" or code_of(answer) == "UNAVAILABLE"
    memory.down = False
    assert (await registry("GET", f"/v2/a/blobs/{digest}")).status == 404


@ensure
async def test_s23_an_outage_may_be_told_as_absence_to_clients_that_go_on_only_then(
    memory: Any, tags_of: Any, serve: Any, client_of: Any
) -> None:
    app = registry_app(blobs=memory, tags=tags_of(memory), push=None, outage_is_absence=True)
    agent = client_of(f"http://127.0.0.1:{serve(app.resource()).port_number}")
    memory.down = True
    for path, code in (
        ("/v2/a/manifests/latest", "MANIFEST_UNKNOWN"),
        (f"/v2/a/manifests/{Digest.of(INDEX)}", "MANIFEST_UNKNOWN"),
        (f"/v2/a/blobs/{Digest.of(INDEX)}", "BLOB_UNKNOWN"),
        ("/v2/a/tags/list", "NAME_UNKNOWN"),
    ):
        answer = await agent("GET", path)
        assert (answer.status, code_of(answer)) == (404, code)
        assert "unavailable" in answer.json()["errors"][0]["message"], "the words tell the truth"
        assert (await agent("HEAD", path)).status == 404


# -- manifests


@ensure
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("over", "status"), [(-1, 201), (0, 201), (1, 413), (1 << 20, 413)])
async def test_the_limit_of_a_manifest(registry: Any, memory: Any, over: int, status: int, chunked: bool) -> None:
    value = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "annotations": {"a": ""}}
    room = (4 << 20) + over - len(json.dumps(value))
    data = json.dumps({**value, "annotations": {"a": "x" * room}}).encode()
    assert len(data) == (4 << 20) + over
    if chunked:
        said = await registry.chunked("PUT", "/v2/a/manifests/t", data[:100_000], data[100_000:])
        assert said.startswith(b"HTTP/1.1 %d" % status)
        assert status == 201 or b"SIZE_INVALID" in said
    else:
        answer = await registry("PUT", "/v2/a/manifests/t", data, Content_Type=OCI_INDEX)
        assert answer.status == status
    assert len(memory.blobs) == (status == 201)
    if status == 201:
        assert (await registry("GET", "/v2/a/manifests/t")).body == data


@ensure
async def test_a_manifest_without_its_blobs_is_refused_by_name(registry: Any, memory: Any) -> None:
    absent = Digest.of(b"absent")
    part = {"mediaType": "x/y", "digest": str(absent), "size": 6}
    data = json.dumps({"schemaVersion": 2, "config": part, "layers": []}).encode()
    answer = await registry("PUT", "/v2/a/manifests/t", data, Content_Type=OCI_MANIFEST)
    assert (answer.status, code_of(answer)) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert str(absent) in answer.json()["errors"][0]["message"]
    assert not memory.names, "the tag is put after the manifest is kept"


@ensure
@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b'{"schemaVersion": 2}'])
async def test_a_manifest_that_is_none(registry: Any, body: bytes) -> None:
    answer = await registry("PUT", "/v2/a/manifests/t", body)
    assert (answer.status, code_of(answer)) == (400, "MANIFEST_INVALID")


@ensure
async def test_a_refused_media_type_is_named(registry: Any) -> None:
    answer = await registry("PUT", "/v2/a/manifests/t", INDEX, Content_Type=DOCKER_MANIFEST)
    assert (answer.status, code_of(answer)) == (415, "MANIFEST_INVALID")
    assert DOCKER_MANIFEST in answer.json()["errors"][0]["message"]


@ensure
async def test_unknown_media_types_come_back_byte_for_byte(registry: Any) -> None:
    data = b'{ "mediaType":"application/vnd.acme.thing.v1+json",\n "x":1.10}\n'
    put = await registry("PUT", "/v2/a/manifests/t", data, Content_Type="application/vnd.acme.thing.v1+json")
    got = await registry("GET", "/v2/a/manifests/t")
    assert (put.status, got.body, got.header("Content-Type")) == (201, data, "application/vnd.acme.thing.v1+json")


@ensure
async def test_referrers_pushed_at_once_are_all_listed(registry: Any, memory: Any) -> None:
    subject = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(b"x", "sha512")), "size": 5}
    manifests = [json.dumps({**json.loads(INDEX), "subject": subject, "n": n}).encode() for n in range(10)]
    calls = [registry("PUT", f"/v2/a/manifests/{Digest.of(data)}", data, Content_Type=OCI_INDEX) for data in manifests]
    await gatherResults([Deferred.fromCoroutine(call) for call in calls])
    listed = (await registry("GET", f"/v2/a/referrers/{subject['digest']}")).json()["manifests"]
    assert {entry["digest"] for entry in listed} == {str(Digest.of(data)) for data in manifests}


@ensure
async def test_a_tag_in_the_place_of_referrers_is_no_trouble(registry: Any, memory: Any) -> None:
    subject = Digest.of(b"x")
    memory.names["a"] = {f"sha256-{subject.hex}": Digest.of(b"junk")}
    for junk in (b"junk", b"[]", b"[" * 50_000, b"{}", b'{"manifests": 5}', b'{"manifests": [1]}'):
        memory.blobs[Digest.of(b"junk")] = junk
        answer = await registry("GET", f"/v2/a/referrers/{subject}")
        assert (answer.status, answer.json()["manifests"]) == (200, [])


@ensure
async def test_a_layer_is_no_manifest(registry: Any) -> None:
    for data in (os.urandom(1000), b"x" * (5 << 20)):
        digest = await registry.push("a", data)
        answer = await registry("GET", f"/v2/a/manifests/{digest}")
        assert (answer.status, code_of(answer)) == (404, "MANIFEST_UNKNOWN")


# -- uploads that go wrong


@ensure
async def test_the_closing_put_needs_a_digest(registry: Any) -> None:
    location = await registry.begin("a")
    for query in ("", "?digest=", "?digest=sha256:abc", "?digest=md5:x"):
        answer = await registry("PUT", location + query, b"")
        assert (answer.status, code_of(answer)) == (400, "DIGEST_INVALID")
    assert (await registry("GET", location)).status == 204, "the session lives on"


@ensure
@pytest.mark.parametrize(
    ("where", "status", "code"),
    [("5-3", 400, "BLOB_UPLOAD_INVALID"), ("x", 400, "BLOB_UPLOAD_INVALID"), ("0-5", 400, "SIZE_INVALID")],
)
async def test_a_content_range_that_cannot_be(registry: Any, where: str, status: int, code: str) -> None:
    location = await registry.begin("a")
    answer = await registry("PATCH", location, b"abc", Content_Range=where)
    assert (answer.status, code_of(answer)) == (status, code)
    assert (await registry("GET", location)).header("Range") == "0-0"


@ensure
async def test_a_chunked_body_must_have_the_length_of_its_range(registry: Any) -> None:
    for body in (b"ab", b"abcd"):
        location = await registry.begin("a")
        said = await registry.chunked("PATCH", location, body, Content_Range="0-2")
        assert said.startswith(b"HTTP/1.1 400") and b"SIZE_INVALID" in said


@ensure
async def test_a_cut_upload_keeps_its_true_offset_and_goes_on(registry: Any, dial: Any) -> None:
    data = os.urandom(300_000)
    location = await registry.begin("a")
    raw = await dial(port_of(registry))
    raw.send(b"PATCH %b HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" % location.encode() + data[:100_000])
    await seconds(0.1)
    raw.drop()
    await seconds(0.1)
    told = await registry("GET", location)
    assert told.header("Range") == "0-99999"
    rest = await registry("PATCH", location, data[100_000:], Content_Range="100000-299999")
    assert rest.status == 202
    assert (await registry("PUT", f"{location}?digest={Digest.of(data)}", b"")).status == 201


@ensure
async def test_a_cut_monolithic_post_leaves_nothing(registry: Any, memory: Any, dial: Any) -> None:
    raw = await dial(port_of(registry))
    path = f"/v2/a/blobs/uploads/?digest={Digest.of(b'x')}".encode()
    raw.send(b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" % path + bytes(1000))
    await seconds(0.05)
    assert len(memory.uploads) == 1
    raw.drop()
    await seconds(0.05)
    assert not memory.uploads and not memory.blobs


@ensure
async def test_two_requests_at_once_on_one_session(registry: Any, memory: Any) -> None:
    """The second is refused while the first is at work, even when the first one's client is gone."""
    location = await registry.begin("a")
    memory.gate = Deferred()
    first = Deferred.fromCoroutine(registry("PATCH", location, b"abc"))
    await seconds(0.05)
    for method, suffix in (("PATCH", ""), ("PUT", f"?digest={Digest.of(b'abc')}"), ("DELETE", "")):
        second = await registry(method, location + suffix, b"xyz" if method != "DELETE" else None)
        assert (second.status, code_of(second)) == (409, "BLOB_UPLOAD_INVALID")
    first.addErrback(lambda _failure: None)
    first.cancel()
    await seconds(0.05)
    assert (await registry("PATCH", location, b"xyz")).status == 409, "its last write is still under way"
    gate, memory.gate = memory.gate, None
    gate.callback(None)
    assert (await registry("GET", location)).header("Range") == "0-2"
    assert (await registry("PUT", f"{location}?digest={Digest.of(b'abcdef')}", b"def")).status == 201


@ensure
async def test_a_full_disk_is_told_midway_and_the_session_lives_on(registry: Any, memory: Any, dial: Any) -> None:
    location = await registry.begin("a")
    memory.room = 500_000
    raw = await dial(port_of(registry))
    raw.send(b"PATCH %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" % location.encode())
    for _ in range(12):
        raw.send(b"10000\r\n" + bytes(65536) + b"\r\n")
    said = await raw.until(b"}]}")
    assert said.startswith(b"HTTP/1.1 507") and b"no space left" in said
    assert (await registry("GET", location)).status == 204


@ensure
async def test_twenty_pushes_of_one_blob_at_once(registry: Any, memory: Any) -> None:
    data = os.urandom(200_000)
    digests = await gatherResults([Deferred.fromCoroutine(registry.push(f"a/r{n}", data)) for n in range(20)])
    assert set(digests) == {Digest.of(data)} and not memory.uploads


@ensure
async def test_a_big_upload_needs_little_memory(registry: Any, memory: Any, dial: Any) -> None:
    memory.keep = False
    location = await registry.begin("a")
    raw = await dial(port_of(registry))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = 256 << 20
    raw.send(b"PATCH %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (location.encode(), size))
    block = bytes(1 << 20)
    for _ in range(size >> 20):
        raw.send(block)
        while raw.transport.dataBuffer or raw.transport._tempDataLen:
            await seconds(0)
    said = await raw.until(b"\r\n\r\n", timeout_s=20)
    assert b"\r\nRange: 0-%d\r\n" % (size - 1) in said
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10, "KiB"


# -- blobs while they arrive, and blobs that go wrong


def arriving(memory: Any, data: bytes, released: int, fail: Any = None) -> Digest:
    """Put a blob there of which only the first bytes may be served."""
    digest = Digest.of(data)
    memory.blobs[digest] = data
    kind = memory.make_reader
    memory.make_reader = lambda of, blob: kind(of, blob, released, fail)
    return digest


async def get_blob(client: Any, dial: Any, digest: Digest, headers: str = "") -> Any:
    raw = await dial(port_of(client))
    raw.send(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: a\r\n{headers}\r\n".encode())
    return raw


@ensure
async def test_a_blob_streams_while_it_arrives(agent: Any, memory: Any, dial: Any) -> None:
    data = os.urandom(300_000)
    raw = await get_blob(agent, dial, arriving(memory, data, 100_000))
    await raw.until(data[:100_000])
    assert raw.received.endswith(data[:100_000])
    (reader,) = memory.readers
    reader.release(300_000)
    await raw.until(data)
    await seconds(0.01)
    assert (reader.closed, raw.lost) == (1, False)


@ensure
async def test_a_range_of_an_arriving_blob_waits_for_its_own_bytes_only(agent: Any, memory: Any, dial: Any) -> None:
    data = os.urandom(300_000)
    raw = await get_blob(agent, dial, arriving(memory, data, 200_000), "Range: bytes=150000-199999\r\n")
    said = await raw.until(data[150_000:200_000])
    assert said.startswith(b"HTTP/1.1 206")
    assert memory.readers[0].waits == [(150_000, 200_000)]


@ensure
@pytest.mark.parametrize("fail", [Corrupt("a", "b"), Unavailable("swarm", "nothing came")])
async def test_what_breaks_after_the_headers_cuts_the_connection(agent: Any, memory: Any, dial: Any, fail: Any) -> None:
    data = os.urandom(300_000)
    raw = await get_blob(agent, dial, arriving(memory, data, 299_000))
    await raw.until(data[:299_000])
    memory.readers[0].fail = fail
    memory.readers[0].wake()
    said = await raw.closed()
    assert b"Content-Length: 300000\r\n" in said
    assert said.endswith(data[:299_000]), "the last bytes are held back, and no error text stands in their place"
    assert memory.readers[0].closed == 1


@ensure
@pytest.mark.parametrize("fail", [Corrupt("a", "b"), Unavailable("swarm", "nothing came")])
async def test_what_breaks_before_the_first_byte_has_a_true_status(agent: Any, memory: Any, fail: Any) -> None:
    digest = arriving(memory, b"x" * 1000, 0, fail)
    answer = await agent("GET", f"/v2/a/blobs/{digest}")
    assert (answer.status, code_of(answer)) == (503, "UNAVAILABLE")
    assert answer.header("ETag") is None and answer.header("Docker-Content-Digest") is None
    assert memory.readers[0].closed == 1


@ensure
async def test_a_client_that_leaves_closes_the_reader(agent: Any, memory: Any, dial: Any) -> None:
    raw = await get_blob(agent, dial, arriving(memory, b"x" * 1000, 500))
    await raw.until(b"x" * 500)
    raw.drop()
    await seconds(0.05)
    assert memory.readers[0].closed == 1


@ensure
async def test_a_client_that_reads_nothing_is_not_read_for(agent: Any, memory: Any, dial: Any) -> None:
    """The answer stops in the kernel's buffers, not in ours."""
    data = bytes(64 << 20)
    raw = await get_blob(agent, dial, arriving(memory, data, len(data)))
    raw.transport.pauseProducing()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await seconds(0.2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10, "KiB"
    raw.transport.resumeProducing()
    while len(raw.received) < len(data):
        await raw._change(5.0)


@ensure
async def test_if_range_of_another_blob_means_the_whole(agent: Any, memory: Any) -> None:
    data = os.urandom(1000)
    digest = arriving(memory, data, 1000)
    for tag, status in ((f'"{digest}"', 206), ('"other"', 200)):
        answer = await agent("GET", f"/v2/a/blobs/{digest}", Range="bytes=0-9", If_Range=tag)
        assert answer.status == status


@ensure
async def test_a_client_that_takes_nothing_for_too_long_is_cut(
    agent: Any, memory: Any, dial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("krakentx.web.bodies._TAKE_S", 0.1)
    monkeypatch.setattr("krakentx.web.site.KrakenChannel.abortTimeout", 0.1)
    data = bytes(64 << 20)
    raw = await get_blob(agent, dial, arriving(memory, data, len(data)))
    raw.transport.pauseProducing()
    await seconds(0.5)
    assert memory.readers[0].closed == 1
    raw.transport.resumeProducing()
    assert len(await raw.closed()) < len(data)
