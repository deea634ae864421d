"""Names to paths and back; the forms are those of the reference."""

from __future__ import annotations

import pytest

from krakentx.backend.paths import PathKind, name_paths
from krakentx.core.errors import InvalidInput

HEX = "ff85ceb9734a3c2fbb886e0f7cfc66b046eeeae953d8cb430dc5a7ace544b0e9"


@pytest.mark.parametrize(
    ("kind", "root", "name", "path"),
    [
        (
            "docker_tag",
            "/root",
            "repo-bar:latest",
            "/root/docker/registry/v2/repositories/repo-bar/_manifests/tags/latest/current/link",
        ),
        ("docker_tag", "r", "a/b:1", "r/docker/registry/v2/repositories/a/b/_manifests/tags/1/current/link"),
        ("sharded_docker_blob", "/root", HEX, f"/root/docker/registry/v2/blobs/sha256/ff/{HEX}/data"),
        ("sharded_docker_blob", "", HEX * 2, f"docker/registry/v2/blobs/sha512/ff/{HEX * 2}/data"),
        ("identity", "/root/", "foo/bar", "/root/foo/bar"),
        ("identity", "", "foo", "foo"),
    ],
)
def test_there_and_back(kind: PathKind, root: str, name: str, path: str) -> None:
    paths = name_paths(kind, root)
    assert paths.path(name) == path
    assert paths.name(path) == name
    assert paths.name(path.lstrip("/")) == name


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("docker_tag", "repo"),
        ("docker_tag", "host:5000/repo:tag"),
        ("docker_tag", ":tag"),
        ("docker_tag", "repo:"),
        ("docker_tag", "../repo:tag"),
        ("sharded_docker_blob", "ff"),
        ("sharded_docker_blob", "../ff"),
        ("sharded_docker_blob", "..."),
        ("identity", "a/../b"),
    ],
)
def test_names_that_do_not_fit(kind: PathKind, name: str) -> None:
    with pytest.raises(InvalidInput):
        name_paths(kind, "root").path(name)


@pytest.mark.parametrize("path", ["", "root", "rootx/a", "other/a", "root/docker/registry/v2/repositories/a/_layers/x"])
def test_files_that_are_not_named_this_way(path: str) -> None:
    assert name_paths("docker_tag", "root").name(path) is None
