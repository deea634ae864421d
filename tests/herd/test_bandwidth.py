"""Limits of bandwidth are changed while bytes flow, over the management ports."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.herd.world import Image, ask, management_of, pull, push, registry_of
from tests.meter import Meter

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

MIB = 1 << 20


async def limit(base: str, **settings: object) -> None:
    body = json.dumps({"Conn": {"Bandwidth": settings}}).encode()
    assert (await ask("PATCH", f"{base}/x/config/scheduler", body)).status == 200


@pytest_twisted.ensureDeferred
async def test_limits_change_at_run_time(world, monkeypatch, logs) -> None:
    one = await world(agents=1)
    agent = one.agents[0]
    origin = f"http://127.0.0.1:{one.herd_config.origin.port}"
    image = Image.make(31, 12 * MIB)
    await push(one.proxy, "company/app", "v1", image)
    await limit(management_of(agent), Enable=True, IngressBitsPerSec=16_000_000, EgressBitsPerSec=10**12)
    meter = Meter()
    meter.watch(monkeypatch)
    try:
        pulled = Deferred.fromCoroutine(pull(registry_of(agent), "company/app", "v1"))
        while not meter.times:
            await deferLater(reactor, 0.01)
        await deferLater(reactor, 1.3)
        changed = reactor.seconds()
        meter.holds(2e6, end=changed)
        await limit(management_of(agent), IngressBitsPerSec=32_000_000)
        assert (
            b"kraken_agent_peer_ingress_limit_bytes 4e+06" in (await ask("GET", f"{management_of(agent)}/metrics")).body
        )
        begins = reactor.seconds()
        await deferLater(reactor, 1.3)
        ends = reactor.seconds()
        meter.holds(4e6, begins, ends)
        # Now the origin's word is the stricter one.
        await limit(origin, Enable=True, EgressBitsPerSec=8_000_000, IngressBitsPerSec=10**12)
        begins = reactor.seconds() + 0.1
        await deferLater(reactor, 1.3)
        meter.holds(1e6, begins, reactor.seconds())
        await limit(origin, Enable=False)
        await limit(management_of(agent), Enable=False)
        assert await pulled == image
    finally:
        meter.stop()
