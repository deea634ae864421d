"""Every route of every part of a real herd and agent: names escaped once or twice, and whatever else strangers send."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import ssl
import time
from pathlib import Path

import pytest
from attrs import frozen

from tests.cluster import Cluster, request

pytestmark = [pytest.mark.integration, pytest.mark.timeout(110)]

REPO, TAG = "test/alpine", "test/alpine:1"
BLOB = b"a blob for all routes"
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"
REPOS = ["test/alpine", "test%2Falpine", "test%2falpine", "test%252Falpine", "test%252falpine"]
TAGS = ["test/alpine:1", "test%2Falpine:1", "test%2Falpine%3A1", "test%252Falpine%253A1", "test%252Falpine:1"]
DIGESTS = [DIGEST, DIGEST.replace(":", "%3A"), DIGEST.replace(":", "%253A"), "sha256:" + DIGEST[7:].upper()]
PARTS = ["testfs", "proxy", "management", "origin", "tracker", "index", "agent", "agent management"]


def port_of(cluster: Cluster, part: str) -> int:
    herd, agent = cluster.herd, cluster.agents[0]
    return {
        "testfs": herd.testfs_port,
        "proxy": herd.proxy_port,
        "management": herd.management_port,
        "origin": herd.origin_port,
        "tracker": herd.tracker_port,
        "index": herd.index_port,
        "agent": agent.port,
        "agent management": agent.management_port,
    }[part]


@pytest.fixture(scope="module")
def pushed(cluster: Cluster) -> str:
    """The digest of `test/alpine:1`, an index without manifests; BLOB is in the same repository."""
    proxy = cluster.herd.proxy_port
    manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []})
    assert request(proxy, "POST", f"/v2/{REPO}/blobs/uploads/?digest={DIGEST}", BLOB).status == 201
    put = request(proxy, "PUT", f"/v2/{REPO}/manifests/1", manifest.encode())
    assert put.status == 201
    return put.headers["docker-content-digest"]


# ---- names with a slash


@frozen
class Route:
    """One route with a name in it: `{repo}`, `{tag}` and `{digest}` of the path are filled in by every form of them."""

    part: str
    method: str
    path: str
    status: int = 200
    answer: bytes | None = None
    body: bytes | None = None

    @property
    def paths(self) -> list[str]:
        forms = REPOS if "{repo}" in self.path else TAGS
        digests = DIGESTS if "{digest}" in self.path else [""]
        pairs = [(form, digests[0]) for form in forms] + [(forms[1], digest) for digest in digests]
        return [self.path.format(repo=form, tag=form, digest=digest) for form, digest in pairs]


EMPTY = b""
DELAY = b'{"Delay": 0}'
COPY = b'{"delay": 0, "dependencies": []}'
ROUTES = [
    Route("agent management", "GET", "/tags/{tag}"),
    Route("agent management", "GET", "/namespace/{repo}/blobs/{digest}", answer=BLOB),
    Route("agent management", "HEAD", "/namespace/{repo}/blobs/{digest}", answer=EMPTY),
    Route("agent management", "GET", "/preload/tags/{tag}?runtime=none", 400),
    Route("origin", "GET", "/namespace/{repo}/blobs/{digest}", answer=BLOB),
    Route("origin", "HEAD", "/internal/namespace/{repo}/blobs/{digest}", answer=EMPTY),
    Route("origin", "GET", "/internal/namespace/{repo}/blobs/{digest}/metainfo"),
    Route("origin", "POST", "/namespace/{repo}/blobs/{digest}/prefetch", answer=EMPTY),
    Route("origin", "GET", "/blobs/{digest}/locations", answer=EMPTY),
    Route("origin", "PUT", "/namespace/{repo}/blobs/{digest}/uploads/none", 409),  # it is there already
    Route("origin", "PUT", "/internal/duplicate/namespace/{repo}/blobs/{digest}/uploads/none", 409, body=DELAY),
    Route("origin", "POST", "/namespace/{repo}/blobs/{digest}/remote/127.0.0.1:1", 503),
    Route("tracker", "GET", "/namespace/{repo}/blobs/{digest}/metainfo"),
    Route("index", "GET", "/tags/{tag}"),
    Route("index", "HEAD", "/tags/{tag}", answer=EMPTY),
    Route("index", "PUT", "/tags/{tag}/digest/{digest}", 400),  # a layer is no manifest
    Route("index", "GET", "/repositories/{repo}/tags"),
    Route("index", "GET", "/list/{repo}"),
    Route("index", "POST", "/remotes/tags/{tag}", answer=EMPTY),
    Route("index", "POST", "/internal/duplicate/remotes/tags/{tag}/digest/{digest}", body=COPY),
]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.part} {route.method} {route.path}")
def test_names_escaped_once_or_twice_are_one_name(cluster: Cluster, pushed: str, route: Route) -> None:
    answers = [request(port_of(cluster, route.part), route.method, path, route.body) for path in route.paths]
    assert [answer.status for answer in answers] == [route.status] * len(answers), answers[0].body
    # A page names its own address.
    bodies = {
        answer.body.partition(b'"size"')[2] if answer.body.startswith(b'{"Links') else answer.body for answer in answers
    }
    assert len(bodies) == 1, bodies
    assert route.answer is None or bodies == {route.answer}
    if route.path == "/tags/{tag}" and route.method == "GET":
        assert bodies == {pushed.encode()}


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_is_put_under_any_form_of_its_name(cluster: Cluster, pushed: str, tag: str) -> None:
    index = port_of(cluster, "index")
    for prefix, body in (("", None), ("/internal/duplicate", COPY)):
        assert request(index, "PUT", f"{prefix}/tags/{tag}/digest/{pushed}", body).status == 200
    assert request(index, "GET", "/tags/test%2Falpine:1").body == pushed.encode()
    names = json.loads(request(index, "GET", "/list/").body)["result"]
    assert [name for name in names if "alpine" in name] == [TAG], "nothing was stored under an escaped name"


@pytest.mark.parametrize("repo", REPOS)
def test_a_blob_is_uploaded_under_any_form_of_its_namespace(cluster: Cluster, repo: str) -> None:
    origin = port_of(cluster, "origin")
    data = os.urandom(1000)
    base = f"/namespace/{repo}/blobs/sha256:{hashlib.sha256(data).hexdigest()}"
    uid = request(origin, "POST", f"{base}/uploads").headers["location"]
    assert request(origin, "PATCH", f"{base}/uploads/{uid}", data, {"Content-Range": "0-1000"}).status == 200
    assert request(origin, "PUT", f"{base}/uploads/{uid}").status == 200
    assert request(origin, "GET", base).body == data


def test_names_in_a_prefetch_are_plain(cluster: Cluster, pushed: str) -> None:
    for version in ("v1", "v2"):
        path = f"/proxy/{version}/registry/prefetch"
        for tag, status in ((f"registry.example/{TAG}", 200), ("registry.example/test%2Falpine:1", 400)):
            answer = request(port_of(cluster, "management"), "POST", path, json.dumps({"tag": tag}).encode())
            assert (answer.status, answer.json()["prefetched"]) == (status, status == 200), answer.body


def test_a_registry_takes_names_escaped_once(cluster: Cluster, pushed: str) -> None:
    for part in ("proxy", "agent"):
        for name, status in (("test%2Falpine", 200), ("test%252Falpine", 400)):
            answer = request(port_of(cluster, part), "GET", f"/v2/{name}/manifests/1")
            assert answer.status == status
        assert answer.code == "NAME_INVALID"


# ---- strangers


def say(port: int, data: bytes, within_s: float = 5.0) -> bytes:
    """All that a part answers to these bytes until it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=within_s) as client:
        answer = b""
        try:
            client.sendall(data)
            while part := client.recv(65536):
                answer += part
        except ConnectionError:
            pass  # it need not read all of that
        return answer


