"""Tags under both spellings of a short name."""

from __future__ import annotations

import pytest
import pytest_twisted
from attrs import define, field

from krakentx.clients.tags import Tags
from krakentx.core.digest import Digest
from krakentx.core.errors import NotFound, Unavailable

A, B = Digest.of(b"a"), Digest.of(b"b")


@define
class Index:
    """A build-index in memory."""

    names: dict[str, Digest] = field(factory=dict)
    down: bool = False

    async def get(self, tag: str) -> Digest:
        if self.down:
            raise Unavailable("build-index", "down")
        if tag not in self.names:
            raise NotFound("tag", tag)
        return self.names[tag]

    async def put(self, tag: str, digest: Digest, *, replicate: bool = False) -> None:
        assert replicate
        self.names[tag] = digest

    async def tags(self, repo: str) -> list[str]:
        return sorted(name.rpartition(":")[2] for name in self.names if name.rpartition(":")[0] == repo)

    async def list(self, prefix: str) -> list[str]:
        return sorted(self.names)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("stored", ["postgres", "library/postgres"])
@pytest.mark.parametrize("asked", ["postgres", "library/postgres"])
async def test_s04_a_short_name_is_found_under_both_spellings(stored: str, asked: str) -> None:
    tags = Tags(Index({f"{stored}:14": A}))
    assert await tags.get(asked, "14") == A
    assert await tags.tags(asked) == ["14"]


@pytest_twisted.ensureDeferred
async def test_the_spelling_that_was_asked_for_wins() -> None:
    tags = Tags(Index({"postgres:14": A, "library/postgres:14": B}))
    assert await tags.get("postgres", "14") == A
    assert await tags.get("library/postgres", "14") == B


@pytest_twisted.ensureDeferred
async def test_absent_is_not_the_same_as_unknown() -> None:
    index = Index({"a/b:1": A})
    tags = Tags(index)
    for absent in (tags.get("a/b", "2"), tags.get("library/a/b", "1"), tags.tags("a")):
        with pytest.raises(NotFound):
            await absent
    index.down = True
    with pytest.raises(Unavailable):
        await tags.get("a/b", "1")


@pytest_twisted.ensureDeferred
async def test_repositories_are_told_once_and_in_order() -> None:
    tags = Tags(Index({"b/c:1": A, "a:2": A, "a:1": B}))
    assert await tags.repositories() == ["a", "b/c"]
