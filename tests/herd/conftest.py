"""Worlds that end with their test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest_twisted

from krakentx.herd.config import HerdConfig
from tests.herd.world import World

MakeWorld = Callable[..., Awaitable[World]]


@pytest_twisted.async_yield_fixture
async def world(tmp_path: Path) -> AsyncIterator[MakeWorld]:
    """Starts a herd and agents."""
    started: list[World] = []

    async def make(config: HerdConfig | None = None, agents: int = 0, folder: Path = tmp_path) -> World:
        made = await World.start(folder, config, agents)
        started.append(made)
        return made

    yield make
    for each in reversed(started):
        await each.stop()
