"""Bugs planted in the Engine, one at a time: the trials must find each of them, and soon."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from krakentx.sim.trial import play
from krakentx.swarm.announce import AnnounceTimer
from krakentx.swarm.config import AnnounceConfig
from krakentx.swarm.downloads import Downloads
from krakentx.swarm.events import ConnID
from krakentx.swarm.fallback import Fallback
from krakentx.swarm.requests import Requests
from krakentx.swarm.state import Conn
from krakentx.swarm.uploads import Uploads

SEEDS = 1000
Plant = Callable[[pytest.MonkeyPatch], None]

_arrived = Downloads.arrived
_ended = Fallback.ended


def request_not_released_when_its_peer_is_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Requests, "release", lambda self, conn: list(conn.asked))


def upload_slot_leaked_when_its_peer_is_lost(patch: pytest.MonkeyPatch) -> None:
    def drop(self: Uploads, conn: ConnID) -> None:
        if conn in self._waiting:
            self._no_more(conn)

    patch.setattr(Uploads, "drop", drop)


def corrupt_piece_kept(patch: pytest.MonkeyPatch) -> None:
    def arrived(self: Downloads, conn: Conn, piece: int, good: bool, now: float) -> None:
        _arrived(self, conn, piece, True, now)

    patch.setattr(Downloads, "arrived", arrived)


def announce_timer_not_armed_again_after_an_error(patch: pytest.MonkeyPatch) -> None:
    def failed(self: AnnounceTimer, now: float, config: AnnounceConfig) -> None:
        self._asked_at, self._hurried, self._next_at = None, True, inf

    patch.setattr(AnnounceTimer, "failed", failed)


def pieces_of_a_failed_fetch_kept_from_the_peers(patch: pytest.MonkeyPatch) -> None:
    def ended(self: Fallback, batch: tuple[int, ...], problem: Any, now: float, config: Any) -> None:
        held = self.held
        _ended(self, batch, problem, now, config)
        if problem is not None:
            self.held = held

    patch.setattr(Fallback, "ended", ended)


def cancel_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Uploads, "cancel", lambda self, conn, piece: False)


PLANTS: list[Plant] = [
    request_not_released_when_its_peer_is_lost,
    upload_slot_leaked_when_its_peer_is_lost,
    corrupt_piece_kept,
    announce_timer_not_armed_again_after_an_error,
    pieces_of_a_failed_fetch_kept_from_the_peers,
    cancel_ignored,
]


@pytest.mark.timeout(300)  # a bug that is not found takes all the seeds
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(SEEDS):
        if problems := play(seed).problems:
            print(f"found at seed {seed}: {problems[0].splitlines()[-1]}")
            return
    pytest.fail(f"not found in {SEEDS} seeds")
