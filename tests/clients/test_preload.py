"""An agent has the runtimes of its host pull through it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.tools import Containerd, Docker, Images, skopeo_push
from tests.cluster import Agent, Cluster
from tests.herd.test_kill import request

IMAGE = "test/preloaded:v1"
ESCAPED = "test%2Fpreloaded:v1"


@pytest.fixture
def agent(cluster: Cluster, images: Images, docker: Docker, containerd: Containerd, tmp_path: Path) -> Iterator[Agent]:
    """One more agent, which knows both runtimes; the image is in the herd."""
    skopeo_push(f"docker-archive:{images.folder / 'busybox.tar'}", f"{cluster.proxy}/{IMAGE}")
    runtimes = {
        "docker": {"docker_host": docker.host},
        "containerd": {"address": str(containerd.folder / "sock")},
    }
    (tmp_path / "agent.yaml").write_text(json.dumps({"container_runtime": runtimes}))
    agent = Agent.make(tmp_path / "agent", cluster.herd, f"--config={tmp_path / 'agent.yaml'}")
    agent.start()
    yield agent
    agent.stop()


def test_a_preloaded_image_is_in_the_runtime(agent: Agent, docker: Docker, containerd: Containerd) -> None:
    here = f"127.0.0.1:{agent.port}/{IMAGE}"
    for query in ("", "?runtime=docker"):
        assert request(agent.management_port, "GET", f"/preload/tags/{ESCAPED}{query}")[0] == 200
    assert docker("image", "inspect", here, "--format", "{{.Os}}").strip() == "linux"
    docker.forget(here)
    path = f"/preload/tags/{ESCAPED}?runtime=containerd&namespace=preloads"
    status, _, body = request(agent.management_port, "GET", path)
    assert status == 200, body
    assert here in containerd("--namespace", "preloads", "images", "ls", "-q").split()


@pytest.mark.parametrize("runtime", ["docker", "containerd"])
def test_an_image_that_is_not_there_is_404(agent: Agent, runtime: str) -> None:
    status, _, body = request(agent.management_port, "GET", f"/preload/tags/test%2Fnone:v1?runtime={runtime}")
    assert status == 404, body
