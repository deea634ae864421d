"""Names of images."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput
from krakentx.core.imagename import (
    ImageName,
    check_repository,
    check_tag,
    parse_reference,
    parse_tag,
    spellings,
)

DIGEST = Digest.of(b"")


@pytest.mark.parametrize(
    "name",
    ["a", "library/alpine", "foo_bar__baz/a-b--c.d", "a/b/c/d/e", "0/1", "a/blobs/b/manifests/c", "a---b", "x" * 255],
)
def test_names_that_docker_takes(name: str) -> None:
    assert check_repository(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "a/B",
        "foo___x",
        "foo__/x",
        "foo///bar",
        "/a",
        "a/",
        "a..b",
        "..",
        "../a",
        "a/../b",
        "a/./b",
        "a/.hidden",
        "-a",
        "a-",
        "a_.b",
        "a b",
        "a\n",
        "a%2fb",
        "a:b",
        "a@b",
        "ä",
        "x" * 256,
    ],
)
def test_names_that_docker_refuses(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_repository(name)
    assert caught.value.what == "name"


@pytest.mark.parametrize("tag", ["a", "latest", "3.18", "_x", "V1.0-rc.1", "0", "x" * 128, "sha256-" + "ab" * 32])
def test_tags_that_docker_takes(tag: str) -> None:
    assert check_tag(tag) == tag
    assert parse_reference(tag) == tag


@pytest.mark.parametrize("tag", ["", ".a", "-a", "a b", "a/b", "..", "a\n", "é", "x" * 129])
def test_tags_that_docker_refuses(tag: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_tag(tag)
    assert caught.value.what == "tag"


def test_a_reference_with_a_colon_is_a_digest() -> None:
    assert parse_reference(str(DIGEST)) == DIGEST
    with pytest.raises(InvalidInput) as caught:
        parse_reference("sha256:baddigeststring")
    assert caught.value.what == "digest"


def test_names_of_tags_in_the_build_index() -> None:
    assert parse_tag("library/alpine:3.18") == ("library/alpine", "3.18")


@pytest.mark.parametrize("text", ["", "alpine", ":x", "alpine:", "Alpine:x", "a:b:c", "h:5000/a:b"])
def test_what_names_no_tag_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_tag(text)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("hello-world", "docker.io/library/hello-world:latest"),
        ("hello-world:1", "docker.io/library/hello-world:1"),
        ("library/hello-world", "docker.io/library/hello-world:latest"),
        ("company/app:v1", "docker.io/company/app:v1"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/company/app", "docker.io/company/app:latest"),
        ("localhost/x/y", "localhost/x/y:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:15000/x", "localhost:15000/x:latest"),
        ("127.0.0.1:5999/company/app:v1", "127.0.0.1:5999/company/app:v1"),
        ("x:5000/y", "x:5000/y:latest"),
        ("a.b/x:1", "a.b/x:1"),
        ("[::1]:15000/x:1", "[::1]:15000/x:1"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        (f"a.b/x:1@{DIGEST}", f"a.b/x:1@{DIGEST}"),
    ],
)
def test_what_people_write_is_normalised(text: str, full: str) -> None:
    name = ImageName.parse(text)
    assert str(name) == full
    assert ImageName.parse(full) == name


def test_the_digest_wins_over_the_tag() -> None:
    assert ImageName.parse(f"a.b/x:1@{DIGEST}").reference == str(DIGEST)
    assert ImageName.parse("a.b/x:1").reference == "1"
    assert ImageName.parse("a.b/x").reference == "latest"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a.b/",
        "LOCALHOST/q",
        "a.b/Q",
        "foo___x",
        "a:b:c",
        "a@",
        "a@sha256:short",
        "a@b@c",
        "a b/x",
        "h_:5000/x",
        "-h.x/y",
        "h..x/y",
        "[x]:1/y",
        "h:port/y",
        "a.b/" + "x" * 252,
    ],
)
def test_what_is_no_image_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        ImageName.parse(text)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("postgres", ("postgres", "library/postgres")),
        ("library/postgres", ("library/postgres", "postgres")),
        ("company/app", ("company/app",)),
        ("library/a/b", ("library/a/b",)),
        ("library", ("library", "library/library")),
    ],
)
def test_short_names_of_docker_hub_have_two_spellings(asked: str, names: tuple[str, ...]) -> None:
    """S04."""
    assert spellings(asked) == names


@given(st.text(max_size=40))
def test_any_text_is_an_image_or_refused(text: str) -> None:
    try:
        name = ImageName.parse(text)
    except InvalidInput:
        return
    assert ImageName.parse(str(name)) == name
    for other in spellings(name.repository):
        assert check_repository(other) == other
        assert set(spellings(other)) == set(spellings(name.repository))
