"""Certificates that are renewed under a running process."""

from __future__ import annotations

import shutil
import time

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.logger import LogLevel

from krakentx.peer.tlsconfig import TlsConfig, load_tls
from krakentx.peer.tlsrenewal import TlsRenewal, stamp_of
from tests.peer.authority import DAY, Authority
from tests.peer.swarm import until

MIB = 1 << 20


@pytest.fixture
def ca(tmp_path) -> Authority:
    return Authority.make(tmp_path, "cluster")


@pytest.fixture
def used(ca) -> TlsConfig:
    return ca.config("required", ca.issue("peer"))


@pytest.fixture
def put(used, ca):
    """Put the files of an identity in the place of those in use."""

    def run(identity, *kinds: str) -> None:
        for kind in kinds or ("cert", "key"):
            new, old = getattr(identity, kind).path, getattr(used.client, kind).path
            shutil.copy(new, f"{old}.new")
            old.with_name(f"{old.name}.new").replace(old)

    return run


@pytest.fixture
def renewal(pool):
    """Looks often, once it is started."""
    return lambda config, tls: TlsRenewal(config, tls, stamp_of(config.files), reactor=reactor, pool=pool, every_s=0.02)


@pytest_twisted.ensureDeferred
async def test_the_next_handshake_shows_the_new_certificate(peer, tracker, blob, ca, used, put, renewal, start, logs):
    blob = blob(MIB)
    origin_tls = load_tls(used)
    origin = await peer(origin=True, tls=origin_tls)
    await origin.keep(blob)
    tracker.seed(origin.scheduler, blob)
    looking = renewal(used, origin_tls)
    other = Authority.make(ca.folder, "other")
    theirs = ca.config("required", other.issue("agent"))
    both = TlsConfig("required", (*used.cas, *other.config("off", theirs.client).cas), client=theirs.client)
    agent = await peer(tls=load_tls(both))

    before = origin_tls.expires
    put(other.issue("new", ends=60 * DAY))
    used.cas[0].path.write_bytes(other.path.read_bytes())
    await start(looking)
    await until(lambda: origin_tls.expires > before + 29 * DAY)
    await agent.scheduler.download("ns", blob.digest)
    assert any("new certificates are in use" in event["log_format"] for event in logs)


@pytest_twisted.ensureDeferred
async def test_files_that_do_not_fit_are_told_once_and_the_old_ones_stay(ca, used, put, renewal, start, logs):
    tls = load_tls(used)
    before = tls.accept, tls.dial, tls.expires
    await start(renewal(used, tls))
    new = ca.issue("new", ends=60 * DAY)
    put(new, "cert")

    def told() -> list[str]:
        return [event["error"] for event in logs if event["log_level"] is LogLevel.error]

    await until(told)
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > 0.2)
    assert len(told()) == 1
    assert "does not belong to the certificate" in told()[0]
    assert (tls.accept, tls.dial, tls.expires) == before
    logs.clear()
    put(new, "key")
    await until(lambda: tls.expires != before[2])


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_gone_is_told(used, renewal, start, logs):
    tls = load_tls(used)
    await start(renewal(used, tls))
    used.client.key.path.unlink()
    await until(lambda: any(event["log_level"] is LogLevel.error for event in logs))
    assert "tls.client.key" in logs.pop()["error"]
    assert tls.expires > time.time()
