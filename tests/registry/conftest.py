"""A registry in memory behind the real routes, and a client for it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput, KrakenError, NotFound, OutOfSpace, Unavailable
from krakentx.core.metainfo import MetaInfo
from krakentx.registry.api import registry_app
from krakentx.web.client import HttpClient, Response


class MemoryReader:
    """An IBlobReader. Bytes up to `released` may be served; `fail` is raised for what comes after them."""

    def __init__(self, digest: Digest, data: bytes, released: int | None = None, fail: KrakenError | None = None):
        self.digest = digest
        self.size = len(data)
        self.closed = 0
        self.released = self.size if released is None else released
        self.fail = fail
        self.waits: list[tuple[int, int]] = []
        self._more: Deferred[None] | None = None
        self._fd = os.memfd_create("blob")
        os.write(self._fd, data)

    def fileno(self) -> int:
        """The open file."""
        return self._fd

    async def wait(self, offset: int, stop: int) -> int:
        """See IBlobReader."""
        self.waits.append((offset, stop))
        while offset >= self.released:
            if self.fail is not None:
                raise self.fail
            self._more = Deferred()
            await self._more
        return min(stop, self.released)

    def release(self, upto: int) -> None:
        """More bytes may be served."""
        self.released = upto
        self.wake()

    def wake(self) -> None:
        """Let a waiting reader look again."""
        more, self._more = self._more, None
        if more is not None:
            more.callback(None)

    def close(self) -> None:
        """See IBlobReader."""
        self.closed += 1
        if self.closed == 1:
            os.close(self._fd)


@define(eq=False)
class MemoryUpload:
    """An IUpload."""

    owner: MemoryRegistry
    id: str = field(factory=lambda: str(uuid.uuid4()))
    data: bytearray = field(factory=bytearray)
    offset: int = 0

    @property
    def accepted(self) -> int:
        """See IUpload."""
        return self.offset

    async def write(self, data: bytes) -> None:
        """See IUpload."""
        if self.owner.gate is not None:
            await self.owner.gate
        if self.offset + len(data) > self.owner.room:
            raise OutOfSpace("/memory")
        self.offset += len(data)
        if self.owner.keep:
            self.data += data

    async def finish(self, digest: Digest) -> MetaInfo | None:
        """See IUpload."""
        del self.owner.uploads[self.id]
        got = Digest.of(bytes(self.data), digest.algorithm)
        if got != digest:
            raise InvalidInput("digest", f"the bytes hash to {got}, not {digest}")
        self.owner.blobs[digest] = bytes(self.data)
        return None

    async def abort(self) -> None:
        """See IUpload."""
        self.owner.uploads.pop(self.id, None)


class MemoryRegistry:
    """IBlobs, IPush and ITags in one. `down` makes every question fail as if the other parts were gone."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.names: dict[str, dict[str, Digest]] = {}
        self.uploads: dict[str, MemoryUpload] = {}
        self.readers: list[MemoryReader] = []
        self.opened: list[Digest] = []
        self.down = False
        self.room = 1 << 40
        self.keep = True
        self.gate: Deferred[None] | None = None
        self.make_reader: Callable[[Digest, bytes], MemoryReader] = MemoryReader

    def _up(self) -> None:
        if self.down:
            raise Unavailable("origin:15002", "connection refused")

    async def stat(self, repo: str, digest: Digest) -> int:
        """See IBlobs."""
        self._up()
        if digest not in self.blobs:
            raise NotFound("blob", digest)
        return len(self.blobs[digest])

    async def open(self, repo: str, digest: Digest) -> MemoryReader:
        """See IBlobs."""
        self._up()
        self.opened.append(digest)
        if digest not in self.blobs:
            raise NotFound("blob", digest)
        reader = self.make_reader(digest, self.blobs[digest])
        self.readers.append(reader)
        return reader

    async def begin(self, repo: str) -> MemoryUpload:
        """See IPush."""
        upload = MemoryUpload(self)
        self.uploads[upload.id] = upload
        return upload

    async def resume(self, repo: str, upload_id: str) -> MemoryUpload:
        """See IPush."""
        if upload_id not in self.uploads:
            raise NotFound("upload", upload_id)
        return self.uploads[upload_id]

    async def finish(self, repo: str, upload: MemoryUpload, digest: Digest) -> None:
        """See IPush."""
        self._up()
        await upload.finish(digest)

    async def put(self, repo: str, digest: Digest, data: bytes) -> None:
        """See IPush."""
        self._up()
        self.blobs[digest] = data

    async def mount(self, repo: str, digest: Digest, source: str | None) -> bool:
        """See IPush."""
        return digest in self.blobs

    async def get(self, repo: str, tag: str) -> Digest:
        """See ITags."""
        self._up()
        if tag not in self.names.get(repo, {}):
            raise NotFound("tag", f"{repo}:{tag}")
        return self.names[repo][tag]

    async def put_tag(self, repo: str, tag: str, digest: Digest) -> None:
        """ITags.put: the same name as IPush.put, so `Tags` calls it."""
        self._up()
        self.names.setdefault(repo, {})[tag] = digest

    async def tags(self, repo: str) -> list[str]:
        """See ITags."""
        self._up()
        if repo not in self.names:
            raise NotFound("name", repo)
        return sorted(self.names[repo])

    async def repositories(self) -> list[str]:
        """See ITags."""
        self._up()
        return sorted(self.names)


