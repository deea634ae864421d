"""Limits of bandwidth on real sockets: whole peers, and each second of what they exchange."""

from __future__ import annotations

from random import Random

import pytest
import pytest_twisted
from klein import Klein
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from krakentx.clients.config import HostsConfig
from krakentx.clients.fallback import HttpFallback
from krakentx.clients.hosts import HostPool
from krakentx.core.digest import Digest
from krakentx.swarm.config import BandwidthConfig, ConnConfig, DispatchConfig, SwarmConfig
from krakentx.web.bodies import send_blob
from tests.meter import Meter

pytestmark = pytest.mark.integration

KIB, MIB = 1 << 10, 1 << 20
FREE = 10**12


@pytest.fixture
def meter(monkeypatch):
    each = Meter()
    each.watch(monkeypatch)
    yield each
    each.stop()


def limited(egress: int = FREE, ingress: int = FREE) -> SwarmConfig:
    bandwidth = BandwidthConfig(enable=True, egress_bits_per_sec=egress, ingress_bits_per_sec=ingress)
    # Enough requests under way that small pieces never run out.
    return SwarmConfig(conn=ConnConfig(bandwidth=bandwidth), dispatch=DispatchConfig(pipeline_limit=8))


@pytest.mark.parametrize("direction", ["egress", "ingress"])
@pytest.mark.parametrize(("mbit", "piece"), [(2, 16 * KIB), (200, 4 * MIB)])
@pytest_twisted.ensureDeferred
async def test_every_second_carries_the_rate(peer, tracker, blob, meter, direction, mbit, piece):
    rate = mbit * 125_000
    blob = blob(int(1.6 * rate), piece)
    seed = await peer(origin=True, config=limited(egress=8 * rate) if direction == "egress" else limited())
    await seed.keep(blob)
    tracker.seed(seed.scheduler, blob)
    agent = await peer(config=limited(ingress=8 * rate) if direction == "ingress" else limited())
    await agent.scheduler.download("ns", blob.digest)
    meter.holds(rate)


@pytest_twisted.ensureDeferred
async def test_torrents_share_evenly_whatever_their_peers(peer, tracker, blob, meter):
    rate = 2_500_000
    one, many = blob(4 * MIB, 64 * KIB, 1), blob(4 * MIB, 64 * KIB, 2)
    for number in range(4):
        each = await peer(origin=True)
        held = many if number else one
        await each.keep(held)
        tracker.seed(each.scheduler, held)
    agent = await peer(config=limited(ingress=8 * rate))
    downloads = [Deferred.fromCoroutine(agent.scheduler.download("ns", each.digest)) for each in (one, many)]
    done = gatherResults(downloads, consumeErrors=True)
    await deferLater(reactor, 0.3)
    before = dict(meter.by_file)
    await deferLater(reactor, 1.0)
    shares = [count - before[file] for file, count in meter.by_file.items()]
    assert len(shares) == 2
    assert min(shares) > 0.8 * max(shares)
    agent.scheduler.configure(SwarmConfig())
    await done


@pytest_twisted.ensureDeferred
async def test_what_comes_over_http_is_held_as_well(peer, tracker, blob, http, serve):
    rate = 1_000_000
    blob = blob(1_500_000, 64 * KIB)
    herd, app, asked = await peer(origin=True), Klein(), []
    await herd.keep(blob)

    @app.route("/namespace/ns/blobs/<digest>")
    async def pieces(request, digest):
        asked.append(reactor.seconds())
        await send_blob(request, herd.cache.open(Digest.parse(digest)))

    address = f"127.0.0.1:{serve(app.resource()).port_number}"
    hosts = HostPool(HostsConfig(static=(address,)), default_port=1, reactor=reactor, rng=Random(1))
    agent = await peer(config=limited(ingress=8 * rate), fallback=HttpFallback(http, hosts, reactor))
    tracker.metas[blob.digest] = blob.meta
    await agent.scheduler.download("ns", blob.digest)
    assert reactor.seconds() - asked[0] > (len(blob.data) - 64 * KIB) / rate / 1.035
    assert agent.scheduler.counters.received_fallback_bytes == len(blob.data)
