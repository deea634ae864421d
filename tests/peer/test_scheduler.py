"""Whole peers on the loopback."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

pytestmark = pytest.mark.integration


@pytest_twisted.ensureDeferred
async def test_an_agent_gets_a_blob_from_an_origin(peer, tracker, blob, logs):
    blob = blob(10 * 2**20 + 5)
    origin, agent = await peer(origin=True), await peer()
    await origin.keep(blob)
    tracker.seed(origin.scheduler, blob)
    assert await agent.read(blob) == blob.data
    await agent.scheduler.download("ns", blob.digest)
    assert agent.cache.stat(blob.digest) == len(blob.data)
    assert origin.scheduler.counters.sent_sendfile_bytes >= len(blob.data)
    assert origin.scheduler.counters.sent_copy_bytes == 0
    assert agent.scheduler.counters.received_peers_bytes == len(blob.data)
