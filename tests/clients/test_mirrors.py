"""The agent's day job: docker's registry-mirrors, containerd's hosts.toml, podman's mirrors; cuts and stops."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.clients.tools import Containerd, Cutter, Docker, Images, Podman, layers_of, program, run, skopeo_push
from tests.cluster import Agent, Cluster


@pytest.fixture(scope="module")
def library(cluster: Cluster, images: Images) -> None:
    """`library/busybox:latest`, as docker asks a mirror for `busybox`, and two more."""
    skopeo_push(images.archive, f"{cluster.proxy}/library/busybox:latest")
    skopeo_push(images.archive, f"{cluster.proxy}/company/app:v1")
    skopeo_push(images.source("oci-umoci", "big"), f"{cluster.proxy}/company/big:v1")
    skopeo_push(images.source("oci-umoci", "mid"), f"{cluster.proxy}/company/mid:v1")


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("name", ["busybox", "company/app:v1"])
def test_docker_pulls_through_its_mirror(docker: Docker, name: str) -> None:
    docker("pull", name)
    assert "runs from a test image" in docker("run", "--rm", "--network", "host", name)
    docker.forget(name)


@pytest.mark.usefixtures("library")
def test_docker_goes_on_to_the_second_mirror_when_the_first_is_stopped(agent_pair: Cluster, docker: Docker) -> None:
    agent_pair.agents[0].stop()
    began = time.monotonic()
    docker("pull", "company/app:v1")
    assert time.monotonic() - began < 15
    docker.forget("company/app:v1")


@pytest.mark.usefixtures("library")
def test_containerd_asks_an_agent_for_any_registry(cluster: Cluster, containerd: Containerd) -> None:
    hosts = containerd.hosts("docker.io", *(f"http://{agent.registry}" for agent in cluster.agents))
    containerd("images", "pull", "--hosts-dir", hosts, "docker.io/library/busybox:latest")
    text = containerd("run", "--rm", "--net-host", "docker.io/library/busybox:latest", "kx-mirror")
    assert "runs from a test image" in text
    containerd("images", "rm", "--sync", "docker.io/library/busybox:latest")


@pytest.mark.usefixtures("library")
def test_containerd_goes_on_when_the_first_agent_is_stopped(agent_pair: Cluster, containerd: Containerd) -> None:
    hosts = containerd.hosts("docker.io", *(f"http://{agent.registry}" for agent in agent_pair.agents))
    agent_pair.agents[0].stop()
    containerd("images", "pull", "--hosts-dir", hosts, "docker.io/company/app:v1")
    containerd("images", "rm", "--sync", "docker.io/company/app:v1")


@pytest.mark.usefixtures("library")
def test_s23_containerd_goes_on_from_an_agent_whose_herd_is_down(
    cluster: Cluster, containerd: Containerd, tmp_path: Path
) -> None:
    down = [f"--{part}=127.0.0.1:1" for part in ("tracker", "build-index", "fallback")]
    lonely = Agent.make(tmp_path / "lonely", cluster.herd, *down)
    lonely.checks = [(lonely.port, "/v2/")]
    lonely.start()
    try:
        hosts = containerd.hosts("docker.io", f"http://{lonely.registry}", f"http://{cluster.agents[1].registry}")
        began = time.monotonic()
        containerd("images", "pull", "--hosts-dir", hosts, "docker.io/company/app:v1")
        assert time.monotonic() - began < 5
    finally:
        lonely.stop()
        containerd("images", "rm", "--sync", "docker.io/company/app:v1")


@pytest.mark.usefixtures("library")
def test_podman_pulls_by_its_own_name_through_an_agent(cluster: Cluster, podman: Podman, tmp_path: Path) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text(
        '[[registry]]\nlocation = "registry.example.org"\n[[registry.mirror]]\n'
        f'location = "{cluster.agents[0].registry}"\ninsecure = true\n'
    )
    podman("--registries-conf", conf, "pull", "registry.example.org/company/app:v1")


@pytest.mark.usefixtures("library")
def test_containerd_resumes_a_cut_layer_with_range(cluster: Cluster, containerd: Containerd) -> None:
    cutter = Cutter(cluster.agents[1].port, after_bytes=3_000_000, cuts=3)
    hosts = containerd.hosts("docker.io", f"http://127.0.0.1:{cutter.port}")
    containerd("images", "pull", "--hosts-dir", hosts, "docker.io/company/mid:v1")
    cutter.close()
    assert cutter.done == 3
    containerd("images", "rm", "--sync", "docker.io/company/mid:v1")


@pytest.mark.usefixtures("library")
def test_docker_resumes_a_cut_layer_with_range(cluster: Cluster, docker: Docker) -> None:
    cutter = Cutter(cluster.agents[1].port, after_bytes=3_000_000, cuts=1)
    docker("pull", f"127.0.0.1:{cutter.port}/company/mid:v1")
    cutter.close()
    assert cutter.done == 1
    docker.forget(f"127.0.0.1:{cutter.port}/company/mid:v1")


@pytest.mark.usefixtures("library")
def test_skopeo_fails_on_a_cut_and_passes_when_tried_again(cluster: Cluster, out: Path) -> None:
    cutter = Cutter(cluster.agents[0].port, after_bytes=3_000_000, cuts=1)
    source = f"docker://127.0.0.1:{cutter.port}/company/mid:v1"
    pull = (program("skopeo"), "copy", "--src-tls-verify=false", source, f"dir:{out}")
    run(*pull, ok=False)
    run(*pull)
    cutter.close()
    assert all(name == true for name, true in layers_of(out).items())


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("command", ["skopeo", "docker", "podman"])
def test_no_client_waits_for_its_tls_hello(cluster: Cluster, docker: Docker, podman: Podman, command: str) -> None:
    """A stock server lets each of these wait ten seconds: they try TLS first."""
    name = f"{cluster.agents[0].registry}/company/app:v1"
    began = time.monotonic()
    if command == "skopeo":
        json.loads(run(program("skopeo"), "inspect", "--tls-verify=false", "--raw", f"docker://{name}"))
    elif command == "docker":
        docker("pull", name)
        docker.forget(name)
    else:
        podman("pull", "--tls-verify=false", name)
    assert time.monotonic() - began < 8