def assert_plain(answer: bytes, what: object) -> None:
    """It tells nothing of our insides, and is no page for people."""
    assert b" 500 " not in answer.partition(b"\r\n")[0], (what, answer)
    for word in (b"Traceback", b'File "', b"<html", b"site-packages"):
        assert word not in answer, (what, answer)


@pytest.mark.parametrize("part", PARTS)
def test_a_tls_hello_is_answered_at_once(cluster: Cluster, part: str) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    began = time.monotonic()
    with (
        socket.create_connection(("127.0.0.1", port_of(cluster, part)), timeout=10) as raw,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(raw)
    assert time.monotonic() - began < 0.5


RAW = [
    b"GET\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET http://other.example/v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET //// HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: \xff\xfe\r\nConnection: close\r\n\r\n",
    b"GET /v2/\x00 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /%00%0d%0aX:%20y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost a\r\n\r\n",
    b"G\x00T /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 1e3\r\n\r\n",
    b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"POST /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"POST /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\nzz\r\n\r\n",
    b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n",
    b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\nabc\r\n",
    b"GET /v2/ HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
    b"GET /v2/ HTTP/1.1\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
]


@pytest.mark.parametrize("part", PARTS)
def test_what_is_no_http_is_refused_at_once(cluster: Cluster, part: str) -> None:
    for data in RAW:
        assert_plain(say(port_of(cluster, part), data), data[:80])
    assert request(port_of(cluster, part), "GET", "/v2/" if part in ("proxy", "agent") else "/health").status == 200


REACHES = {
    "testfs": ["/files/{}", "/list/{}"],
    "proxy": [
        *("/v2/{}/manifests/{}", "/v2/{}/blobs/{}", "/v2/{}/blobs/uploads/", "/v2/{}/blobs/uploads/{}?digest={}"),
        *("/v2/{}/tags/list?n={}&last={}", "/v2/{}/referrers/{}?artifactType={}", "/v2/_catalog?n={}&last={}"),
        "/v2/{}/blobs/uploads/?mount={}&from={}",
    ],
    "management": [
        *("/registry/notifications", "/proxy/v1/registry/prefetch", "/proxy/v2/registry/prefetch"),
        *("/health", "/readiness", "/metrics"),
    ],
    "origin": [
        *("/namespace/{}/blobs/{}", "/namespace/{}/blobs/{}/prefetch", "/namespace/{}/blobs/{}/uploads"),
        *("/namespace/{}/blobs/{}/uploads/{}", "/internal/duplicate/namespace/{}/blobs/{}/uploads/{}"),
        *("/internal/namespace/{}/blobs/{}?local={}", "/internal/namespace/{}/blobs/{}/metainfo"),
        *(
            "/blobs/{}/locations",
            "/internal/peercontext",
            "/internal/blobs/{}/uploads",
            "/internal/blobs/{}/uploads/{}",
        ),
        *("/internal/blobs/{}", "/internal/blobs/{}/metainfo?piece_length={}", "/forcecleanup?ttl_hr={}"),
        *("/namespace/{}/blobs/{}/remote/{}", "/x/config/scheduler"),
    ],
    "tracker": ["/announce", "/announce/{}", "/namespace/{}/blobs/{}/metainfo"],
    "index": [
        *("/tags/{}/digest/{}?replicate={}", "/tags/{}", "/repositories/{}/tags?limit={}&offset={}", "/list/{}"),
        *("/remotes/tags/{}", "/origin", "/internal/duplicate/tags/{}/digest/{}"),
        "/internal/duplicate/remotes/tags/{}/digest/{}",
    ],
    "agent": [
        "/v2/{}/manifests/{}",
        "/v2/{}/blobs/{}",
        "/v2/{}/tags/list?n={}",
        "/v2/{}/referrers/{}",
        "/v2/_catalog?n={}",
    ],
    "agent management": [
        *("/tags/{}", "/namespace/{}/blobs/{}", "/blobs/{}", "/preload/tags/{}?runtime={}&namespace={}"),
        *("/x/config/scheduler", "/x/blacklist"),
    ],
}
WORDS = [
    *("", "a", "a:b", DIGEST, DIGEST.upper(), "sha512:" + "0" * 128, "sha256:", "..", "../../etc/passwd", "%2e%2e%2f"),
    *("%", "%zz", "%00", "a%00b", "%ff%fe", "%25", "%252F", "%0d%0aX:1", "a" * 5000, "a/" * 3000, "*", ":", "\\"),
    *("%F0%9F%98%80", "-1", "9" * 400, "1e9", "true", "__noop__", "null", "[]", "%20", ";", "?", "//", ".", "%C3%A9"),
]
METHODS = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "get"]
HEADERS = [
    *("X: y", "Range: bytes=0-0", "Range: bytes=--", "Range: " + "x" * 5000, "If-Range: x\r\nRange: bytes=1-"),
    *("Content-Range: 5-3", "Content-Range: bytes 0-1/2", "Content-Range: 0-" + "9" * 400, "Content-Range: 0-1"),
    *("Content-Type: \x00", "Content-Type: application/vnd.oci.image.index.v1+json", "Content-Encoding: gzip"),
    *('If-None-Match: "', "Accept: " + "a," * 2000, "Expect: 100-continue", "Cookie: " + "x" * 8000),
]
NUMBER = b"9" * 400
BODIES = [
    *(b"", b"{", b"null", b"[]", b"{}", b'"x"', b"1", b"\xff\xfe", b"\0" * 9, b"[" * 60_000, b"x" * 70_000),
    *(b'{"tag":1}', b'{"tag":"a"}', b'{"tag":"h/a/b:c"}', b'{"events":{}}', b'{"events":[null,{"action":"push"}]}'),
    *(b'{"Delay":-1}', b'{"Delay":"x"}', b'{"Delay":NaN}', b'{"Delay":%b}' % NUMBER, b'{"delay":%b}' % NUMBER),
    *(b'{"dependencies":[1]}', b'{"dependencies":"x"}', b'{"SeederTTI":%b}' % NUMBER, b'{"Conn":7}'),
    *(b'{"digest":"%b","info_hash":"x","peer":{}}' % DIGEST.encode(), b'{"name":"x","peer":[]}'),
    b'{"name":"%b","info_hash":[],"peer":{"peer_id":[],"ip":"1.2.3.4","port":%b}}' % (DIGEST[7:].encode(), NUMBER),
]


