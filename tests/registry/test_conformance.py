"""What the OCI distribution specification asks of a registry, case by case.

The cases know nothing of what lies behind the address. They go to the routes over fakes, to a real herd, and to a real
herd of which everything is read through an agent; with KRAKEN_TEST_REGISTRY=http://127.0.0.1:15000 to that registry
alone.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import pytest_twisted

from krakentx.core.digest import Digest
from krakentx.registry.media import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

ensure = pytest_twisted.ensureDeferred
pytestmark = pytest.mark.integration

GIVEN = os.environ.get("KRAKEN_TEST_REGISTRY", "").rstrip("/")


@pytest.fixture(params=["given"] if GIVEN else ["memory", "herd", "agent"])
def registry(request: pytest.FixtureRequest, client_of: Any) -> Any:
    if request.param == "given":
        return client_of(GIVEN)
    if request.param == "memory":
        return client_of(request.getfixturevalue("registry_url"))
    cluster = request.getfixturevalue("cluster")
    herd, agent = f"http://{cluster.proxy}", f"http://{cluster.agents[0].registry}"
    return client_of(herd) if request.param == "herd" else client_of(herd, agent)


def random_blob(size: int = 2048) -> bytes:
    return os.urandom(size)


def error_code(answer: Any) -> str:
    assert answer.header("Content-Type") == "application/json"
    return str(answer.json()["errors"][0]["code"])


async def assert_stored(registry: Any, repo: str, digest: Digest, data: bytes, location: str) -> None:
    for path in (location, f"/v2/{repo}/blobs/{digest}"):
        got = await registry("GET", path)
        assert (got.status, got.body) == (200, data)
        assert got.header("Docker-Content-Digest") == str(digest)
    head = await registry("HEAD", f"/v2/{repo}/blobs/{digest}")
    assert (head.status, head.body, head.length) == (200, b"", len(data))
    assert head.header("Accept-Ranges") == "bytes"


@ensure
async def test_ping(registry: Any) -> None:
    for path in ("/v2/", "/v2"):
        answer = await registry("GET", path)
        assert (answer.status, answer.body) == (200, b"{}")
        assert answer.header("Docker-Distribution-API-Version") == "registry/2.0"


@ensure
async def test_tag_list_of_an_unused_repository(registry: Any, repo: str) -> None:
    answer = await registry("GET", f"/v2/{repo}/tags/list")
    assert answer.status == 404 and error_code(answer) == "NAME_UNKNOWN"


@ensure
async def test_referrers_of_anything_are_an_index(registry: Any, repo: str, algorithm: str) -> None:
    answer = await registry("GET", f"/v2/{repo}/referrers/{Digest.of(random_blob(), algorithm)}")
    assert (answer.status, answer.header("Content-Type")) == (200, OCI_INDEX)
    assert answer.json() == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}


# -- blobs


@ensure
async def test_missing_blob(registry: Any, repo: str, algorithm: str) -> None:
    path = f"/v2/{repo}/blobs/{Digest.of(random_blob(), algorithm)}"
    answer = await registry("GET", path)
    assert answer.status == 404 and error_code(answer) == "BLOB_UNKNOWN"
    head = await registry("HEAD", path)
    assert (head.status, head.body) == (404, b"")


@ensure
async def test_post_only(registry: Any, repo: str, algorithm: str) -> None:
    data = random_blob()
    digest = Digest.of(data, algorithm)
    answer = await registry("POST", f"/v2/{repo}/blobs/uploads/?digest={digest}", data)
    assert (answer.status, answer.header("Docker-Content-Digest")) == (201, str(digest))
    await assert_stored(registry, repo, digest, data, registry.location(answer))


@ensure
@pytest.mark.parametrize("size", [0, 1, 2048, 3 << 20])
async def test_post_then_put(registry: Any, repo: str, algorithm: str, size: int) -> None:
    data = random_blob(size)
    digest = Digest.of(data, algorithm)
    location = await registry.begin(repo)
    answer = await registry("PUT", f"{location}?digest={digest}", data, Content_Type="application/octet-stream")
    assert (answer.status, answer.header("Docker-Content-Digest")) == (201, str(digest))
    await assert_stored(registry, repo, digest, data, registry.location(answer))


@ensure
async def test_digest_may_be_escaped_and_come_in_any_place(registry: Any, repo: str, algorithm: str) -> None:
    data = random_blob()
    digest = Digest.of(data, algorithm)
    location = await registry.begin(repo)
    answer = await registry("PUT", f"{location}?a=b&digest={algorithm}%3A{digest.hex}&c=d", data)
    assert answer.status == 201


@ensure
async def test_the_answer_to_post_says_where_to_go_on(registry: Any, repo: str) -> None:
    answer = await registry("POST", f"/v2/{repo}/blobs/uploads/", b"")
    assert (answer.status, answer.length, answer.header("Range")) == (202, 0, "0-0")
    assert answer.header("Docker-Upload-UUID") in registry.location(answer)
    assert answer.header("Location").startswith("/"), "no host: behind a port mapping only the client knows it"


@ensure
async def test_chunked_single(registry: Any, repo: str, algorithm: str) -> None:
    data = random_blob()
    digest = Digest.of(data, algorithm)
    location = await registry.begin(repo)
    patched = await registry("PATCH", location, data, Content_Range=f"0-{len(data) - 1}")
    assert (patched.status, patched.header("Range")) == (202, f"0-{len(data) - 1}")
    answer = await registry("PUT", f"{registry.location(patched)}?digest={digest}", b"")
    assert answer.status == 201
    await assert_stored(registry, repo, digest, data, registry.location(answer))


@ensure
@pytest.mark.parametrize("last_in_put", [False, True])
@pytest.mark.parametrize("out_of_order", [False, True])
async def test_chunked_multi(registry: Any, repo: str, algorithm: str, last_in_put: bool, out_of_order: bool) -> None:
    data = random_blob(3 * 1024 - 5)
    digest = Digest.of(data, algorithm)
    location = await registry.begin(repo)

    async def wrong(method: str, target: str, at: int) -> None:
        """A chunk from any other place is refused, and changes nothing."""
        for start in {0, at + 1024, 5000} - {at}:
            refused = await registry(method, target, bytes(100), Content_Range=f"{start}-{start + 99}")
            assert refused.status == 416
            assert registry.location(refused) and refused.header("Range") == f"0-{max(0, at - 1)}"
            assert error_code(refused) == "BLOB_UPLOAD_INVALID"
        told = await registry("GET", location)
        assert (told.status, told.header("Range"), told.body) == (204, f"0-{max(0, at - 1)}", b"")
        assert registry.location(told)

    for at in (0, 1024, 2048):
        chunk = data[at : at + 1024]
        where = f"{at}-{at + len(chunk) - 1}"
        closing = last_in_put and at == 2048
        if out_of_order:
            await wrong("PATCH", location, at)
            if closing:
                await wrong("PUT", f"{location}?digest={digest}", at)
        if closing:
            answer = await registry("PUT", f"{location}?digest={digest}", chunk, Content_Range=where)
        else:
            patched = await registry("PATCH", location, chunk, Content_Range=where)
            assert (patched.status, patched.header("Range")) == (202, f"0-{at + len(chunk) - 1}")
            location = registry.location(patched)
    if not last_in_put:
        answer = await registry("PUT", f"{location}?digest={digest}", b"")
    assert answer.status == 201
    await assert_stored(registry, repo, digest, data, registry.location(answer))


@ensure
async def test_stream(registry: Any, repo: str, algorithm: str) -> None:
    data = random_blob(100_000)
    digest = Digest.of(data, algorithm)
    location = await registry.begin(repo)
    said = await registry.chunked("PATCH", location, data[:5], data[5:70_000], data[70_000:])
    assert said.startswith(b"HTTP/1.1 202") and b"\r\nRange: 0-99999\r\n" in said
    answer = await registry("PUT", f"{location}?digest={digest}", b"")
    assert answer.status == 201
    await assert_stored(registry, repo, digest, data, registry.location(answer))


@ensure
async def test_stream_in_the_closing_put(registry: Any, repo: str, algorithm: str) -> None:
    data = random_blob(100_000)
    location = await registry.begin(repo)
    said = await registry.chunked("PUT", f"{location}?digest={Digest.of(data, algorithm)}", data[:5], data[5:])
    assert said.startswith(b"HTTP/1.1 201")


@ensure
@pytest.mark.parametrize("anonymous", [False, True])
async def test_mount(registry: Any, repo: str, algorithm: str, anonymous: bool) -> None:
    data = random_blob()
    digest = await registry.push(f"{repo}-other", data, algorithm)
    source = "" if anonymous else f"&from={repo}-other"
    answer = await registry("POST", f"/v2/{repo}/blobs/uploads/?mount={digest}{source}", b"")
    assert (answer.status, registry.location(answer)) == (201, f"/v2/{repo}/blobs/{digest}")
    assert answer.header("Docker-Content-Digest") == str(digest)
    await assert_stored(registry, repo, digest, data, registry.location(answer))


@ensure
async def test_mount_of_a_missing_blob_becomes_an_upload(registry: Any, repo: str, algorithm: str) -> None:
    data = random_blob()
    digest = Digest.of(data, algorithm)
    answer = await registry("POST", f"/v2/{repo}/blobs/uploads/?from={repo}-other&mount={digest}", b"")
    assert answer.status == 202
    assert (await registry("PUT", f"{registry.location(answer)}?digest={digest}", data)).status == 201


@ensure
async def test_cancel(registry: Any, repo: str) -> None:
    location = await registry.begin(repo)
    assert (await registry("DELETE", location)).status == 204
    for method in ("GET", "DELETE", "PATCH"):
        gone = await registry(method, location, b"x" if method == "PATCH" else None)
        assert gone.status == 404 and error_code(gone) == "BLOB_UPLOAD_UNKNOWN"


@ensure
@pytest.mark.parametrize("way", ["post only", "post+put", "chunked", "chunked and put chunk", "stream"])
async def test_bad_digest(registry: Any, repo: str, algorithm: str, way: str) -> None:
    data = random_blob()
    digest = Digest.of(b"something else", algorithm)
    if way == "post only":
        answer = await registry("POST", f"/v2/{repo}/blobs/uploads/?digest={digest}", data)
    else:
        location = await registry.begin(repo)
        rest = b""
        if way == "post+put":
            rest = data
        elif way == "stream":
            await registry.chunked("PATCH", location, data)
        else:
            end = len(data) if way == "chunked" else 1000
            assert (await registry("PATCH", location, data[:end], Content_Range=f"0-{end - 1}")).status == 202
            rest = data[end:]
        headers = {"Content_Range": f"1000-{len(data) - 1}"} if way == "chunked and put chunk" else {}
        answer = await registry("PUT", f"{location}?digest={digest}", rest, **headers)
    assert answer.status == 400 and error_code(answer) == "DIGEST_INVALID"
    for stored in (digest, Digest.of(data, algorithm)):
        assert (await registry("HEAD", f"/v2/{repo}/blobs/{stored}")).status == 404


@ensure
@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [("500-1499", 500, 1500), ("500-", 500, 2048), ("-500", 1548, 2048), ("2000-5000", 2000, 2048)],
)
async def test_range(registry: Any, repo: str, algorithm: str, wanted: str, start: int, stop: int) -> None:
    data = random_blob()
    digest = await registry.push(repo, data, algorithm)
    answer = await registry("GET", f"/v2/{repo}/blobs/{digest}", Range=f"bytes={wanted}")
    assert (answer.status, answer.body) == (206, data[start:stop])
    assert answer.header("Content-Range") == f"bytes {start}-{stop - 1}/2048"


@ensure
@pytest.mark.parametrize("wanted", ["500-0", "5000-10000", "2048-"])
async def test_range_out_of_bounds(registry: Any, repo: str, algorithm: str, wanted: str) -> None:
    digest = await registry.push(repo, random_blob(), algorithm)
    answer = await registry("GET", f"/v2/{repo}/blobs/{digest}", Range=f"bytes={wanted}")
    assert (answer.status, answer.header("Content-Range")) == (416, "bytes */2048")
    assert answer.length == len(answer.body) and answer.json()["errors"]


@ensure
@pytest.mark.parametrize("data", [b"", b"{}"])
async def test_tiny_blobs(registry: Any, repo: str, algorithm: str, data: bytes) -> None:
    digest = await registry.push(repo, data, algorithm)
    await assert_stored(registry, repo, digest, data, f"/v2/{repo}/blobs/{digest}")


# -- manifests


async def push_parts(registry: Any, repo: str, count: int, algorithm: str = "sha256") -> list[dict[str, Any]]:
    parts = []
    for _ in range(count):
        data = random_blob(64)
        digest = await registry.push(repo, data, algorithm)
        parts.append({"mediaType": "application/x", "digest": str(digest), "size": len(data)})
    return parts


def image_of(parts: list[dict[str, Any]], media_type: str | None = OCI_MANIFEST, **more: Any) -> bytes:
    value: dict[str, Any] = {"schemaVersion": 2, "config": parts[0], "layers": parts[1:], **more}
    if media_type:
        value["mediaType"] = media_type
    return json.dumps(value, indent=1).encode()


def index_of(children: list[bytes], media_type: str = OCI_INDEX, algorithm: str = "sha256", **more: Any) -> bytes:
    listed = [{"mediaType": "x/y", "digest": str(Digest.of(c, algorithm)), "size": len(c)} for c in children]
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": listed, **more}).encode()


async def put_manifest(registry: Any, repo: str, ref: object, data: bytes, media_type: str) -> Any:
    return await registry("PUT", f"/v2/{repo}/manifests/{ref}", data, Content_Type=media_type)


async def assert_pulled(registry: Any, repo: str, ref: object, data: bytes, media_type: str, digest: Digest) -> None:
    accept = f"{OCI_INDEX}, {OCI_MANIFEST}"
    got = await registry("GET", f"/v2/{repo}/manifests/{ref}", Accept=accept)
    assert (got.status, got.body, got.header("Content-Type")) == (200, data, media_type)
    assert (got.header("Docker-Content-Digest"), got.header("ETag")) == (str(digest), f'"{digest}"')
    head = await registry("HEAD", f"/v2/{repo}/manifests/{ref}", Accept=accept)
    assert (head.status, head.body, head.length) == (200, b"", len(data))
    assert head.header("Content-Type") == media_type and head.header("Docker-Content-Digest") == str(digest)


@ensure
@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
async def test_image(registry: Any, repo: str, algorithm: str, media_type: str) -> None:
    data = image_of(await push_parts(registry, repo, 3), media_type, **{"org.example.custom": {"kept": [1, 2]}})
    digest = Digest.of(data, algorithm)
    answer = await put_manifest(registry, repo, digest, data, media_type)
    assert (answer.status, answer.header("Docker-Content-Digest")) == (201, str(digest))
    assert registry.location(answer) == f"/v2/{repo}/manifests/{digest}"
    await assert_pulled(registry, repo, digest, data, media_type, digest)
    tagged = await put_manifest(registry, repo, "v1.0_x", data, f"{media_type}; charset=utf-8")
    sha256 = Digest.of(data)
    assert (tagged.status, tagged.header("Docker-Content-Digest")) == (201, str(sha256))
    await assert_pulled(registry, repo, "v1.0_x", data, media_type, sha256)
    listed = await registry("GET", f"/v2/{repo}/tags/list")
    assert listed.json() == {"name": repo, "tags": ["v1.0_x"]}


@ensure
async def test_s09_layers_of_any_kind_and_manifests_that_do_not_name_their_own(registry: Any, repo: str) -> None:
    parts = await push_parts(registry, repo, 2)
    for tag, kind, media_type in (
        ("zstd", "application/vnd.oci.image.layer.v1.tar+zstd", OCI_MANIFEST),
        ("unknown", "application/vnd.example.layer.v9+squash", OCI_MANIFEST),
        ("untyped", "application/vnd.oci.image.layer.v1.tar", None),
    ):
        data = image_of([parts[0], {**parts[1], "mediaType": kind}], media_type)
        assert (await put_manifest(registry, repo, tag, data, OCI_MANIFEST)).status == 201
        await assert_pulled(registry, repo, tag, data, OCI_MANIFEST, Digest.of(data))
    untyped = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    assert (await put_manifest(registry, repo, "untyped-index", untyped, OCI_INDEX)).status == 201
    await assert_pulled(registry, repo, "untyped-index", untyped, OCI_INDEX, Digest.of(untyped))


@ensure
async def test_a_manifest_with_sha512_parts(registry: Any, repo: str) -> None:
    data = image_of(await push_parts(registry, repo, 2, "sha512"))
    digest = Digest.of(data, "sha512")
    assert (await put_manifest(registry, repo, digest, data, OCI_MANIFEST)).status == 201
    await assert_pulled(registry, repo, digest, data, OCI_MANIFEST, digest)


@ensure
@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
async def test_index_and_nested_index(registry: Any, repo: str, algorithm: str, media_type: str) -> None:
    images = [image_of(await push_parts(registry, repo, 2)) for _ in range(2)]
    for data in images:
        assert (await put_manifest(registry, repo, Digest.of(data, algorithm), data, OCI_MANIFEST)).status == 201
    index = index_of(images, media_type, algorithm)
    digest = Digest.of(index, algorithm)
    assert (await put_manifest(registry, repo, digest, index, media_type)).status == 201
    nested = index_of([index], OCI_INDEX, algorithm)
    assert (await put_manifest(registry, repo, "nested", nested, OCI_INDEX)).status == 201
    await assert_pulled(registry, repo, digest, index, media_type, digest)
    await assert_pulled(registry, repo, "nested", nested, OCI_INDEX, Digest.of(nested))


@ensure
async def test_manifests_at_the_edges(registry: Any, repo: str) -> None:
    (config,) = await push_parts(registry, repo, 1)
    elsewhere = {"mediaType": "x/y", "digest": str(Digest.of(random_blob())), "size": 5, "urls": ["http://x.example/"]}
    inline = {**config, "data": "e30="}
    for tag, data, media_type in (
        ("no-layers", image_of([config]), OCI_MANIFEST),
        ("empty-index", index_of([]), OCI_INDEX),
        ("not-pushed-layers", image_of([config, elsewhere]), OCI_MANIFEST),
        ("data-field", image_of([config, inline]), OCI_MANIFEST),
        ("artifact", image_of([config, config], artifactType="application/x.thing"), OCI_MANIFEST),
        ("large", image_of([config], annotations={"a": "x" * 3_900_000}), OCI_MANIFEST),
    ):
        assert (await put_manifest(registry, repo, tag, data, media_type)).status == 201, tag
        await assert_pulled(registry, repo, tag, data, media_type, Digest.of(data))


@ensure
@pytest.mark.parametrize("kind", ["image", "index"])
async def test_subject_is_told_even_when_it_is_missing(registry: Any, repo: str, algorithm: str, kind: str) -> None:
    missing = Digest.of(random_blob(), algorithm)
    subject = {"mediaType": OCI_MANIFEST, "digest": str(missing), "size": 5}
    if kind == "image":
        data, media_type = image_of(await push_parts(registry, repo, 1), subject=subject), OCI_MANIFEST
    else:
        data, media_type = index_of([], subject=subject), OCI_INDEX
    answer = await put_manifest(registry, repo, Digest.of(data), data, media_type)
    assert (answer.status, answer.header("OCI-Subject")) == (201, str(missing))


@ensure
@pytest.mark.parametrize("where", ["present", "missing"])
async def test_referrers_are_listed(registry: Any, repo: str, algorithm: str, where: str) -> None:
    (config,) = await push_parts(registry, repo, 1)
    target = image_of([config])
    subject = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(target, algorithm)), "size": len(target)}
    if where == "present":
        await put_manifest(registry, repo, Digest.of(target, algorithm), target, OCI_MANIFEST)
    notes = {"org.example.a": "b"}
    attached = [
        (image_of([config], subject=subject, annotations=notes, artifactType="application/sbom"), "application/sbom"),
        (image_of([config], subject=subject), "application/x"),
        (index_of([], subject=subject, artifactType="application/sig"), "application/sig"),
        (index_of([], subject=subject, annotations=notes), None),
    ]
    expected = []
    for data, kind in attached:
        value = json.loads(data)
        digest = Digest.of(data)
        for _ in range(2):  # pushed again it is listed once
            assert (await put_manifest(registry, repo, digest, data, value["mediaType"])).status == 201
        entry = {"mediaType": value["mediaType"], "digest": str(digest), "size": len(data), "artifactType": kind}
        entry["annotations"] = value.get("annotations")
        expected.append({key: item for key, item in entry.items() if item})
    path = f"/v2/{repo}/referrers/{subject['digest']}"
    answer = await registry("GET", path)
    assert (answer.status, answer.header("Content-Type")) == (200, OCI_INDEX)
    assert answer.json()["manifests"] == expected and answer.header("OCI-Filters-Applied") is None
    filtered = await registry("GET", f"{path}?artifactType=application/sbom")
    assert filtered.json()["manifests"] == expected[:1]
    assert filtered.header("OCI-Filters-Applied") == "artifactType"


@ensure
async def test_referrers_of_the_tag_schema_are_listed(registry: Any, repo: str) -> None:
    """What a client attached that took the registry for one without the API."""
    child = index_of([])
    await put_manifest(registry, repo, Digest.of(child), child, OCI_INDEX)
    data = index_of([child])
    subject = Digest.of(b"anything")
    await put_manifest(registry, repo, f"sha256-{subject.hex}", data, OCI_INDEX)
    answer = await registry("GET", f"/v2/{repo}/referrers/{subject}")
    assert [entry["digest"] for entry in answer.json()["manifests"]] == [str(Digest.of(child))]


@ensure
async def test_bad_digest_image(registry: Any, repo: str, algorithm: str) -> None:
    data = image_of(await push_parts(registry, repo, 1))
    answer = await put_manifest(registry, repo, Digest.of(b"other", algorithm), data, OCI_MANIFEST)
    assert answer.status == 400 and error_code(answer) == "DIGEST_INVALID"


@ensure
async def test_missing_manifest(registry: Any, repo: str, algorithm: str) -> None:
    for ref in (Digest.of(random_blob(), algorithm), "latest"):
        answer = await registry("GET", f"/v2/{repo}/manifests/{ref}")
        assert answer.status == 404 and error_code(answer) == "MANIFEST_UNKNOWN"
        assert (await registry("HEAD", f"/v2/{repo}/manifests/{ref}")).status == 404


@ensure
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_malformed_digest(registry: Any, repo: str, method: str) -> None:
    path = f"/v2/{repo}/manifests/sha256:baddigeststring"
    answer = await registry(method, path, index_of([]) if method == "PUT" else None, Content_Type=OCI_INDEX)
    assert answer.status == 400 and error_code(answer) == "DIGEST_INVALID"


@ensure
async def test_a_moved_tag_gives_the_new_manifest_and_the_old_digest_stays(registry: Any, repo: str) -> None:
    first, second = (index_of([], annotations={"n": n}) for n in ("1", "2"))
    for data in (first, second):
        assert (await put_manifest(registry, repo, "prod", data, OCI_INDEX)).status == 201
        await assert_pulled(registry, repo, "prod", data, OCI_INDEX, Digest.of(data))
    await assert_pulled(registry, repo, Digest.of(first), first, OCI_INDEX, Digest.of(first))


@ensure
async def test_tag_list_pages(registry: Any, repo: str) -> None:
    data = index_of([])
    names = ["Beta", "_x", "a", "b", "v1", "v10", "v2"]
    for tag in reversed(names):
        assert (await put_manifest(registry, repo, tag, data, OCI_INDEX)).status == 201
    path = f"/v2/{repo}/tags/list"

    async def tags(query: str) -> list[str]:
        answer = await registry("GET", path + query)
        assert answer.status == 200
        return list(answer.json()["tags"])

    assert await tags("") == names
    assert await tags("?last=b") == ["v1", "v10", "v2"]
    assert await tags("?last=between") == ["v1", "v10", "v2"], "strictly after, also for a tag that is not there"
    assert await tags("?last=zzz-missing") == []
    assert await tags("?n=0") == []
    seen: list[str] = []
    at = f"{path}?n=3"
    while at:
        answer = await registry("GET", at)
        seen += answer.json()["tags"]
        link = answer.header("Link")
        at = link.partition("<")[2].partition(">")[0] if link else ""
        assert not link or link.endswith('; rel="next"')
    assert seen == names
    for bad in ("-1", "abc", "1.5", ""):
        answer = await registry("GET", f"{path}?n={bad}")
        assert answer.status == 400 and error_code(answer) == "PAGINATION_NUMBER_INVALID"


@ensure
async def test_if_none_match(registry: Any, repo: str) -> None:
    data = index_of([])
    await put_manifest(registry, repo, "t", data, OCI_INDEX)
    for value, status in ((f'"{Digest.of(data)}"', 304), (f'W/"{Digest.of(data)}", "x"', 304), ('"x"', 200)):
        answer = await registry("GET", f"/v2/{repo}/manifests/t", If_None_Match=value)
        assert answer.status == status and bool(answer.body) == (status == 200)


@ensure
async def test_s24_the_host_key_of_containerd_is_taken_and_ignored(registry: Any, repo: str) -> None:
    data = index_of([])
    await put_manifest(registry, repo, "t", data, OCI_INDEX)
    for ns in ("docker.io", "some.example.org%3A5000", "127.0.0.1%3A1", "UPPER", "..", ""):
        for method, path, status in (
            ("GET", f"{repo}/manifests/t", 200),
            ("HEAD", f"{repo}/manifests/t", 200),
            ("GET", f"{repo}/blobs/{Digest.of(data)}", 200),
            ("GET", f"{repo}/tags/list", 200),
            ("GET", "_catalog", 200),
            ("GET", f"{repo}/manifests/none", 404),
            ("POST", f"{repo}/blobs/uploads/", 202),
        ):
            answer = await registry(method, f"/v2/{path}?ns={ns}", b"" if method == "POST" else None)
            assert answer.status == status, (method, path, ns)
            if status == 202:
                assert (await registry("DELETE", registry.location(answer))).status == 204
