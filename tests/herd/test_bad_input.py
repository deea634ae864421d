"""Bad input, by name, against a real herd and agents: the right status and words, nothing left behind, life goes on.

Kills are in test_kill.py; the same things over fakes, in more detail, in tests/registry.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from tests.cluster import Agent, Answer, Cluster, Herd, request

pytestmark = [pytest.mark.integration, pytest.mark.timeout(110)]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
MIB = 1 << 20
# A layer of an empty tar as docker wrote it for years: 1024 zero bytes in gzip.
EMPTY_TAR = bytes.fromhex("1f8b080000096e8800ff621805a360148c5800080000ffff2eafb5ef00040000")

_SETTLED_WITHIN_S = 10.0
_SHARD = re.compile(r"[0-9a-f]{2}")


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def an_index(**more: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], **more}).encode()


# ---- a client


@frozen
class Registry:
    """Speaks to the proxy."""

    port: int

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return request(self.port, method, path, body, {name.replace("_", "-"): each for name, each in headers.items()})

    def begin(self, repo: str) -> str:
        answer = self("POST", f"/v2/{repo}/blobs/uploads/", b"")
        assert answer.status == 202, answer
        return answer.headers["location"]

    def push(self, repo: str, data: bytes, algorithm: str = "sha256") -> str:
        digest = digest_of(data, algorithm)
        answer = self("PUT", f"{self.begin(repo)}?digest={digest}", data)
        assert answer.status == 201, answer
        return digest

    def put_manifest(self, repo: str, reference: str, data: bytes, media_type: str = INDEX) -> None:
        answer = self("PUT", f"/v2/{repo}/manifests/{reference}", data, Content_Type=media_type)
        assert answer.status == 201, answer

    def tear(self, method: str, path: str, sent: bytes, promised: int) -> None:
        """Promise a body of so many bytes, send a part of it, and reset the connection."""
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {promised}\r\n\r\n"
            client.sendall(head.encode() + sent)
            time.sleep(0.2)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture
def registry(cluster: Cluster) -> Registry:
    return Registry(cluster.herd.proxy_port)


@pytest.fixture
def everywhere(cluster: Cluster) -> dict[str, int]:
    """The ports of all registries."""
    return {"proxy": cluster.herd.proxy_port, **{f"agent {n}": each.port for n, each in enumerate(cluster.agents, 1)}}


@pytest.fixture(autouse=True)
def life_goes_on(cluster: Cluster) -> Iterator[None]:
    """After each of these tests the same processes take a push and a pull."""
    pids = cluster.pids
    until(lambda: not on_the_way(cluster), lambda: on_the_way(cluster))
    yield
    data = random.randbytes(100_000)
    digest = Registry(cluster.herd.proxy_port).push("after/it", data)
    for agent in cluster.agents:
        assert request(agent.port, "GET", f"/v2/after/it/blobs/{digest}").body == data
    assert cluster.pids == pids and all(each.running for each in (cluster.herd, *cluster.agents))


# ---- what lies on the disks


def data_of(cluster: Cluster) -> list[Path]:
    return [each.folder / "data" for each in (cluster.herd, *cluster.agents)]


def tree(folders: list[Path]) -> set[str]:
    """All files and folders below these, without the databases and the folders by which blobs are spread."""
    found = set()
    for folder in folders:
        for where, below, files in os.walk(folder):
            names = [name for name in below if not _SHARD.fullmatch(name)] + [
                name for name in files if ".db" not in name
            ]
            found |= {os.path.join(where, name) for name in names}
    return found


def until(holds: Callable[[], bool], told: Callable[[], object]) -> None:
    deadline = time.monotonic() + _SETTLED_WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


@contextlib.contextmanager
def nothing_stays(folders: list[Path]) -> Iterator[None]:
    """What happens within leaves nothing on the disk."""
    before = tree(folders)
    yield
    until(lambda: tree(folders) == before, lambda: sorted(tree(folders) ^ before))


def sessions(cluster: Cluster) -> set[str]:
    """Uploads that nobody has ended."""
    return tree([cluster.herd.folder / "data" / "proxy" / "upload"])


def on_the_way(cluster: Cluster) -> set[str]:
    """What moves from one place to another: parts of blobs, and blobs that the backend does not have yet."""
    herd = cluster.herd.folder / "data"
    places = [herd / "proxy" / "cache", herd / "testfs" / "uploads"]
    places += [herd / "origin" / "upload" / kind for kind in ("public", "quiet")]
    places += [agent.folder / "data" / "download" for agent in cluster.agents]
    stored = {path.parent.name for path in (herd / "origin" / "cache").rglob("data")}
    return tree(places) | (stored - {path.name for path in (herd / "testfs" / "files" / "blobs").rglob("*")})


@pytest.fixture
def no_uploads(cluster: Cluster) -> Iterator[None]:
    """The test leaves no upload session and no part of a blob."""
    before = sessions(cluster)
    yield
    assert sessions(cluster) == before
    until(lambda: not on_the_way(cluster), lambda: on_the_way(cluster))


# ---- uploads


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("way", ["in one request", "in a closing put", "in chunks"])
def test_a_wrong_digest(cluster: Cluster, registry: Registry, everywhere: dict[str, int], way: str, algorithm: str):
    data = random.randbytes(100_000)
    right, wrong = digest_of(data, algorithm), digest_of(b"something else", algorithm)
    with nothing_stays(data_of(cluster)):
        if way == "in one request":
            answer = registry("POST", f"/v2/a/blobs/uploads/?digest={wrong}", data)
        else:
            place = registry.begin("a")
            if way == "in chunks":
                assert registry("PATCH", place, iter([data[:60_000], data[60_000:]])).status == 202
            answer = registry("PUT", f"{place}?digest={wrong}", data if way == "in a closing put" else b"")
            gone = registry("GET", place)
            assert (gone.status, gone.code) == (404, "BLOB_UPLOAD_UNKNOWN")
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
        for port in everywhere.values():
            for digest in (right, wrong):
                assert request(port, "HEAD", f"/v2/a/blobs/{digest}").status == 404
    assert registry.push("a", data, algorithm) == right


def test_a_truncated_upload_goes_on_where_it_was_cut(registry: Registry, no_uploads: None) -> None:
    data = random.randbytes(MIB)
    place = registry.begin("a")
    at = 0
    for end in (300_000, 700_000):
        registry.tear("PATCH", place, data[at:end], len(data) - at)
        told = registry("GET", place)
        assert (told.status, told.headers["range"]) == (204, f"0-{end - 1}")
        at = end
    rest = registry("PATCH", place, data[at:], Content_Range=f"{at}-{len(data) - 1}")
    assert (rest.status, rest.headers["range"]) == (202, f"0-{len(data) - 1}")
    assert registry("PUT", f"{place}?digest={digest_of(data)}", b"").status == 201


def test_truncated_uploads_of_one_request_and_given_up_ones(cluster: Cluster, registry: Registry) -> None:
    data = random.randbytes(200_000)
    digest = digest_of(data)
    with nothing_stays(data_of(cluster)):
        registry.tear("POST", f"/v2/a/blobs/uploads/?digest={digest}", data[:100_000], len(data))
        place = registry.begin("a")
        registry.tear("PUT", f"{place}?digest={digest}", data[:100_000], len(data))
        assert registry("DELETE", place).status == 204
        registry.tear("PUT", "/v2/a/manifests/torn", an_index()[:20], 100)
        assert registry("GET", "/v2/a/manifests/torn").code == "MANIFEST_UNKNOWN"
    assert registry("HEAD", f"/v2/a/blobs/{digest}").status == 404


def test_s15_chunks_out_of_order(registry: Registry, no_uploads: None) -> None:
    data = random.randbytes(30)
    place = registry.begin("a")

    def refused(start: int, end: int, have: int) -> None:
        answer = registry("PATCH", place, data[start : end + 1], Content_Range=f"{start}-{end}")
        assert (answer.status, answer.code) == (416, "BLOB_UPLOAD_INVALID")
        assert answer.headers["range"] == f"0-{max(0, have - 1)}" and answer.headers["location"] == place
        told = registry("GET", place)
        assert (told.status, told.headers["range"]) == (204, f"0-{max(0, have - 1)}")

    refused(3, 24, 0)
    assert registry("PATCH", place, data[:10], Content_Range="0-9").status == 202
    refused(20, 29, 10)
    refused(0, 9, 10)  # the same once more
    assert registry("PATCH", place, data[10:], Content_Range="10-29").status == 202
    assert registry("PUT", f"{place}?digest={digest_of(data)}", b"").status == 201
    assert registry("GET", f"/v2/a/blobs/{digest_of(data)}").body == data


def test_s27_twenty_pushes_of_one_blob_at_once(cluster: Cluster, registry: Registry, no_uploads: None) -> None:
    data = random.randbytes(MIB)
    digest = digest_of(data)
    begun = threading.Barrier(20)
    outcomes: list[object] = []

    def push(number: int) -> None:
        repo = f"twenty/r{number % 4}"
        place = registry.begin(repo)
        half = random.Random(number).randrange(1, len(data))
        registry("PATCH", place, data[:half])
        begun.wait(30)
        if number == 7:  # gives up midway
            registry.tear("PATCH", place, data[half : half + 1000], len(data) - half)
            outcomes.append(registry("DELETE", place).status)
            return
        registry("PATCH", place, data[half:])
        outcomes.append(registry("PUT", f"{place}?digest={digest}", b"").status)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(map(str, outcomes)) == ["201"] * 19 + ["204"]
    for number in range(4):
        assert registry("GET", f"/v2/twenty/r{number}/blobs/{digest}").body == data
    copies = [path for path in (cluster.herd.folder / "data" / "origin").rglob("data") if path.parent.name in digest]
    assert len(copies) == 1


# ---- names


@pytest.mark.parametrize(
    "name",
    ["UPPER", "a/Upper", "..", "../a", "a/../b", "a%2F..%2Fb", "%2e%2e", "a//b", "a__b___c", "%ff", "a%00b", "a" * 256],
)
def test_bad_names(cluster: Cluster, everywhere: dict[str, int], name: str) -> None:
    digest = digest_of(b"x")
    reads = [("GET", "manifests/v1"), ("GET", f"blobs/{digest}"), ("GET", "tags/list"), ("GET", f"referrers/{digest}")]
    writes = [
        ("POST", "blobs/uploads/"),
        ("PUT", "manifests/v1"),
        ("PATCH", "blobs/uploads/x"),
        ("PUT", "blobs/uploads/x"),
    ]
    with nothing_stays(data_of(cluster)):
        for where, port in everywhere.items():
            for method, rest in reads + (writes if where == "proxy" else []):
                answer = request(port, method, f"/v2/{name}/{rest}", None if method == "GET" else b"x")
                assert (answer.status, answer.code) == (400, "NAME_INVALID"), (where, method, rest)
                assert b"Traceback" not in answer.body


@pytest.mark.parametrize("tag", [".x", "-x", "..", "a%20b", "x" * 129, "%00"])
def test_bad_tags(everywhere: dict[str, int], tag: str) -> None:
    for port in everywhere.values():
        answer = request(port, "GET", f"/v2/a/manifests/{tag}")
        assert (answer.status, answer.code) == (400, "TAG_INVALID")


def test_pushes_to_an_agent(cluster: Cluster) -> None:
    writes = [
        ("POST", "blobs/uploads/"),
        ("PUT", "manifests/v1"),
        ("PATCH", "blobs/uploads/x"),
        ("PUT", "blobs/uploads/x"),
    ]
    with nothing_stays(data_of(cluster)):
        for method, rest in writes:
            answer = request(cluster.agents[0].port, method, f"/v2/a/{rest}", b"x" * 1000)
            assert (answer.status, answer.code) == (405, "UNSUPPORTED")


# ---- manifests


@pytest.mark.parametrize("length_is_told", [True, False])
def test_s20_a_manifest_of_five_megabytes(
    cluster: Cluster, registry: Registry, everywhere: dict[str, int], length_is_told: bool
) -> None:
    big = an_index(annotations={"fill": "x" * (5 * MIB)})
    parts = [big[at : at + 65536] for at in range(0, len(big), 65536)]
    with nothing_stays(data_of(cluster)):
        answer = registry("PUT", "/v2/a/manifests/big", big if length_is_told else iter(parts), Content_Type=INDEX)
        assert (answer.status, answer.code) == (413, "SIZE_INVALID")
        for port in everywhere.values():
            for reference in ("big", digest_of(big)):
                absent = request(port, "GET", f"/v2/a/manifests/{reference}")
                assert (absent.status, absent.code) == (404, "MANIFEST_UNKNOWN")
    room = 4 * MIB - len(an_index(annotations={"fill": ""}))
    largest = an_index(annotations={"fill": "x" * room})
    assert len(largest) == 4 * MIB
    registry.put_manifest("a", "largest", largest)
    for port in everywhere.values():
        assert request(port, "GET", "/v2/a/manifests/largest").body == largest


def test_manifests_that_are_none_or_name_what_is_absent(cluster: Cluster, registry: Registry) -> None:
    absent = {"mediaType": "application/x", "digest": digest_of(random.randbytes(9)), "size": 9}
    image = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": absent, "layers": [absent]}).encode()
    with nothing_stays(data_of(cluster)):
        for body, code in (
            (b"", "MANIFEST_INVALID"),
            (b"{", "MANIFEST_INVALID"),
            (b"[" * 100_000, "MANIFEST_INVALID"),
            (b'{"schemaVersion": 2}', "MANIFEST_INVALID"),
            (image, "MANIFEST_BLOB_UNKNOWN"),
        ):
            answer = registry("PUT", "/v2/a/manifests/v1", body, Content_Type=MANIFEST)
            assert (answer.status, answer.code) == (400, code)
        wrong = registry("PUT", f"/v2/a/manifests/{digest_of(b'other')}", an_index(), Content_Type=INDEX)
        assert (wrong.status, wrong.code) == (400, "DIGEST_INVALID")


def test_s11_a_tag_that_moves(registry: Registry, everywhere: dict[str, int]) -> None:
    seen = []
    for version in range(3):
        manifest = an_index(annotations={"version": str(version), "at": str(time.monotonic())})
        registry.put_manifest("moving", "prod", manifest)
        seen.append(manifest)
        for port in everywhere.values():
            answer = request(port, "GET", "/v2/moving/manifests/prod")
            head = request(port, "HEAD", "/v2/moving/manifests/prod")
            assert answer.body == manifest, "an old one, after the push of a new one had returned"
            assert (
                answer.headers["docker-content-digest"] == head.headers["docker-content-digest"] == digest_of(manifest)
            )
    for port in everywhere.values():
        for manifest in seen:
            assert request(port, "GET", f"/v2/moving/manifests/{digest_of(manifest)}").body == manifest


# ---- blobs


def test_an_unknown_blob(cluster: Cluster, everywhere: dict[str, int]) -> None:
    with nothing_stays(data_of(cluster)):
        for algorithm in ("sha256", "sha512"):
            path = f"/v2/a/blobs/{digest_of(random.randbytes(9), algorithm)}"
            for port in everywhere.values():
                for headers in ({}, {"Range": "bytes=5-"}):
                    answer = request(port, "GET", path, headers=headers)
                    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")
                head = request(port, "HEAD", path)
                assert (head.status, head.body) == (404, b"")
        for digest in ("sha256:12", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:" + "g" * 64, "x"):
            for port in everywhere.values():
                answer = request(port, "GET", f"/v2/a/blobs/{digest}")
                assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("data", [b"", EMPTY_TAR], ids=["no byte", "empty tar"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_s29_empty_blobs(
    registry: Registry, everywhere: dict[str, int], no_uploads: None, algorithm: str, data: bytes
) -> None:
    digest = digest_of(data, algorithm)
    whole = registry("POST", f"/v2/empty/blobs/uploads/?digest={digest}", data)
    assert whole.status == 201
    assert registry.push("empty", data, algorithm) == digest
    place = registry.begin("empty")
    assert registry("PATCH", place, data).status == 202
    assert registry("PUT", f"{place}?digest={digest}", b"").status == 201
    for port in everywhere.values():
        for method, body in (("GET", data), ("HEAD", b"")):
            answer = request(port, method, f"/v2/empty/blobs/{digest}")
            assert (answer.status, answer.body) == (200, body)
            assert answer.headers["content-length"] == str(len(data))
    if not data:
        for port in everywhere.values():
            answer = request(port, "GET", f"/v2/empty/blobs/{digest}", headers={"Range": "bytes=0-"})
            assert (answer.status, answer.headers["content-range"]) == (416, "bytes */0")


def test_s28_ranges_of_a_blob_that_no_agent_has(registry: Registry, everywhere: dict[str, int]) -> None:
    for port in everywhere.values():
        data = random.randbytes(5 * MIB)
        path = f"/v2/ranges/blobs/{registry.push('ranges', data)}"
        size = len(data)
        for wanted, start, stop in (
            ("bytes=0-99", 0, 100),
            (f"bytes={4 * MIB}-", 4 * MIB, size),
            ("bytes=-50", size - 50, size),
            (f"bytes={size - 10}-{size + 10}", size - 10, size),
        ):
            part = request(port, "GET", path, headers={"Range": wanted})
            assert (part.status, part.body) == (206, data[start:stop]), wanted
            assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
            assert part.headers["content-length"] == str(stop - start)
        for wanted in (f"bytes={size}-", f"bytes={size + 5}-{size + 9}", "bytes=5-2"):
            none = request(port, "GET", path, headers={"Range": wanted})
            assert (none.status, none.headers["content-range"]) == (416, f"bytes */{size}"), wanted
            assert none.code
        for wanted in ("bytes=0-1,5-6", "lines=0-1", "bytes=x"):
            whole = request(port, "GET", path, headers={"Range": wanted})
            assert (whole.status, whole.body) == (200, data), wanted
        other = request(port, "GET", path, headers={"Range": "bytes=0-9", "If-Range": '"another"'})
        assert (other.status, other.body) == (200, data)
        assert request(port, "HEAD", path).headers["accept-ranges"] == "bytes"


# ---- full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_s08_a_disk_that_is_full_while_pushing(small_disk: Path) -> None:
    herd = Herd.make(small_disk / "herd")
    herd.start()
    try:
        registry, data = Registry(herd.proxy_port), random.randbytes(20 * MIB)
        registry.push("warm/up", b"so that all folders are there")
        time.sleep(0.5)
        with nothing_stays([herd.folder / "data"]):
            for told in (True, False):
                body = data if told else iter([data[at : at + 65536] for at in range(0, len(data), 65536)])
                whole = registry("POST", f"/v2/a/blobs/uploads/?digest={digest_of(data)}", body)
                assert (whole.status, whole.code) == (507, "UNAVAILABLE")
            place = registry.begin("a")
            half = registry("PATCH", place, data)
            assert (half.status, half.code) == (507, "UNAVAILABLE")
            assert registry("GET", place).status == 204, "the session lives on"
            assert registry("DELETE", place).status == 204
        assert registry("HEAD", f"/v2/a/blobs/{digest_of(data)}").status == 404
        small = random.randbytes(MIB)
        assert registry("GET", f"/v2/a/blobs/{registry.push('a', small)}").body == small
    finally:
        herd.stop()


def test_s08_a_disk_that_is_full_while_pulling(cluster: Cluster, registry: Registry, small_disk: Path) -> None:
    agent = Agent.make(small_disk / "agent", cluster.herd)
    agent.start()
    try:
        small, big = random.randbytes(MIB), random.randbytes(20 * MIB)
        with nothing_stays([agent.folder / "data"]):
            answer = request(agent.port, "GET", f"/v2/a/blobs/{registry.push('a', big)}")
            assert (answer.status, answer.code) == (507, "UNAVAILABLE")
        assert request(agent.port, "GET", f"/v2/a/blobs/{registry.push('a', small)}").body == small
    finally:
        agent.stop()
