"""Encryption as it is configured, announced and passed on by a whole cluster."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest
import pytest_twisted

from krakentx.agent.config import AgentConfig
from krakentx.agent.service import build
from krakentx.core.errors import ConfigError
from tests.herd.world import Image, ask, herd_config, pull, push, registry_of
from tests.peer.authority import Authority

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

MIB = 1 << 20


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path, "cluster")


@pytest_twisted.ensureDeferred
async def test_peers_that_speak_tls_find_each_other_and_plain_ones_still_pull(world, ca, tmp_path, logs) -> None:
    """Nobody requires TLS, so each encrypted connection comes of an announcement that origin and tracker passed on."""
    optional = ca.config("optional", ca.issue("peer"))
    one = await world(herd_config(tmp_path / "herd", MIB, tls=optional))
    first, second, plain = [await one.add_agent(**changes) for changes in ({"tls": optional},) * 2 + ({},)]
    image = Image.make(1, 3 * MIB + 7)
    assert (await push(one.proxy, "company/app", "v1", image)).status == 201

    context = await ask("GET", f"http://127.0.0.1:{one.herd_config.origin.port}/internal/peercontext")
    assert json.loads(context.body)["tls"] is True
    for agent in (first, second):
        assert await pull(registry_of(agent), "company/app", "v1") == image
    counters = [each.scheduler.counters for each in (one.herd.origin, first, second)]
    assert sum(each.sent_copy_bytes for each in counters) >= 2 * 3 * MIB
    assert sum(each.sent_sendfile_bytes + each.received_fallback_bytes for each in counters) == 0
    assert await pull(registry_of(plain), "company/app", "v1") == image
    assert sum(each.sent_sendfile_bytes for each in counters) >= 3 * MIB


@pytest_twisted.ensureDeferred
async def test_a_bad_file_is_told_at_the_start(ca, tmp_path) -> None:
    from twisted.internet import reactor

    config = ca.config("required", ca.issue("peer"))
    gone = attrs.evolve(config, cas=())
    with pytest.raises(ConfigError, match=r"^tls.cas: give the path"):
        build(AgentConfig(data_dir=tmp_path, peer_ip="127.0.0.1", tls=gone), reactor=reactor, env={})
