"""Pulls with a part of the network gone: a firewall that drops, an address that leads nowhere, a dead tracker."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable

import pytest

from tests.bench.blobs import Blob
from tests.hosts.conftest import Site, Tell
from tests.testbed.daemons import INDEX, ORIGIN, PEER, PROXY, TESTFS, TRACKER
from tests.testbed.hosts import Host
from tests.testbed.pulls import NAMESPACE, Pull, blob_path, pull

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

MIB = 1 << 20
FIRST_BYTE_S = 5.0
SOON_S = 7.0  # a kept connection is given up after 3 s, a new one too
NOWHERE = "10.0.1.190"
MANIFESTS = f"/v2/{NAMESPACE}/manifests"

Push = Callable[[int], Blob]


def limit(site: Site, rate: str) -> None:
    for host in site.hosts:
        host.limit(rate)


def test_dropped_ports_cost_less_than_twice_the_time(site: Site, pushed: Push, tell: Tell) -> None:
    blob = pushed(40 * MIB)
    limit(site, "100mbit")
    host = site.pullers[0]
    direct = Pull(host, blob_path(blob), address=site.hosts.herd.ip, port=PROXY).right(blob)
    host.drop(PEER)
    host.drop(TRACKER)
    pulled = pull(host, blob).right(blob)
    tell(
        f"peer port and tracker dropped: first byte {pulled.first_byte_s:.2f} s, total {pulled.total_s:.2f} s,"
        f" direct from the herd {direct.total_s:.2f} s"
    )
    assert pulled.first_byte_s < FIRST_BYTE_S
    assert pulled.total_s < 2 * direct.total_s


@pytest.mark.parametrize("port", [PEER, TRACKER], ids=["peer port", "tracker"])
def test_one_dropped_port(site: Site, pushed: Push, tell: Tell, port: int) -> None:
    blob = pushed(16 * MIB)
    host = site.pullers[1]
    host.drop(port)
    pulled = pull(host, blob).right(blob)
    tell(f"{port} dropped: first byte {pulled.first_byte_s:.2f} s, total {pulled.total_s:.2f} s")
    assert pulled.first_byte_s < FIRST_BYTE_S


def test_a_dead_tracker(site: Site, pushed: Push, tell: Tell) -> None:
    blob = pushed(16 * MIB)
    site.parts.tracker.kill()
    pulled = pull(site.pullers[0], blob).right(blob)
    tell(f"tracker dead: first byte {pulled.first_byte_s:.2f} s, total {pulled.total_s:.2f} s")
    assert pulled.first_byte_s < FIRST_BYTE_S


@pytest.mark.parametrize("ip", [NOWHERE, "127.0.0.1"], ids=["nobody there", "loopback"])
def test_an_announced_address_that_leads_nowhere(site: Site, pushed: Push, tell: Tell, ip: str) -> None:
    blob = pushed(16 * MIB)
    origin = site.parts.origin
    argv, origin.argv = origin.argv, (*origin.argv, f"--peer-ip={ip}")
    try:
        origin.stop()
        origin.start()
        pulled = pull(site.pullers[1], blob).right(blob)
    finally:
        origin.argv = argv
        origin.stop()
    tell(f"origin announced as {ip}: first byte {pulled.first_byte_s:.2f} s, total {pulled.total_s:.2f} s")
    assert pulled.first_byte_s < FIRST_BYTE_S


def test_s30_all_peers_fall_silent_in_the_middle(site: Site, pushed: Push, tell: Tell) -> None:
    """Connections stay open, nothing comes, everything asked for is lost at once."""
    blob = pushed(32 * MIB)
    limit(site, "100mbit")
    host = site.pullers[2]
    running = pull(host, blob)
    running.reach(8 * MIB)
    host.drop(PEER)
    pulled = running.right(blob)
    tell(f"origin's peer port dropped mid-pull: longest gap {pulled.longest_gap_s:.2f} s, total {pulled.total_s:.2f} s")
    assert pulled.longest_gap_s < 10


def test_s13_dead_seeders_cost_seconds(site: Site, pushed: Push, tell: Tell) -> None:
    blob = pushed(24 * MIB)
    *seeders, last = site.pullers
    for seeding in [pull(host, blob) for host in seeders]:
        seeding.right(blob)
    for host in seeders[1:]:
        host.unplug()
    last.drop(PEER)
    pulled = pull(last, blob).right(blob)
    tell(
        f"2 of 3 seeders unplugged, origin's peer port dropped: first byte {pulled.first_byte_s:.2f} s,"
        f" total {pulled.total_s:.2f} s"
    )
    assert pulled.total_s < 8


def test_a_head_brings_no_byte_of_the_blob(site: Site, pushed: Push) -> None:
    blob = pushed(16 * MIB)
    host = site.pullers[3]
    before = host.traffic()
    answer = Pull(host, blob_path(blob), method="HEAD").result()
    time.sleep(1.0)
    assert (answer.status, answer.head["content-length"], answer.size) == (200, str(blob.size), 0)
    assert (host.traffic() - before).received < 100_000
    assert answer.total_s < 1


def ask(host: Host, path: str) -> Pull:
    return Pull(host, path, silence_s=60)


def absent(what: str) -> str:
    return f"sha256:{hashlib.sha256(what.encode()).hexdigest()}"


def test_what_nobody_has_is_404(site: Site) -> None:
    host = site.pullers[0]
    for path in (f"{MANIFESTS}/nosuch", f"/v2/{NAMESPACE}/blobs/{absent('404')}", f"{MANIFESTS}/{absent('404')}"):
        answer = ask(host, path).result()
        assert answer.status == 404, path
        assert json.loads(answer.start_of_body)["errors"]
        assert answer.total_s < SOON_S


def test_s23_all_parts_down_is_503_and_soon(site: Site, tell: Tell) -> None:
    refused, dropped = site.pullers[:2]
    paths = [f"{MANIFESTS}/v1", f"/v2/{NAMESPACE}/blobs/{absent('503')}", f"/v2/{NAMESPACE}/tags/list"]
    for answer in [ask(host, path).result() for host in (refused, dropped) for path in paths]:
        assert answer.status == 404  # and now both have connections to the herd at hand
    for port in (TESTFS, PROXY, PEER, ORIGIN, TRACKER, INDEX):
        dropped.drop(port)
    waiting = [ask(dropped, path) for path in paths for _ in range(3)]
    answers = [each.result() for each in waiting]
    site.parts.kill()
    answers += [each.result() for each in [ask(refused, path) for path in paths for _ in range(3)]]
    for answer in answers:
        assert answer.status == 503, answer.start_of_body
        assert json.loads(answer.start_of_body)["errors"]
    tell(f"all parts down: 503 after {max(answer.total_s for answer in answers):.2f} s at most")
    assert max(answer.total_s for answer in answers) < SOON_S


def test_an_agent_starts_and_serves_its_cache_without_the_herd(site: Site, pushed: Push) -> None:
    blob = pushed(MIB)
    agent = site.agents[0]
    pull(agent.host, blob).right(blob)
    site.parts.kill()
    agent.kill()
    agent.start()
    assert pull(agent.host, blob).right(blob).total_s < 1
