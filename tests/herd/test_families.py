"""S06: a herd and agents of IPv6 and of IPv4, by address and by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver
from zope.interface import implementer

from krakentx.clients.config import HostsConfig, PassiveUpstreamConfig, TrackerConfig
from krakentx.core.digest import Digest
from tests.herd.world import Image, ask, herd_config, pull, push, registry_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

NOWHERE = "2001:db8::1"
"""An address that is only for examples: no way leads there."""


@implementer(IHostnameResolver)
class Names:
    """Resolves some names as it is told to, and all others as before."""

    def __init__(self, names: dict[str, list[str]], inner: Any) -> None:
        self._names = names
        self._inner = inner

    def resolveHostName(self, receiver: Any, hostName: str, portNumber: int = 0, *args: Any, **more: Any) -> Any:
        if hostName not in self._names:
            return self._inner.resolveHostName(receiver, hostName, portNumber, *args, **more)
        receiver.resolutionBegan(None)
        for address in self._names[hostName]:
            kind = IPv6Address if ":" in address else IPv4Address
            receiver.addressResolved(kind("TCP", address, portNumber))
        receiver.resolutionComplete()
        return None


@pytest.fixture
def names() -> Iterator[dict[str, list[str]]]:
    """Names of this test, with their addresses."""
    added: dict[str, list[str]] = {}
    before = reactor.installNameResolver(Names(added, reactor.nameResolver))
    yield added
    reactor.installNameResolver(before)


def asking(host: str, herd: Any) -> dict[str, Any]:
    """Settings of an agent that finds the herd at this host."""
    return {
        "tracker": TrackerConfig(HostsConfig(static=(f"{host}:{herd.tracker.port}",))),
        "build_index": PassiveUpstreamConfig(HostsConfig(static=(f"{host}:{herd.build_index.port}",))),
        "fallback": (f"{host}:{herd.origin.port}",),
    }


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("[::1]", []),
        ("six.example", ["::1"]),
        ("both.example", ["::1", "127.0.0.1"]),
        ("first-is-dead.example", [NOWHERE, "127.0.0.1"]),
        ("last-is-dead.example", ["127.0.0.1", NOWHERE]),
    ],
)
async def test_s06_the_herd_is_found_by_any_form_of_its_address(world, tmp_path, names, host, addresses) -> None:
    names[host] = addresses
    config = herd_config(tmp_path / "herd", peer_ip="::1")
    one = await world(config)
    six = await one.add_agent(peer_ip="::1", **asking(host, config))
    four = await one.add_agent(peer_ip="127.0.0.1")
    image = Image.make(1, 300_000)
    assert (await push(one.proxy, "a", "v1", image)).status == 201
    for agent in (six, four):
        assert await pull(registry_of(agent), "a", "v1") == image
        counters = agent.scheduler.counters
        assert counters.received_peers_bytes >= 300_000 and counters.received_fallback_bytes == 0
    there = await ask("GET", f"http://[::1]:{four.registry.port_number}/v2/a/blobs/{Digest.of(image.layers[0])}")
    assert there.body == image.layers[0]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("addresses", [["::1"], ["::1", "127.0.0.1"], [NOWHERE, "127.0.0.1"]])
async def test_s06_a_list_of_hosts_by_dns_may_hold_both_families(world, names, addresses) -> None:
    one = await world()
    names["trackers.example"] = addresses
    hosts = HostsConfig(dns=f"trackers.example:{one.herd_config.tracker.port}")
    agent = await one.add_agent(tracker=TrackerConfig(hosts))
    image = Image.make(2, 300_000)
    assert (await push(one.proxy, "a", "v1", image)).status == 201
    assert await pull(registry_of(agent), "a", "v1") == image
    counters = agent.scheduler.counters
    # The ring may ask the dead one first; until that is given up, pieces come by HTTP.
    by_http = counters.received_fallback_bytes if NOWHERE in addresses else 0
    assert counters.received_peers_bytes + by_http >= 300_000
