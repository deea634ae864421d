"""The scripts of examples/multihost where systemd is the first process: they install units, and take them away."""

from __future__ import annotations

import shutil

import pytest

from tests.systemd.machine import Machine
from tests.wheel import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SRV = "/srv/multihost"


@pytest.fixture(scope="module")
def host(machine: Machine) -> Machine:
    shutil.copytree(ROOT / "examples/multihost", f"{machine.root}{SRV}")
    machine.run("sh", "-c", "rm -f /etc/systemd/system/kraken-*")  # as a host on which only the package is
    return machine


def script(host: Machine, *argv: str) -> str:
    said = host.run(f"{SRV}/{argv[0]}", *argv[1:])
    print(said)
    return said


def test_deploy_check_deploy_again_undeploy(host: Machine) -> None:
    said = script(host, "scripts/deploy_herd.sh", "localhost")
    assert "kraken-herd.service is enabled and runs" in said and "systemd is not at work" not in said
    assert "redis-server is here: the herd runs it on port 14001" in said
    assert host.run("redis-cli", "-p", "14001", "ping") == "PONG"
    said = script(host, "scripts/deploy_agent.sh", "localhost", "localhost")
    assert "kraken-agent.service is enabled and runs" in said
    checks = script(host, "test/test_multihost.sh", "localhost", "localhost")
    assert [line[0] for line in checks.splitlines()] == ["✓", "✓", "✓"]

    for unit in ("kraken-herd", "kraken-agent"):
        assert host.run("systemctl", "is-enabled", unit) == "enabled"
    before = host.show("kraken-agent", "MainPID")
    script(host, "scripts/deploy_agent.sh", "localhost", "localhost")
    assert host.show("kraken-agent", "MainPID") not in ("0", before)
    blobs = "find /var/cache/kraken/agent/cache -type f | wc -l"
    assert int(host.run("sh", "-c", blobs)) >= 3  # of the pull above
    writable = "find /var/cache/kraken /var/log/kraken /run/kraken /etc/kraken -perm /002 ! -type l"
    assert host.run("sh", "-c", writable) == ""

    said = script(host, "scripts/undeploy.sh")
    assert "stopped and removed kraken-herd.service" in said and "stopped and removed kraken-agent.service" in said
    assert host.run("sh", "-c", "ls /etc/systemd/system | grep -c '^kraken' || true") == "0"
    said = script(host, "scripts/undeploy.sh", "--purge")
    assert "removed /var/cache/kraken" in said and "removed the user kraken" in said
