"""Preloads: a dockerd that speaks from a script, and a ctr that is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from klein import Klein
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.web.server import Site

from krakentx.agent.config import ContainerdConfig, DockerConfig
from krakentx.agent.preload import Containerd, Docker, Preloader, pull_problem
from krakentx.core.errors import ConfigError, InvalidInput, NotFound, Unavailable


def _lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\r\n" for value in values)


@pytest.mark.parametrize(
    ("progress", "problem"),
    [
        (b"", None),
        (_lines({"status": "Pulling"}, {"status": "Downloaded"}), None),
        (
            _lines({"status": "Pulling"}, {"error": "manifest for x not found", "errorDetail": {}}),
            "manifest for x not found",
        ),
        (_lines({"errorDetail": {"message": "no space"}}), "no space"),
        (b"not json\n" + _lines({"error": "late"}), "late"),
    ],
)
def test_s45_an_error_within_the_progress_is_seen(progress: bytes, problem: str | None) -> None:
    assert pull_problem(progress) == problem


@pytest_twisted.async_yield_fixture
async def dockerd(tmp_path: Path):
    """A daemon on a unix socket; set `.answer` to (status, body)."""

    class Daemon:
        path = tmp_path / "docker.sock"
        answer = (200, _lines({"status": "ok"}))
        asked: list[tuple[str, dict[bytes, list[bytes]]]] = []

    daemon = Daemon()
    daemon.asked = []
    app = Klein()

    @app.route("/", branch=True, methods=["POST"])
    def create(request: Any) -> bytes:
        daemon.asked.append((request.path.decode(), request.args))
        request.setResponseCode(daemon.answer[0])
        return daemon.answer[1]

    port = reactor.listenUNIX(str(daemon.path), Site(app.resource()))
    yield daemon
    await port.stopListening()


def _docker(daemon: Any, timeout_s: float = 5.0, **changes: str) -> Docker:
    config = DockerConfig(docker_host=f"unix://{daemon.path}", **changes)
    return Docker(config, reactor=reactor, registry=lambda: "127.0.0.1:16000", timeout_s=timeout_s)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("version", "path"), [("", "/images/create"), ("1.21", "/v1.21/images/create")])
async def test_docker_is_told_to_pull_from_this_agent(dockerd, version, path) -> None:
    docker = _docker(dockerd, docker_version=version)
    await docker.pull("test/alpine", "latest", "")
    await docker.close()
    assert dockerd.asked == [(path, {b"fromImage": [b"127.0.0.1:16000/test/alpine"], b"tag": [b"latest"]})]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((200, _lines({"status": "Pulling"}, {"error": "no space left on device"})), Unavailable),
        ((200, _lines({"error": "manifest for a:b not found"})), NotFound),
        ((404, _lines({"message": "no such image"})), NotFound),
        ((500, _lines({"message": "boom"})), Unavailable),
    ],
)
async def test_a_pull_that_failed_is_no_success(dockerd, answer, error) -> None:
    dockerd.answer = answer
    docker = _docker(dockerd)
    with pytest.raises(error):
        await docker.pull("a", "b", "")
    await docker.close()


@pytest_twisted.ensureDeferred
async def test_no_daemon_is_unavailable(tmp_path: Path) -> None:
    config = DockerConfig(docker_host=f"unix://{tmp_path}/none.sock")
    docker = Docker(config, reactor=reactor, registry=lambda: "x", timeout_s=5.0)
    with pytest.raises(Unavailable):
        await docker.pull("a", "b", "")


@pytest.mark.parametrize("host", ["", "docker.sock", "unix://", "http://h:1", "tcp://:"])
def test_an_address_of_docker_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="docker_host"):
        Docker(DockerConfig(docker_host=host), reactor=reactor, registry=lambda: "x", timeout_s=5.0)


def _containerd(tmp_path: Path, script: str, timeout_s: float = 5.0) -> Containerd:
    ctr = tmp_path / "ctr"
    ctr.write_text(f"#!/bin/sh\n{script}\n")
    ctr.chmod(0o755)
    return Containerd(ContainerdConfig("/run/c.sock", str(ctr)), reactor, lambda: "127.0.0.1:16000", timeout_s)


@pytest_twisted.ensureDeferred
async def test_ctr_is_told_to_pull_from_this_agent(tmp_path: Path) -> None:
    said = tmp_path / "said"
    containerd = _containerd(tmp_path, f'echo "$@" >> {said}')
    await containerd.pull("test/alpine", "latest", "")
    await containerd.pull("a", "b", "k8s.io")
    assert said.read_text().splitlines() == [
        "--address /run/c.sock images pull --plain-http 127.0.0.1:16000/test/alpine:latest",
        "--address /run/c.sock --namespace k8s.io images pull --plain-http 127.0.0.1:16000/a:b",
    ]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("script", "error", "word"),
    [
        ("echo progress; echo ctr: content is broken >&2; exit 1", Unavailable, "broken"),
        ('echo "ctr: failed to resolve reference: a:b: not found" >&2; exit 1', NotFound, "a:b"),
        ("exit 3", Unavailable, "ended with 3"),
        ("exec sleep 60", Unavailable, "not done"),
    ],
)
async def test_a_run_of_ctr_that_failed_is_no_success(tmp_path, script, error, word) -> None:
    with pytest.raises(error, match=word):
        await _containerd(tmp_path, script, timeout_s=0.5).pull("a", "b", "")


@pytest_twisted.ensureDeferred
async def test_a_missing_ctr_is_told(tmp_path: Path) -> None:
    config = ContainerdConfig("/run/c.sock", str(tmp_path / "none"))
    with pytest.raises(Unavailable):
        await Containerd(config, reactor, lambda: "x", 5.0).pull("a", "b", "")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("tag", "runtime"), [("a", "docker"), ("A:b", "docker"), ("a:b", "rkt")])
async def test_what_cannot_be_preloaded_is_refused(tag: str, runtime: str) -> None:
    with pytest.raises(InvalidInput):
        await Preloader({"docker": None}).preload(tag, runtime, "")


@pytest_twisted.ensureDeferred
async def test_any_number_may_ask_and_a_few_are_served_at_once() -> None:
    class Runtime:
        running = most = 0

        async def pull(self, repo: str, tag: str, namespace: str) -> None:
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await deferLater(reactor, 0.01)
            finally:
                self.running -= 1

    runtime = Runtime()
    preloader = Preloader({"docker": runtime})
    asked = [Deferred.fromCoroutine(preloader.preload("a:b", "docker", "")) for _ in range(50)]
    for each in asked[10:30]:  # some run, some wait
        each.addErrback(lambda failure: failure.trap(CancelledError))
        each.cancel()
    await gatherResults(asked)
    assert (runtime.running, runtime.most) == (0, 16)
    await preloader.preload("a:b", "docker", "")