class Tags:
    """The ITags face of a MemoryRegistry."""

    def __init__(self, owner: MemoryRegistry) -> None:
        self.get = owner.get
        self.put = owner.put_tag
        self.tags = owner.tags
        self.repositories = owner.repositories


class Client:
    """Speaks to one registry; paths without a host."""

    def __init__(self, url: str, http: HttpClient, dial: Any) -> None:
        self.url = url
        self._http = http
        self._dial = dial

    async def __call__(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Response:
        """Any status is an answer. Underscores in the names of headers are dashes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._http.request(method, self.url + path, headers=named, body=body, ok=None)

    async def chunked(self, method: str, path: str, *parts: bytes, **headers: str) -> bytes:
        """Send a body of unknown length; the whole answer as bytes."""
        raw = await self._dial(urlsplit(self.url).port)
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{lines}\r\n"
        raw.send(head.encode())
        for part in parts:
            raw.send(b"%x\r\n" % len(part) + part + b"\r\n")
        raw.send(b"0\r\n\r\n")
        return await raw.closed()

    async def begin(self, repo: str) -> str:
        """Start an upload; its Location."""
        answer = await self("POST", f"/v2/{repo}/blobs/uploads/", b"")
        assert answer.status == 202
        return self.location(answer)

    async def push(self, repo: str, data: bytes, algorithm: str = "sha256") -> Digest:
        """Put a blob there the short way."""
        digest = Digest.of(data, algorithm)
        answer = await self("PUT", f"{await self.begin(repo)}?digest={digest}", data)
        assert answer.status == 201
        return digest

    @staticmethod
    def location(answer: Response) -> str:
        """Where to go on, as a path."""
        location = answer.header("Location")
        assert location
        return location if location.startswith("/") else urlsplit(location)._replace(scheme="", netloc="").geturl()


@pytest.fixture
def tags_of() -> type[Tags]:
    """Makes the ITags face."""
    return Tags


@pytest.fixture
def memory() -> MemoryRegistry:
    """What lies behind the routes."""
    return MemoryRegistry()


@pytest.fixture
def registry_url(memory: MemoryRegistry, serve: Any) -> str:
    """The registry that takes pushes, over what is in memory."""
    app = registry_app(blobs=memory, tags=Tags(memory), push=memory)
    return f"http://127.0.0.1:{serve(app.resource()).port_number}"


@pytest.fixture
def agent_url(memory: MemoryRegistry, serve: Any) -> str:
    """The read-only registry over the same content."""
    app = registry_app(blobs=memory, tags=Tags(memory), push=None)
    return f"http://127.0.0.1:{serve(app.resource()).port_number}"


class Split(Client):
    """Writes to one registry and reads from another one, as whoever pushes to a herd and pulls through an agent."""

    def __init__(self, writes: str, reads: str, http: HttpClient, dial: Any) -> None:
        super().__init__(writes, http, dial)
        self._reads = Client(reads, http, dial)

    async def __call__(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Response:
        """See Client."""
        if method in ("GET", "HEAD") and "/blobs/uploads/" not in path:
            return await self._reads(method, path, body, **headers)
        return await super().__call__(method, path, body, **headers)


@pytest.fixture
def registry(registry_url: str, http: HttpClient, dial: Any) -> Client:
    """A client of the registry that takes pushes."""
    return Client(registry_url, http, dial)


@pytest.fixture
def agent(agent_url: str, http: HttpClient, dial: Any) -> Client:
    """A client of the read-only registry."""
    return Client(agent_url, http, dial)


@pytest.fixture
def repo() -> str:
    """A repository that nobody used before."""
    return f"conformance/r{uuid.uuid4().hex[:12]}"


@pytest.fixture
def client_of(http: HttpClient, dial: Any) -> Callable[..., Client]:
    """Makes a client of one address, or one that writes to the first and reads from the second."""
    return lambda *urls: Split(*urls, http, dial) if len(urls) == 2 else Client(*urls, http, dial)


@pytest.fixture(params=["sha256", "sha512"])
def algorithm(request: pytest.FixtureRequest) -> str:
    """Each case that asks for it runs with both."""
    return str(request.param)