def stranger(rng: random.Random, part: str) -> bytes:
    """A request that nobody should send."""
    path = rng.choice(REACHES[part])
    while "{}" in path:
        path = path.replace("{}", rng.choice(WORDS), 1)
    body = rng.choice(BODIES)
    method, header = rng.choice(METHODS), rng.choice(HEADERS)
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{header}\r\n"
    if rng.random() < 0.3:
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk + b"0\r\n\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("part", PARTS)
def test_strangers_get_an_answer_and_learn_nothing(cluster: Cluster, part: str) -> None:
    seed = os.environ.get("KRAKEN_TEST_SEED", "1")
    rng = random.Random(f"{seed} {part}")
    pids = cluster.pids
    for _ in range(int(os.environ.get("KRAKEN_TEST_STRANGERS", "150"))):
        data = stranger(rng, part)
        answer = say(port_of(cluster, part), data)
        assert answer.startswith(b"HTTP/1.1 "), (data[:300], answer)
        assert_plain(answer, data[:300])
    assert cluster.pids == pids and all(each.running for each in (cluster.herd, *cluster.agents))


def test_no_stranger_left_a_traceback_in_the_logs(cluster: Cluster) -> None:
    """Nobody expected it, if one is there: each of them is a bug of ours."""
    for each in (cluster.herd, *cluster.agents):
        log = Path(each.log).read_text(errors="replace")
        assert "Traceback" not in log, log[log.index("Traceback") :][:3000]
