"""Each client pushes to the proxy; each client pulls through an agent; digests and bytes are compared."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.tools import (
    Containerd,
    Docker,
    Images,
    Podman,
    digest_at,
    program,
    run,
    sha256_of,
    skopeo_pull,
    skopeo_push,
)
from tests.cluster import Cluster

Push = Callable[[str], None]


@pytest.mark.parametrize(
    "layout, tag",
    [("oci-hand", tag) for tag in ("one", "empty", "artifact", "gz")]
    + [("oci-umoci", tag) for tag in ("tiny", "mid", "big")],
)
def test_oci_images_keep_digest_and_bytes(cluster: Cluster, images: Images, layout: str, tag: str, out: Path) -> None:
    skopeo_push(images.source(layout, tag), f"{cluster.proxy}/company/{layout}:{tag}")
    for number, agent in enumerate(cluster.agents):
        manifest = skopeo_pull(f"{agent.registry}/company/{layout}:{tag}", out / str(number))
        assert json.loads(manifest)["schemaVersion"] == 2
        assert "sha256:" + sha256_of(out / str(number) / "manifest.json") == images.digests[f"{layout} {tag}"]


def test_an_index_comes_with_all_its_platforms(cluster: Cluster, images: Images, out: Path) -> None:
    name = "company/multi:v1"
    skopeo_push(images.source("oci-hand", "multi"), f"{cluster.proxy}/{name}", "--all")
    index = json.loads(skopeo_pull(f"{cluster.agents[0].registry}/{name}", out, "--all"))
    assert len(index["manifests"]) == 2
    assert "sha256:" + sha256_of(out / "manifest.json") == images.digests["oci-hand multi"]


def pushers(cluster: Cluster, images: Images, docker: Docker, podman: Podman) -> dict[str, Push]:
    """Client -> a function that pushes the runnable image under a repository name."""
    archive = images.folder / "busybox.tar"

    def with_docker(name: str) -> None:
        docker("load", "-i", archive)
        docker("tag", "company/app:v1", f"{cluster.proxy}/{name}")
        docker("push", f"{cluster.proxy}/{name}")
        docker("rmi", "-f", f"{cluster.proxy}/{name}", "company/app:v1")

    def with_podman(name: str) -> None:
        podman("load", "-i", archive)
        podman("tag", "company/app:v1", f"{cluster.proxy}/{name}")
        podman("push", "--tls-verify=false", f"{cluster.proxy}/{name}")

    def with_buildah(name: str) -> None:
        podman("pull", images.archive, tool="buildah")
        podman("tag", "company/app:v1", f"{cluster.proxy}/{name}", tool="buildah")
        podman("push", "--tls-verify=false", f"{cluster.proxy}/{name}", tool="buildah")

    def with_skopeo(name: str) -> None:
        skopeo_push(images.archive, f"{cluster.proxy}/{name}")

    return {"docker": with_docker, "podman": with_podman, "buildah": with_buildah, "skopeo": with_skopeo}


@pytest.mark.parametrize("pusher", ["docker", "podman", "buildah", "skopeo"])
def test_what_one_client_pushes_every_client_pulls(
    cluster: Cluster,
    images: Images,
    docker: Docker,
    containerd: Containerd,
    podman: Podman,
    pusher: str,
    out: Path,
) -> None:
    name = f"company/from-{pusher}:v1"
    pushers(cluster, images, docker, podman)[pusher](name)
    digest = digest_at(cluster.proxy, name)
    first, second = cluster.agents

    skopeo_pull(f"{first.registry}/{name}", out)
    assert "sha256:" + sha256_of(out / "manifest.json") == digest

    assert digest in docker("pull", f"{second.registry}/{name}")
    assert "runs from a test image" in docker("run", "--rm", "--network", "host", f"{second.registry}/{name}")
    docker("rmi", "-f", f"{second.registry}/{name}")

    podman("rmi", "--all", "--force")
    podman("pull", "--tls-verify=false", f"{first.registry}/{name}")
    assert digest in podman("image", "inspect", "--format", "{{.Digest}}", f"{first.registry}/{name}")

    reference = f"registry.example.org:5000/{name}"
    hosts = containerd.hosts("registry.example.org:5000", f"http://{first.registry}")
    containerd("images", "pull", "--hosts-dir", hosts, reference)
    assert digest in containerd("images", "ls", f"name=={reference}")
    containerd("images", "rm", "--sync", reference)


def test_containerd_pushes_a_blob_in_one_put(
    cluster: Cluster, images: Images, containerd: Containerd, out: Path
) -> None:
    name = "company/from-ctr:v1"
    archive = out.with_suffix(".tar")
    run(program("skopeo"), "copy", images.source("busybox-oci", "v1"), f"oci-archive:{archive}:v1")
    target = f"{cluster.proxy}/{name}"
    containerd("images", "import", "--base-name", target.rpartition(":")[0], archive)
    containerd("images", "push", "--plain-http", target)
    assert digest_at(cluster.agents[1].registry, name) == images.digests["busybox-oci v1"]
    containerd("images", "rm", "--sync", target)


def test_pushing_again_and_to_another_repository_sends_no_layer_twice(
    cluster: Cluster, images: Images, tmp_path: Path, out: Path
) -> None:
    (tmp_path / "layer").write_bytes(os.urandom(100_000))  # one that no other test has pushed
    run("tar", "-C", tmp_path, "-cf", tmp_path / "layer.tar", "layer")
    layout = f"{tmp_path / 'fresh'}:v1"
    run(program("umoci"), "init", "--layout", tmp_path / "fresh")
    run(program("umoci"), "new", "--image", layout)
    run(program("umoci"), "raw", "add-layer", "--image", layout, tmp_path / "layer.tar")
    sent = []
    for name in ("company/first:v1", "company/first:v1", "company/second:v1"):
        skopeo_push(f"oci:{layout}", f"{cluster.proxy}/{name}")
        sent.append(cluster.herd.log.read_text().count(" PATCH /v2/company/"))
    assert sent[0] > 0 and sent == [sent[0]] * 3
    skopeo_pull(f"{cluster.agents[0].registry}/company/second:v1", out)


def test_a_push_to_an_agent_is_refused_in_words(cluster: Cluster, images: Images) -> None:
    text = run(
        *(program("skopeo"), "copy", "--dest-tls-verify=false", images.source("oci-hand", "one")),
        f"docker://{cluster.agents[0].registry}/company/refused:v1",
        ok=False,
    )
    assert "unsupported" in text.lower() or "push" in text.lower()


def test_tags_are_listed_by_proxy_and_agent(cluster: Cluster, images: Images) -> None:
    for tag in ("v2", "v1", "V3"):
        skopeo_push(images.source("oci-hand", "one"), f"{cluster.proxy}/company/tags:{tag}")
    for registry in (cluster.proxy, cluster.agents[0].registry):
        text = run(program("skopeo"), "list-tags", "--tls-verify=false", f"docker://{registry}/company/tags")
        assert json.loads(text)["Tags"] == ["V3", "v1", "v2"]


def test_a_moved_tag_is_seen_by_every_agent_at_once(cluster: Cluster, images: Images) -> None:
    """Case S11."""
    name = "company/moves:prod"
    for tag in ("one", "gz", "one"):
        skopeo_push(images.source("oci-hand", tag), f"{cluster.proxy}/{name}")
        expected = images.digests[f"oci-hand {tag}"]
        assert [digest_at(agent.registry, name) for agent in cluster.agents] == [expected, expected]
    old = images.digests["oci-hand gz"]
    assert digest_at(cluster.agents[0].registry, f"company/moves@{old}") == old


def test_an_absent_image_is_reported_as_absent(cluster: Cluster, docker: Docker, containerd: Containerd) -> None:
    text = docker("pull", f"{cluster.agents[0].registry}/company/absent:v1", ok=False)
    assert "not found" in text or "manifest unknown" in text
    containerd("images", "pull", "--plain-http", f"{cluster.agents[0].registry}/company/absent:v1", ok=False)
