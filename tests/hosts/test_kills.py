"""Hosts, herd, tracker and packets lost in the middle of a swarm: every other pull ends with the right bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import pytest

from tests.bench.blobs import Blob
from tests.hosts.conftest import Site, Tell
from tests.testbed.pulls import Pull, Pulled, pull

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

MIB = 1 << 20
SIZE = 32 * MIB
RATE = "200mbit"
TRACKER_AWAY_S = float(os.environ.get("KRAKEN_TRACKER_AWAY_S", "7"))
"""Two of its announce intervals; a minute only repeats them, and can be asked for."""

Push = Callable[[int], Blob]


def swarm(site: Site, blob: Blob) -> list[Pull]:
    """All agents at once, on slow links, with a good part of the blob there when this returns."""
    for host in site.hosts:
        host.limit(RATE)
    pulls = [pull(host, blob) for host in site.pullers]
    for each in pulls:
        each.reach(SIZE // 6)
    return pulls


def ended(pulls: Sequence[Pull], blob: Blob) -> list[Pulled]:
    return [each.right(blob) for each in pulls]


def delays(pulled: Sequence[Pulled]) -> str:
    gap = max(each.longest_gap_s for each in pulled)
    return f"longest gap {gap:.2f} s, slowest pull {max(each.total_s for each in pulled):.2f} s"


def test_an_agent_host_is_unplugged(site: Site, pushed: Push, tell: Tell) -> None:
    blob = pushed(SIZE)
    gone, *others = swarm(site, blob)
    gone.host.unplug()
    pulled = ended(others, blob)
    tell(f"an agent host unplugged: {delays(pulled)}")
    assert max(each.longest_gap_s for each in pulled) < 10
    gone.host.plug()
    back = gone.right(blob)
    tell(f"  plugged in again, its own pull went on: {delays([back])}")


def test_the_herd_is_restarted(site: Site, pushed: Push, tell: Tell) -> None:
    blob = pushed(SIZE)
    pulls = swarm(site, blob)
    site.parts.kill()
    site.parts.start()
    pulled = ended(pulls, blob)
    tell(f"herd killed and started again: {delays(pulled)}")
    assert max(each.longest_gap_s for each in pulled) < 15


def test_the_tracker_is_away(site: Site, pushed: Push, tell: Tell) -> None:
    blob, other = pushed(SIZE), pushed(SIZE // 4)
    pulls = swarm(site, blob)
    site.parts.tracker.stop()
    stopped = time.monotonic()
    begun_meanwhile = [pull(host, other) for host in site.pullers[:2]]
    pulled = ended(pulls, blob) + ended(begun_meanwhile, other)
    time.sleep(max(0.0, TRACKER_AWAY_S - (time.monotonic() - stopped)))
    site.parts.tracker.start()
    pulled += ended([pull(site.pullers[3], other)], other)
    tell(f"tracker away for {TRACKER_AWAY_S:.0f} s: {delays(pulled)}")
    assert max(each.longest_gap_s for each in pulled) < 10


def test_an_agent_loses_30_percent_of_its_packets(site: Site, pushed: Push, tell: Tell) -> None:
    blob = pushed(SIZE)
    site.pullers[0].lose(30)
    lossy, *others = swarm(site, blob)
    pulled = ended(others, blob)
    tell(f"an agent that loses 30 % of what it sends: the others: {delays(pulled)}")
    assert max(each.longest_gap_s for each in pulled) < 10
    own = lossy.right(blob)
    tell(f"  its own pull: {delays([own])}")
