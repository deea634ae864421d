"""What the bytes of a manifest say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput
from krakentx.registry.media import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    UnsupportedMediaType,
    media_type_of,
    parse_manifest,
)

A, B = Digest.of(b"a"), Digest.of(b"b", "sha512")


def described(digest: Digest, **more: Any) -> dict[str, Any]:
    return {"mediaType": "x/y", "digest": str(digest), "size": 1, **more}


def manifest(**fields: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, **fields}).encode()


IMAGE = {"config": described(A), "layers": [described(B)]}


@pytest.mark.parametrize(
    ("fields", "media_type"),
    [
        ({"mediaType": DOCKER_LIST, "manifests": []}, DOCKER_LIST),
        ({"mediaType": "application/vnd.acme+json"}, "application/vnd.acme+json"),
        ({"manifests": []}, OCI_INDEX),
        (IMAGE, OCI_MANIFEST),
        ({"mediaType": 5, "manifests": []}, OCI_INDEX),
        ({"mediaType": "a\r\nSet-Cookie: b"}, OCI_MANIFEST),
        ({"mediaType": "ä"}, OCI_MANIFEST),
    ],
)
def test_the_type_is_what_it_says_or_else_what_it_holds(fields: dict[str, Any], media_type: str) -> None:
    assert media_type_of(manifest(**fields)) == media_type


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"\x1f\x8b\x08"])
def test_other_bytes_are_no_manifest(data: bytes) -> None:
    assert media_type_of(data) is None
    with pytest.raises(InvalidInput):
        parse_manifest(data, None)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        parse_manifest(data, None)
    except InvalidInput as error:
        assert error.what == "manifest"


def test_references_of_an_image_and_of_an_index() -> None:
    assert parse_manifest(manifest(**IMAGE), OCI_MANIFEST).references == (A, B)
    index = manifest(mediaType=DOCKER_LIST, manifests=[described(B), described(A)])
    assert parse_manifest(index, DOCKER_LIST).references == (B, A)


def test_what_has_urls_need_not_be_here() -> None:
    layers = [described(B, urls=["http://x.example/"]), described(A, urls=[])]
    assert parse_manifest(manifest(config=described(A), layers=layers), None).references == (A, A)


def test_unknown_types_are_kept_without_a_look_inside() -> None:
    data = json.dumps({"mediaType": "application/vnd.acme+json", "layers": "what", "config": 5}).encode()
    assert parse_manifest(data, "application/vnd.acme+json").references == ()


@pytest.mark.parametrize("sent", [None, "", "application/json", OCI_MANIFEST, OCI_MANIFEST + "; charset=utf-8"])
def test_a_content_type_that_agrees(sent: str | None) -> None:
    assert parse_manifest(manifest(**IMAGE), sent).media_type == OCI_MANIFEST


@pytest.mark.parametrize("sent", [DOCKER_MANIFEST, OCI_INDEX, "application/vnd.acme+json"])
def test_a_content_type_that_does_not(sent: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="application/vnd"):
        parse_manifest(manifest(mediaType=OCI_MANIFEST, **IMAGE), sent)


def test_docker_schema_1_is_refused_by_name() -> None:
    data = json.dumps({"schemaVersion": 1, "name": "a", "fsLayers": []}).encode()
    with pytest.raises(UnsupportedMediaType, match="schema 1"):
        parse_manifest(data, None)
    with pytest.raises(UnsupportedMediaType):
        parse_manifest(data, "application/vnd.docker.distribution.manifest.v1+prettyjws")


@pytest.mark.parametrize(
    "fields",
    [
        {"schemaVersion": 3, **IMAGE},
        {"schemaVersion": None, **IMAGE},
        {"config": described(A)},
        {"config": described(A), "layers": {}},
        {"layers": []},
        {"config": described(A), "layers": ["x"]},
        {"config": {"digest": str(A)}, "layers": []},
        {"config": {"digest": str(A), "size": -1}, "layers": []},
        {"config": {"digest": "sha256:abc", "size": 1}, "layers": []},
        {"config": {"digest": "md5:" + "a" * 32, "size": 1}, "layers": []},
        {"mediaType": OCI_INDEX},
        {"mediaType": OCI_INDEX, "manifests": [None]},
        {**IMAGE, "subject": "x"},
    ],
)
def test_a_malformed_manifest_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_manifest(json.dumps({"schemaVersion": 2, **fields}).encode(), None)
    assert caught.value.what == "manifest"


def test_a_subject_is_read() -> None:
    assert parse_manifest(manifest(subject=described(B), **IMAGE), None).subject == B


@pytest.mark.parametrize("notes", [{"a": [[]]}, {"a": 1}, {"a": None}, ["a"], "a", 7, {}])
def test_annotations_that_are_no_texts_are_not_listed_with_others(notes: Any) -> None:
    """A value nested as deeply as JSON can be read would make the list that it goes into unreadable."""
    deep: Any = "x"
    for _ in range(500):
        deep = [deep]
    data = manifest(**IMAGE, annotations=notes, artifactType=deep)
    assert parse_manifest(data, None).described_by == {}
