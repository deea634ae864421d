"""The `tls` section: its words, its files, and what is said when one of them is wrong."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest
from attrs import evolve

from krakentx.agent.config import AgentConfig
from krakentx.config.load import load
from krakentx.core.errors import ConfigError
from krakentx.core.peer import PeerID, PeerInfo
from krakentx.peer.tlsconfig import FileConfig, IdentityConfig, TlsConfig, load_tls
from tests.peer.authority import DAY, Authority, ExtendedKeyUsageOID


@pytest.fixture
def ca(tmp_path) -> Authority:
    return Authority.make(tmp_path, "cluster")


@pytest.fixture
def good(ca) -> TlsConfig:
    return ca.config("required", ca.issue("peer"))


@pytest.mark.parametrize(
    ("text", "mode"),
    [("off", "off"), ('"off"', "off"), ("optional", "optional"), ("required", "required"), ("false", "off")],
)
def test_modes(tmp_path, text, mode):
    (tmp_path / "agent.yaml").write_text(f"tls: {{peers: {text}}}")
    config = load(AgentConfig, tmp_path / "agent.yaml", env={}).tls
    assert (config.peers, config.on) == (mode, mode != "off")


@pytest.mark.parametrize("text", ["on", "yes", "require", "1", "[off]"])
def test_words_that_are_no_mode(tmp_path, text):
    (tmp_path / "agent.yaml").write_text(f"tls:\n  peers: {text}\n")
    with pytest.raises(ConfigError, match=r"agent.yaml:2: tls.peers: .*; write one of off, optional, required"):
        load(AgentConfig, tmp_path / "agent.yaml", env={})


def test_a_whole_section(tmp_path, good):
    (tmp_path / "agent.yaml").write_text(
        f"tls:\n  peers: required\n  cas: [{{path: {good.cas[0].path}}}]\n"
        f"  client: {{cert: {{path: {good.client.cert.path}}}, key: {{path: {good.client.key.path}}}}}\n"
    )
    assert load(AgentConfig, tmp_path / "agent.yaml", env={}).tls == good


def test_good_files(good, logs):
    tls = load_tls(good)
    assert tls is not None and tls.required
    assert 29 * DAY < tls.expires - time.time() < 31 * DAY
    assert logs == []


def test_whom_to_dial_with_tls(good):
    plain = PeerInfo(PeerID(bytes(20)), "10.0.0.1", 16001)
    announced = evolve(plain, tls=True)
    optional = load_tls(evolve(good, peers="optional"))
    assert (optional.secures(plain), optional.secures(announced)) == (False, True)
    assert load_tls(good).secures(plain)


def test_a_key_with_a_passphrase(ca):
    locked = ca.issue("locked", phrase=b"open sesame")
    assert load_tls(ca.config("required", locked)) is not None
    with pytest.raises(ConfigError, match=r"^tls.client.key: .*locked.key: .*has it a passphrase\? "):
        load_tls(ca.config("required", evolve(locked, passphrase=FileConfig())))
    locked.passphrase.path.write_text("wrong")
    with pytest.raises(ConfigError, match=r"^tls.client.key: .*locked.key: .*has it a passphrase\? "):
        load_tls(ca.config("required", locked))


def test_a_certificate_of_each_kind(ca, tmp_path):
    """The one that is shown to dialers may be good for servers alone, and the other for clients alone."""
    server = ca.issue("server", usage=(ExtendedKeyUsageOID.SERVER_AUTH,))
    client = ca.issue("client", usage=(ExtendedKeyUsageOID.CLIENT_AUTH,))
    config = TlsConfig("required", (FileConfig(ca.path),), server, client)
    assert load_tls(config) is not None
    with pytest.raises(ConfigError, match=r"^tls.client.cert: .*client.crt: peers would refuse it: unsuitable"):
        load_tls(evolve(config, server=IdentityConfig()))
    with pytest.raises(ConfigError, match=r"^tls.server.cert: .*server.crt: peers would refuse it: unsuitable"):
        load_tls(evolve(config, client=IdentityConfig()))


def _at(config: TlsConfig, **files: Path) -> TlsConfig:
    return evolve(config, client=evolve(config.client, **{name: FileConfig(path) for name, path in files.items()}))


def test_what_is_said_of_bad_files(good, ca, tmp_path):
    other, nowhere, nonsense = ca.issue("other"), tmp_path / "nowhere.pem", tmp_path / "nonsense.pem"
    stranger = Authority.make(tmp_path, "stranger")
    nonsense.write_text("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
    empty = FileConfig()
    wrong = {
        r"^tls.cas: give the path of the cluster's CA": evolve(good, cas=()),
        rf"^tls.cas\[0\]: {nowhere}: cannot be read: No such file or directory$": evolve(
            good, cas=(FileConfig(nowhere),)
        ),
        rf"^tls.cas\[1\]: {nonsense}: holds no certificate in PEM$": evolve(
            good, cas=(*good.cas, FileConfig(nonsense))
        ),
        r"^tls.client.cert: give the path of a PEM file, like": evolve(good, client=IdentityConfig()),
        r"^tls.client.cert: give the path of a PEM file": evolve(good, client=evolve(good.client, cert=empty)),
        r"^tls.client.key: give the path of a PEM file": evolve(good, client=evolve(good.client, key=empty)),
        rf"^tls.client.cert: {nowhere}: cannot be read": _at(good, cert=nowhere),
        rf"^tls.client.cert: {tmp_path}: cannot be read: Is a directory$": _at(good, cert=tmp_path),
        rf"^tls.client.cert: {nonsense}: holds no certificate in PEM$": _at(good, cert=nonsense),
        rf"^tls.client.key: {nowhere}: cannot be read": _at(good, key=nowhere),
        rf"^tls.client.key: {nonsense}: holds no private key in PEM that can be read": _at(good, key=nonsense),
        r"^tls.client.key: .*other.key: does not belong to the certificate in .*peer.crt$": _at(
            good, key=other.key.path
        ),
        rf"^tls.client.passphrase: {nowhere}: cannot be read": _at(good, passphrase=nowhere),
        r"^tls.client.cert: .*peer.crt: peers would refuse it: .*; is it signed by tls.cas\?$": evolve(
            good, cas=(FileConfig(stranger.path),)
        ),
    }
    for message, config in wrong.items():
        with pytest.raises(ConfigError, match=message) as caught:
            load_tls(config)
        assert "\n" not in str(caught.value)


def test_certificates_that_nobody_uses_are_told(good, logs):
    assert load_tls(evolve(good, peers="off")) is None
    (event,) = logs
    assert "nothing is encrypted, for tls.peers is off" in event["log_format"]
    assert load_tls(TlsConfig()) is None
    assert len(logs) == 1


@pytest.mark.parametrize(
    ("begins", "ends", "word"),
    [(-2 * DAY, -DAY, "has expired"), (DAY, 2 * DAY, "not yet valid"), (-DAY, 3 * DAY, "renew it")],
)
def test_the_time_of_a_certificate_is_told_at_the_start(ca, logs, begins, ends, word):
    """It starts nevertheless: HTTP still brings what the peer wire does not."""
    tls = load_tls(ca.config("required", ca.issue("late", begins=begins, ends=ends)))
    assert abs(tls.expires - time.time() - ends) < 60
    (event,) = logs
    assert word in event["log_format"].format(**event)
    logs.clear()


def test_the_page_makes_a_ca(tmp_path, logs):
    text = (Path(__file__).parents[2] / "docs/tls.md").read_text()
    commands, settings = (re.search(rf"^```{kind}\n(.*?)^```", text, re.M | re.S)[1] for kind in ("sh", "yaml"))
    assert len(commands.splitlines()) == 5
    subprocess.run(["sh", "-euc", commands], cwd=tmp_path, check=True, capture_output=True, timeout=30)
    (tmp_path / "agent.yaml").write_text(settings.replace("/etc/kraken/tls", str(tmp_path)))
    assert load_tls(load(AgentConfig, tmp_path / "agent.yaml", env={}).tls).required
    assert logs == []
