"""Which backend serves which namespace, and the configuration of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import Factory, frozen
from twisted.internet import reactor

from krakentx.backend.config import BackendConfig
from krakentx.backend.file import FileBackend
from krakentx.backend.manager import BackendManager, build_backends
from krakentx.backend.noop import NoopBackend
from krakentx.backend.testfs import TestfsBackend
from krakentx.config.load import load
from krakentx.core.errors import ConfigError, NotFound


@frozen
class Section:
    backends: list[BackendConfig] = Factory(list)


@pytest.fixture
def build(tmp_path: Path, pool: Any, client: Any) -> Any:
    def build(text: str) -> BackendManager:
        file = tmp_path / "backends.yaml"
        file.write_text(text)
        return build_backends(load(Section, file).backends, client=client, reactor=reactor, pool=pool)

    return build


@pytest_twisted.ensureDeferred
async def test_first_match_wins_and_matches_anywhere(build) -> None:
    manager = build(
        """
backends:
  - namespace: ^library/
    backend: {file: {path: /srv/blobs, name_path: sharded_docker_blob}}
  - namespace: library|test
    backend:
      testfs: {addr: "localhost:14000", root: blobs, name_path: identity}
    bandwidth: {enable: true}
    must_ready: true
"""
    )
    assert isinstance(manager.find("library/alpine"), FileBackend)
    assert isinstance(manager.find("my/library"), TestfsBackend)
    assert manager.find("TODO") is None


@pytest_twisted.ensureDeferred
async def test_reserved_namespace(tmp_path) -> None:
    backend = BackendManager([(".*", NoopBackend())]).find("__noop__")
    assert isinstance(backend, NoopBackend)
    await backend.upload("__noop__", "x", tmp_path)
    assert await backend.list("") == []

    async def sink(data: bytes) -> None:
        raise AssertionError

    for work in (backend.stat("__noop__", "x"), backend.download("__noop__", "x", sink)):
        with pytest.raises(NotFound):
            await work


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{namespace: '(', backend: {testfs: {}}}", "regular expression"),
        ("{namespace: '.*', backend: {}}", "exactly one"),
        ("{namespace: '.*', backend: {testfs: {}, file: {path: /x}}}", "exactly one"),
        ("{namespace: '.*', backend: {testfs: {name_path: tags}}}", "name_path"),
        ("{namespace: '.*', backend: {file: {path: relative}}}", "absolute"),
        ("{namespace: '.*', backend: {tesfs: {}}}", "testfs"),
    ],
)
def test_mistakes_are_told(build, entry: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        build(f"backends: [{entry}]")
