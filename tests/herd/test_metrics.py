"""docs/metrics.md names every metric of every part, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import pytest_twisted
from prometheus_client.parser import text_string_to_metric_families

from tests.herd.world import ask, management_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

PAGE = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
PARTS = ("testfs", "origin", "tracker", "build_index", "proxy", "agent")


def named() -> set[str]:
    """The metrics of the page, with each part's own name. The first table is of all parts, the second says of which."""
    everywhere, _, some = PAGE.partition("The rest, each at the parts named:")
    found = {
        f"kraken_{part}_{name}"
        for name in re.findall(r"^\| `kraken_PART_(\w+)`", everywhere, re.MULTILINE)
        for part in PARTS
    }
    for name, parts in re.findall(r"^\| `kraken_PART_(\w+)` \| ([^|]+) \|", some, re.MULTILINE):
        found |= {f"kraken_{part}_{name}" for part in parts.strip().split(", ")}
    return found


def shown(text: str) -> set[str]:
    """The metrics of an answer."""
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation.endswith(".") for family in families)
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in families}


@pytest_twisted.ensureDeferred
async def test_the_page_names_every_metric_and_no_other(world) -> None:
    one = await world(agents=1)
    herd = one.herd_config
    ports = (herd.testfs.port, herd.origin.port, herd.tracker.port, herd.build_index.port, herd.proxy.server.port)
    real = set()
    for base in (*(f"http://127.0.0.1:{port}" for port in ports), management_of(one.agents[0])):
        answer = await ask("GET", f"{base}/metrics")
        assert answer.status == 200
        real |= shown(answer.body.decode())
    assert named() == real
