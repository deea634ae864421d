"""Having a container runtime of this host pull an image through this agent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import quote

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from krakentx.agent.config import ContainerdConfig, DockerConfig
from krakentx.core.errors import ConfigError, InvalidInput, NotFound, Unavailable
from krakentx.core.imagename import parse_tag
from krakentx.core.peer import parse_address
from krakentx.web.client import HttpClient

_AT_ONCE = 16
_MAX_PROGRESS = 64 << 20
_LAST_WORDS_BYTES = 2048


class IRuntime(Protocol):
    """A container runtime."""

    async def pull(self, repo: str, tag: str, namespace: str) -> None:
        """Pull `repo:tag` from this agent. Raises: NotFound: there is no such image. Unavailable: it failed."""


@frozen
class Preloader:
    """The runtimes by name."""

    runtimes: dict[str, IRuntime]
    # Anybody may ask for any number; more at once than this only wait, with no process and no memory of their own.
    _turns: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(_AT_ONCE), init=False)

    async def preload(self, tag: str, runtime: str, namespace: str) -> None:
        """Pull, and return when it is done.

        Args:
            tag: `repo:tag`.
            namespace: of containerd; empty for its default.

        Raises:
            InvalidInput: no such runtime, or no tag. NotFound, Unavailable.
        """
        repo, name = parse_tag(tag)
        if runtime not in self.runtimes:
            raise InvalidInput("parameter", f"unsupported container runtime {runtime[:80]!r}")
        await self._turns.acquire()
        try:
            await self.runtimes[runtime].pull(repo, name, namespace)
        finally:
            self._turns.release()


@implementer(IAgentEndpointFactory)
class _Socket:
    """Connects to the daemon whatever the URL says."""

    def __init__(self, reactor: Any, host: str) -> None:
        scheme, _, rest = host.partition("://")
        address, _, self.base = rest.partition("/") if scheme == "tcp" else (rest, "", "")
        if scheme == "unix" and address:
            self._make: Callable[[], Any] = lambda: UNIXClientEndpoint(reactor, address, timeout=5)
        elif scheme == "tcp":
            try:
                name, port = parse_address(address, 2375)
            except InvalidInput as error:
                raise ConfigError(f"docker_host: {error.message}") from error
            self._make = lambda: HostnameEndpoint(reactor, name, port)
        else:
            raise ConfigError(f"docker_host: {host!r}; write unix:///path or tcp://host:port")

    def endpointForURI(self, _uri: URI) -> Any:
        """Called by the HTTP agent."""
        return self._make()


class Docker:
    """dockerd, over its HTTP API.

    Args:
        registry: gives `host:port` of this agent's registry as the runtime reaches it.
        timeout_s: for one pull.
    """

    def __init__(self, config: DockerConfig, *, reactor: Any, registry: Callable[[], str], timeout_s: float) -> None:
        socket = _Socket(reactor, config.docker_host)
        self._http = HttpClient(reactor, agent=Agent.usingEndpointFactory(reactor, socket))
        version = f"/v{config.docker_version}" if config.docker_version else ""
        base = f"/{socket.base.strip('/')}" if socket.base else ""
        self._url = f"http://docker{base}{version}/images/create"
        self._registry = registry
        self._timeout_s = timeout_s

    async def close(self) -> None:
        """Close idle connections."""
        await self._http.close()

    async def pull(self, repo: str, tag: str, namespace: str) -> None:
        """See `IRuntime`."""
        image = quote(f"{self._registry()}/{repo}", safe="")
        response = await self._http.request(
            "POST",
            f"{self._url}?fromImage={image}&tag={quote(tag, safe='')}",
            headers={"X-Registry-Auth": "", "Host": "docker"},
            timeout_s=self._timeout_s,
            ok=(200, 404),
            max_body=_MAX_PROGRESS,
        )
        problem = pull_problem(response.body)
        if response.status == 404 or (problem and "not found" in problem):
            raise NotFound("tag", f"{repo}:{tag}")
        if problem:
            raise Unavailable("docker pull", problem)


def pull_problem(progress: bytes) -> str | None:
    """What docker says went wrong, in the progress of a pull whose status was 200 all the same."""
    for line in progress.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and (value.get("error") or value.get("errorDetail")):
            detail = value.get("errorDetail")
            return str(value.get("error") or (detail.get("message") if isinstance(detail, dict) else detail))
    return None


@frozen
class Containerd:
    """containerd, by its own `ctr`: the gRPC API would need all of its client's unpacking here again.

    Args: see `Docker`.
    """

    config: ContainerdConfig
    reactor: Any
    registry: Callable[[], str]
    timeout_s: float

    async def pull(self, repo: str, tag: str, namespace: str) -> None:
        """See `IRuntime`."""
        argv = [self.config.ctr, "--address", self.config.address]
        if namespace:
            argv += ["--namespace", namespace]
        argv += ["images", "pull", "--plain-http", f"{self.registry()}/{repo}:{tag}"]
        child = _Child()
        try:
            self.reactor.spawnProcess(child, argv[0], argv, env=None)
            status, words = await child.ended.addTimeout(self.timeout_s, self.reactor)
        except OSError as error:
            raise Unavailable("containerd pull", f"cannot run {self.config.ctr}: {error.strerror}") from error
        except TimeoutError as error:
            raise Unavailable("containerd pull", f"not done after {self.timeout_s:.0f} s") from error
        if status != 0:
            if "not found" in words:
                raise NotFound("tag", f"{repo}:{tag}")
            raise Unavailable("containerd pull", words or f"{self.config.ctr} ended with {status}")


@define(eq=False)
class _Child(ProcessProtocol):
    """One run of ctr; cancelling `ended` kills it."""

    ended: Deferred[tuple[int, str]] = field(init=False)
    _said: bytes = field(default=b"", init=False)

    def __attrs_post_init__(self) -> None:
        self.ended = Deferred(self._kill)

    def _kill(self, _ended: Deferred[tuple[int, str]]) -> None:
        try:
            if self.transport is not None:
                self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            pass
        self.ended.errback(CancelledError())

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Called by Twisted: progress on 1, errors on 2."""
        if childFD == 2:
            self._said = (self._said + data)[-_LAST_WORDS_BYTES:]

    def processEnded(self, reason: Failure) -> None:
        """Called by Twisted."""
        if not self.ended.called:
            lines = self._said.decode(errors="replace").strip().splitlines()
            status: Any = reason.value
            code = status.exitCode if status.exitCode is not None else -1
            self.ended.callback((code, lines[-1] if lines else ""))
