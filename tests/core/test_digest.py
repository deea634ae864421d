"""Digests: the names of blobs."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krakentx.core.digest import Digest, Hasher
from krakentx.core.errors import InvalidInput

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "text",
    [
        "",
        EMPTY,
        "sha256:",
        f"sha256:{EMPTY[:-1]}",
        f"sha256:{EMPTY}0",
        f"sha256:{EMPTY[:-1]}g",
        f"sha256:{EMPTY[:-1]}\n",
        f"sha256::{EMPTY}",
        f"sha256:{EMPTY}:",
        f"md5:{EMPTY[:32]}",
        f"SHA256:{EMPTY}",
        f"sha512:{EMPTY}",
        f"sha256:{EMPTY * 2}",
        "sha256:../../../../etc/passwd",
        "sha256:" + "٣" * 64,
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Digest.parse(text)
    assert caught.value.what == "digest"


def test_capitals_are_folded_so_that_one_blob_has_one_name() -> None:
    assert Digest.parse(f"sha256:{EMPTY.upper()}") == Digest.parse(f"sha256:{EMPTY}")
    assert str(Digest.from_hex(EMPTY.upper())) == f"sha256:{EMPTY}"


@given(st.binary(max_size=200), st.sampled_from(["sha256", "sha512"]))
def test_text_and_hex_read_back(data: bytes, algorithm: str) -> None:
    digest = Digest.of(data, algorithm)
    assert digest.hex == hashlib.new(algorithm, data).hexdigest()
    assert Digest.parse(str(digest)) == digest
    assert Digest.from_hex(digest.hex) == digest
    assert digest.shard == digest.hex[:4]


@pytest.mark.parametrize("text", ["", "ab", EMPTY[:-1], EMPTY + "00"])
def test_hex_of_no_known_length_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Digest.from_hex(text)


@given(st.lists(st.binary(max_size=50)), st.sampled_from(["sha256", "sha512"]))
def test_a_hasher_gives_the_digest_of_what_passed(parts: list[bytes], algorithm: str) -> None:
    hasher = Hasher(algorithm)
    for part in parts:
        hasher.update(memoryview(part))
    assert hasher.digest() == Digest.of(b"".join(parts), algorithm)
    assert hasher.digest() == hasher.digest()


def test_a_hasher_of_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(InvalidInput):
        Hasher("md5")
