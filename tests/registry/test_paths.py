"""What paths mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krakentx.registry.paths import Target, parse_path


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("a/manifests/latest", Target("manifest", "a", "latest")),
        ("a/b/c/manifests/sha256:ab", Target("manifest", "a/b/c", "sha256:ab")),
        ("a/blobs/sha256:ab", Target("blob", "a", "sha256:ab")),
        ("a/blobs/uploads", Target("uploads", "a")),
        ("a/blobs/uploads/", Target("uploads", "a")),
        ("a/blobs/uploads/1-2", Target("upload", "a", "1-2")),
        ("a/tags/list", Target("tags", "a")),
        ("a/referrers/sha256:ab", Target("referrers", "a", "sha256:ab")),
        # Names made of the words themselves: the last that can be the kind is the kind.
        ("a/blobs/b/manifests/c", Target("manifest", "a/blobs/b", "c")),
        ("a/manifests/tags/list", Target("tags", "a/manifests")),
        ("a/tags/list/manifests/list", Target("manifest", "a/tags/list", "list")),
        ("a/manifests/tags", Target("manifest", "a", "tags")),
        ("manifests/blobs/blobs/x", Target("blob", "manifests/blobs", "x")),
        # Names that check_repository refuses later.
        ("/manifests/x", Target("manifest", "", "x")),
        ("../manifests/x", Target("manifest", "..", "x")),
    ],
)
def test_a_path_is_read(path: str, target: Target) -> None:
    assert parse_path(path) == target


@pytest.mark.parametrize(
    "path", ["", "a", "manifests/x", "a/manifests", "a/manifests/", "a/tags", "a/tags/lists", "a/b/c", "_catalog/x"]
)
def test_other_paths_are_nothing(path: str) -> None:
    assert parse_path(path) is None


@given(st.text("ab/", max_size=12), st.sampled_from(["manifests", "blobs", "referrers"]), st.text("ab:.", min_size=1))
def test_a_repository_comes_back_as_it_was(repo: str, word: str, name: str) -> None:
    assert parse_path(f"x{repo}/{word}/{name}").repo == f"x{repo}"  # type: ignore[union-attr]
