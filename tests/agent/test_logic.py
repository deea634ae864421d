"""The size of a blob, without a byte of it."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from krakentx.agent.logic import Blobs
from krakentx.core.digest import Digest
from krakentx.core.errors import NotFound, Unavailable
from krakentx.core.metainfo import MetaInfo

DIGEST = Digest.of(b"x")
META = MetaInfo(DIGEST, 70, 64, (1, 2))


@define
class Shelf:
    """A cache, a download folder and a tracker in one."""

    cached: int | None = None
    partial: MetaInfo | None = None
    answer: Any = None
    asked: int = 0

    def stat(self, digest: Digest) -> int | None:
        return self.cached

    def find(self, digest: Digest) -> MetaInfo | None:
        return self.partial

    async def metainfo(self, namespace: str, digest: Digest) -> MetaInfo:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return await self.answer if isinstance(self.answer, Deferred) else self.answer


def _blobs(shelf: Shelf, clock: Clock) -> Blobs:
    return Blobs(None, shelf, shelf, shelf, clock, 30.0)  # type: ignore[arg-type]  # nothing may ask the scheduler


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("shelf", "size", "asked"),
    [(Shelf(cached=5), 5, 0), (Shelf(partial=META), 70, 0), (Shelf(answer=META), 70, 1)],
    ids=["cached", "arriving", "metainfo"],
)
async def test_the_nearest_source_tells(shelf: Shelf, size: int, asked: int, clock: Clock) -> None:
    assert await _blobs(shelf, clock).stat("a", DIGEST) == size
    assert shelf.asked == asked


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("error", [NotFound("blob", DIGEST), Unavailable("every tracker", "down")])
async def test_absent_and_unknown_stay_apart(error: Exception, clock: Clock) -> None:
    with pytest.raises(type(error)):
        await _blobs(Shelf(answer=error), clock).stat("a", DIGEST)


def test_a_question_for_the_size_has_an_end(clock: Clock) -> None:
    asked = Deferred.fromCoroutine(_blobs(Shelf(answer=Deferred()), clock).stat("a", DIGEST))
    clock.advance(30.0)
    failures: list[Any] = []
    asked.addErrback(failures.append)
    assert failures[0].check(Unavailable)
