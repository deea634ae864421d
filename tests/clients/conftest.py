"""The real clients, shared by all tests of this folder; the herd and its agents are in tests/conftest.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.tools import Containerd, Docker, Images, Podman, short_folder
from tests.cluster import Cluster


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The test images, built once."""
    return Images.make(tmp_path_factory.mktemp("images"))


@pytest.fixture
def agent_pair(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with both agents running, and running again afterwards."""
    yield cluster
    for agent in cluster.agents:
        agent.start()


@pytest.fixture(scope="session")
def docker(cluster: Cluster) -> Iterator[Docker]:
    """A docker daemon whose registry-mirrors are the two agents."""
    with Docker.start([f"http://{agent.registry}" for agent in cluster.agents]) as docker:
        yield docker


@pytest.fixture(scope="session")
def containerd() -> Iterator[Containerd]:
    """A containerd."""
    with Containerd.start() as containerd:
        yield containerd


@pytest.fixture
def podman() -> Iterator[Podman]:
    """Podman and buildah with empty storage."""
    with short_folder() as folder:
        yield Podman(folder)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for what skopeo pulls."""
    return tmp_path / "out"
