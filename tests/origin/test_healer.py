"""Peers that greet for blobs which this origin does not have."""

from __future__ import annotations

from typing import Any

import pytest_twisted
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel

from krakentx.core.digest import Digest
from krakentx.core.errors import Busy, NotFound
from krakentx.origin.service import Healer
from krakentx.peer.links import LINES_A_MINUTE


class Refuses:
    """A refresher at its bound, which has no such blob either."""

    def __init__(self) -> None:
        self.asked = 0

    async def ensure(self, namespace: str, digest: Digest) -> None:
        self.asked += 1
        raise Busy("too many") if self.asked % 2 else NotFound("blob", digest)


@pytest_twisted.ensureDeferred
async def test_strangers_who_ask_for_anything_fill_no_log(clock: Clock, logs: list[LogEvent]) -> None:
    refresher: Any = Refuses()
    healer = Healer(refresher, clock)
    for number in range(1000):
        healer("ns", Digest.of(str(number).encode()))
    assert refresher.asked == 1000
    told = [event for event in logs if event["log_level"] is LogLevel.warn]
    assert len(told) == LINES_A_MINUTE + 1
