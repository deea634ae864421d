"""A herd and agents in this process, on ports of the moment, and a client that speaks as docker does."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.web.client import Agent, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from krakentx.agent.config import AgentConfig
from krakentx.agent.service import AgentService
from krakentx.agent.service import build as build_agent
from krakentx.buildindex.config import BuildIndexConfig
from krakentx.clients.config import HostsConfig, PassiveUpstreamConfig, TrackerConfig
from krakentx.core.digest import Digest
from krakentx.core.metainfo import PieceLengths
from krakentx.herd.config import HerdConfig
from krakentx.herd.service import HerdService
from krakentx.herd.service import build as build_herd
from krakentx.origin.config import MetaInfoGenConfig, OriginConfig
from krakentx.proxy.config import ProxyConfig, ServerConfig
from krakentx.swarm.config import SwarmConfig
from krakentx.testfs.config import TestfsConfig
from krakentx.tracker.config import TrackerConfig as TrackerPart
from tests.ports import free_ports

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
PIECE = 64 << 10


def herd_config(folder: Path, piece: int = PIECE, **origin: Any) -> HerdConfig:
    """A herd on free ports."""
    testfs, proxy, server, peer, blobs, tracker, index = free_ports(7)
    origin = {"peer_ip": "127.0.0.1", **origin}
    return HerdConfig(
        data_dir=folder,
        testfs=TestfsConfig(port=testfs),
        origin=OriginConfig(
            port=blobs,
            peer_port=peer,
            metainfogen=MetaInfoGenConfig(PieceLengths(((0, piece),))),
            **origin,
        ),
        tracker=TrackerPart(port=tracker),
        build_index=BuildIndexConfig(port=index),
        proxy=ProxyConfig(port=(proxy,), server=ServerConfig(port=server)),
    )


def agent_config(herd: HerdConfig, folder: Path, **changes: Any) -> AgentConfig:
    """An agent of that herd, on free ports."""
    registry, server, peer = free_ports(3)
    fields: dict[str, Any] = {
        "data_dir": folder,
        "agent_registry_port": registry,
        "agent_server_port": server,
        "peer_port": peer,
        "peer_ip": "127.0.0.1",
        "tracker": TrackerConfig(HostsConfig(static=(f"127.0.0.1:{herd.tracker.port}",))),
        "build_index": PassiveUpstreamConfig(HostsConfig(static=(f"127.0.0.1:{herd.build_index.port}",))),
        "fallback": (f"127.0.0.1:{herd.origin.port}",),
        "scheduler": SwarmConfig(),
    }
    return AgentConfig(**{**fields, **changes})


@define
class World:
    """What runs, and where."""

    folder: Path
    herd_config: HerdConfig
    herd: HerdService
    agents: list[AgentService] = field(factory=list)
    running: list[Service] = field(factory=list)

    @classmethod
    async def start(cls, folder: Path, config: HerdConfig | None = None, agents: int = 0) -> World:
        """Start a herd, and agents."""
        config = config or herd_config(folder / "herd")
        herd = build_herd(config, reactor=reactor, rng=random.Random(1))
        world = cls(folder, config, herd)
        await world.run(herd)
        for _ in range(agents):
            await world.add_agent()
        return world

    async def run(self, service: Any) -> Any:
        """Start a service; `stop` ends it."""
        self.running.append(service)
        service.privilegedStartService()
        await maybeDeferred(service.startService)
        return service

    async def add_agent(self, **changes: Any) -> AgentService:
        """Start one more agent."""
        number = len(self.agents) + 1
        config = agent_config(self.herd_config, self.folder / f"agent-{number}", **changes)
        service = build_agent(config, reactor=reactor, rng=random.Random(number + 1), env={})
        self.agents.append(await self.run(service))
        return service

    async def restart_herd(self, config: HerdConfig | None = None) -> None:
        """Stop the herd and start one on the same ports and data."""
        await self.end(self.herd)
        self.herd_config = config or self.herd_config
        self.herd = await self.run(build_herd(self.herd_config, reactor=reactor, rng=random.Random(1)))

    async def restart_agent(self, index: int) -> AgentService:
        """The same for one agent."""
        old = self.agents[index]
        await self.end(old)
        config = agent_config(self.herd_config, self.folder / f"agent-{index + 1}")
        self.agents[index] = await self.run(build_agent(config, reactor=reactor, rng=random.Random(9), env={}))
        return self.agents[index]

    async def end(self, service: Any) -> None:
        """Stop one service."""
        self.running.remove(service)
        await maybeDeferred(service.stopService)

    async def stop(self) -> None:
        """Stop all of it, the last one first."""
        while self.running:
            await self.end(self.running[-1])

    @property
    def proxy(self) -> str:
        """Base URL of the proxy's registry."""
        return f"http://127.0.0.1:{self.herd_config.proxy.port[0]}"


def registry_of(agent: AgentService) -> str:
    """Base URL of an agent's registry."""
    return f"http://127.0.0.1:{agent.registry.port_number}"


def management_of(agent: AgentService) -> str:
    """Base URL of an agent's management port."""
    return f"http://127.0.0.1:{agent.management.port_number}"


@frozen
class Answer:
    """What came back. `first_s` and `total_s` are seconds since the request began; `whole` is False for a cut body.

    `length` is that of Content-Length, which Twisted's client keeps out of `headers`.
    """

    status: int
    headers: Headers
    body: bytes
    first_s: float
    total_s: float
    whole: bool
    length: Any

    def header(self, name: str) -> str:
        return self.headers.getRawHeaders(name, [""])[-1]

    def json(self) -> Any:
        return json.loads(self.body)


@implementer(IBodyProducer)
class Chunks:
    """A body of unknown length, as docker sends layers."""

    length = UNKNOWN_LENGTH

    def __init__(self, data: bytes, size: int = 1 << 16) -> None:
        self._parts = [data[at : at + size] for at in range(0, len(data), size)]
        self._paused = False
        self._done: Deferred[None] = Deferred()
        self._consumer: Any = None

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self._consumer = consumer
        self._produce()
        return self._done

    def _produce(self) -> None:
        while self._parts and not self._paused:
            self._consumer.write(self._parts.pop(0))
        if not self._parts and not self._done.called and not self._paused:
            self._done.callback(None)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._produce()

    def stopProducing(self) -> None:
        self._parts = []


@implementer(IBodyProducer)
class Whole:
    """A body with a length."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


class _Collect(Protocol):
    def __init__(self, began: float) -> None:
        self.began = began
        self.parts: list[bytes] = []
        self.first_s = 0.0
        self.done: Deferred[bool] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.first_s = self.first_s or reactor.seconds() - self.began
        self.parts.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.done.callback(bool(reason.check(ResponseDone)))


async def ask(
    method: str, url: str, body: Any = None, headers: dict[str, str] | None = None, limit_s: float = 60
) -> Answer:
    """One request on a connection of its own."""
    began = reactor.seconds()
    producer = Whole(body) if isinstance(body, bytes) else body
    sent = Headers({name: [value] for name, value in (headers or {}).items()})
    response = await Agent(reactor).request(method.encode(), url.encode(), sent, producer).addTimeout(limit_s, reactor)
    collect = _Collect(began)
    response.deliverBody(collect)
    whole = await collect.done.addTimeout(limit_s, reactor)
    data = b"".join(collect.parts)
    return Answer(
        response.code, response.headers, data, collect.first_s, reactor.seconds() - began, whole, response.length
    )


async def push_blob(base: str, repo: str, data: bytes) -> Answer:
    """POST, PATCH without a length, PUT: returns the last answer, or the first one that is no success."""
    begun = await ask("POST", f"{base}/v2/{repo}/blobs/uploads/", b"")
    if begun.status != 202:
        return begun
    patched = await ask("PATCH", _at(base, begun), Chunks(data))
    if patched.status != 202:
        return patched
    place = _at(base, patched)
    return await ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={Digest.of(data)}", b"")


def _at(base: str, answer: Answer) -> str:
    place = answer.header("Location")
    return place if place.startswith("http") else base + place


@frozen
class Image:
    """A config and layers."""

    config: bytes
    layers: tuple[bytes, ...]

    @classmethod
    def make(cls, seed: int, *sizes: int) -> Image:
        rng = random.Random(seed)
        return cls(json.dumps({"seed": seed}).encode(), tuple(rng.randbytes(size) for size in sizes))

    @property
    def manifest(self) -> bytes:
        def entry(data: bytes) -> dict[str, Any]:
            return {"mediaType": "application/octet-stream", "digest": str(Digest.of(data)), "size": len(data)}

        layers = [entry(layer) for layer in self.layers]
        value = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": entry(self.config), "layers": layers}
        return json.dumps(value).encode()

    @property
    def digest(self) -> Digest:
        return Digest.of(self.manifest)

    @property
    def blobs(self) -> tuple[bytes, ...]:
        return (self.config, *self.layers)


async def push(base: str, repo: str, tag: str, image: Image) -> Answer:
    """Push an image; the answer to its manifest, or to the blob that was not taken."""
    for data in image.blobs:
        answer = await push_blob(base, repo, data)
        if answer.status != 201:
            return answer
    return await ask("PUT", f"{base}/v2/{repo}/manifests/{tag}", image.manifest, {"Content-Type": MANIFEST_TYPE})


async def pull(base: str, repo: str, tag: str) -> Image:
    """Pull an image and check every digest."""
    manifest = await ask("GET", f"{base}/v2/{repo}/manifests/{tag}")
    assert manifest.status == 200, manifest.body
    assert manifest.header("Docker-Content-Digest") == str(Digest.of(manifest.body))
    value = manifest.json()
    blobs = []
    for entry in [value["config"], *value["layers"]]:
        answer = await ask("GET", f"{base}/v2/{repo}/blobs/{entry['digest']}")
        assert answer.status == 200, answer.body
        assert str(Digest.of(answer.body)) == entry["digest"]
        blobs.append(answer.body)
    return Image(blobs[0], tuple(blobs[1:]))


async def until(holds: Callable[[], Any], limit_s: float = 10.0) -> None:
    """Wait until `holds()` (or what it returns when awaited) is true."""
    deadline = reactor.seconds() + limit_s
    while True:
        value = holds()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return
        assert reactor.seconds() < deadline, "it did not come to hold in time"
        await deferLater(reactor, 0.02)


def evolved(config: Any, **changes: Any) -> Any:
    """A configuration with other values; `section__key=value` reaches into a section."""
    for name, value in changes.items():
        section, _, key = name.partition("__")
        changed = evolved(getattr(config, section), **{key: value}) if key else value
        config = attrs.evolve(config, **{section: changed})
    return config
