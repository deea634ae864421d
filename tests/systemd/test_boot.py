"""The units under a systemd that is the first process: start, watch, restart, stop, and what they may touch."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.systemd.machine import Machine, wait

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ETC = "/opt/kraken/share/krakentx/etc"
HERD_PORTS = {
    "testfs": 14000,
    "proxy registry": 15000,
    "peer wire": 15001,
    "origin": 15002,
    "tracker": 15003,
    "build-index": 15004,
    "proxy management": 15005,
}
SPLIT = ("testfs", "origin", "tracker", "build-index", "proxy")
STOP_S = 15.0
DOCKER_STUB = "docker-stub.service"
ENVIRONMENT = {
    "kraken.env": "HERD_HOST_IP=127.0.0.1\n",
    "herd.env": f"KRAKEN_OPTIONS=--config={ETC}/herd/multihost.yaml\n",
    "origin.env": f"KRAKEN_OPTIONS=--config={ETC}/origin/multihost.yaml --blobserver-hostname=localhost\n",
    "agent.env": "AGENT_HOST_IP=127.0.0.1\nBIND_ADDRESS=127.0.0.2\n"
    f"KRAKEN_OPTIONS=--config={ETC}/agent/multihost.yaml\n",
}


@pytest.fixture
def systemctl(machine: Machine) -> Iterator[Machine]:
    """The machine with /etc/kraken; whatever the test started is stopped after it, and drop-ins of the test go."""
    folder = machine.root / "etc/kraken"
    folder.mkdir(exist_ok=True)
    for name, text in ENVIRONMENT.items():
        (folder / name).write_text(text)
    yield machine
    machine.run("systemctl", "stop", "kraken-*.service", "kraken-*.target", DOCKER_STUB, check=False)
    machine.run("sh", "-c", "rm -rf /run/systemd/system/kraken-*.d; systemctl daemon-reload")


def listens(machine: Machine, port: int, address: str = "127.0.0.1") -> bool:
    code = f"import socket; socket.create_connection(({address!r}, {port}), timeout=2)"
    return "Error" not in machine.run("python3", "-c", code, check=False)


def get(machine: Machine, url: str) -> str:
    code = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=20).read().decode())"
    return machine.run("python3", "-c", code)


def main_pid(machine: Machine, unit: str) -> str:
    return machine.show(unit, "MainPID")


def drop_in(machine: Machine, unit: str, text: str) -> None:
    folder = f"/run/systemd/system/{unit}.d"
    machine.run("sh", "-c", f'mkdir -p {folder}; printf %s "$1" >{folder}/test.conf', "sh", f"[Service]\n{text}\n")
    machine.run("systemctl", "daemon-reload")


def journal(machine: Machine, unit: str) -> str:
    return machine.run("journalctl", "--no-pager", "-o", "cat", "-u", unit)


def restarted(machine: Machine, unit: str, before: str) -> bool:
    return machine.show(unit, "ActiveState") == "active" and main_pid(machine, unit) not in ("0", before)


def test_start_returns_when_every_part_listens(systemctl: Machine) -> None:
    systemctl.run("systemctl", "start", "kraken-herd.service")
    for port in HERD_PORTS.values():
        assert listens(systemctl, port), port
    assert get(systemctl, "http://127.0.0.1:15003/health").startswith("OK")
    status = systemctl.show("kraken-herd.service", "StatusText")
    assert status == "listens: " + ", ".join(f"{name} {port}" for name, port in HERD_PORTS.items())


def test_it_runs_as_its_user_and_keeps_others_out(systemctl: Machine) -> None:
    systemctl.run("systemctl", "start", "kraken-herd.service", "kraken-agent.service")
    for unit in ("kraken-herd", "kraken-agent"):
        status = systemctl.run("cat", f"/proc/{main_pid(systemctl, unit)}/status")
        assert re.search(r"^CapEff:\s0+$", status, re.M) and re.search(r"^NoNewPrivs:\s1$", status, re.M)
        assert re.search(r"^Seccomp:\s2$", status, re.M)
        log = systemctl.run("cat", f"/var/log/kraken/{unit}/stdout.log")
        assert " listens on port " in log and "Traceback" not in log and "cannot" not in log
    places = systemctl.run("find", "/var/cache/kraken", "/var/log/kraken", "/run/kraken", "-printf", "%M %u %p\n")
    owners = {path: (mode, user) for mode, user, path in (line.split(None, 2) for line in places.splitlines())}
    assert {"/var/cache/kraken/origin", "/var/cache/kraken/proxy", "/var/cache/kraken/testfs"} <= owners.keys()
    assert {"/var/cache/kraken/agent/download", "/var/cache/kraken/agent/cache", "/run/kraken"} <= owners.keys()
    del owners["/var/log/kraken"]  # made by systemd for the folders in it
    assert {user for _, user in owners.values()} == {"kraken"}
    assert [path for path, (mode, _) in owners.items() if mode[7:] != "---"] == []


def test_variables_reach_the_yaml(systemctl: Machine) -> None:
    systemctl.run("systemctl", "start", "kraken-agent.service")
    assert listens(systemctl, 16000, "127.0.0.2") and not listens(systemctl, 16000)


def test_what_is_killed_comes_back(systemctl: Machine) -> None:
    systemctl.run("systemctl", "start", "kraken-herd.service")
    before = main_pid(systemctl, "kraken-herd")
    systemctl.run("systemctl", "kill", "--signal=KILL", "kraken-herd")
    wait("new herd", 20, lambda: restarted(systemctl, "kraken-herd", before))
    assert listens(systemctl, 15000)
    assert (
        systemctl.run("cat", "/var/log/kraken/kraken-herd/stdout.log").count("proxy registry listens on port 15000")
        >= 2
    )


def test_the_watchdog_ends_one_that_hangs(systemctl: Machine) -> None:
    unit = "kraken-herd"
    drop_in(systemctl, f"{unit}.service", "WatchdogSec=2")
    systemctl.run("systemctl", "start", unit)
    before = main_pid(systemctl, unit)
    time.sleep(3)  # left alone it lives longer than the watchdog waits
    assert main_pid(systemctl, unit) == before
    systemctl.run("systemctl", "kill", "--signal=STOP", unit)
    wait(f"new {unit}", 20, lambda: restarted(systemctl, unit, before))
    said = journal(systemctl, unit)
    assert "Watchdog timeout" in said
    assert "Fatal Python error: Aborted" in said  # with the stack of every thread


HOLD = f"""
import socket, sys
for port in {sorted(HERD_PORTS.values())}:
    held = socket.create_connection(("127.0.0.1", port))
    if port != {HERD_PORTS["peer wire"]}:
        held.send(b"PUT /v2/ HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 9\\r\\n\\r\\n")
    globals()[f"held_{{port}}"] = held
print("held", flush=True)
sys.stdin.read()
"""


def test_stop_ends_within_its_time_while_clients_are_connected(systemctl: Machine) -> None:
    systemctl.run("systemctl", "start", "kraken-herd.service", "kraken-agent.service")
    client = subprocess.Popen(systemctl.command("python3", "-c", HOLD), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert client.stdout is not None and client.stdout.readline() == b"held\n"
        for unit in ("kraken-herd", "kraken-agent"):
            began = time.monotonic()
            systemctl.run("systemctl", "stop", unit)
            assert time.monotonic() - began < STOP_S
            assert systemctl.show(unit, "Result") == "success"
            assert systemctl.show(unit, "ActiveState") == "inactive"
    finally:
        client.communicate(timeout=10)


def test_the_herd_gives_way_to_its_parts_and_they_to_it(systemctl: Machine) -> None:
    systemctl.run("systemctl", "start", "kraken-herd.service")
    systemctl.run("systemctl", "start", "kraken-herd.target")
    states = {part: systemctl.show(f"kraken-{part}", "ActiveState") for part in (*SPLIT, "herd")}
    assert states == {**dict.fromkeys(SPLIT, "active"), "herd": "inactive"}
    for port in HERD_PORTS.values():
        assert listens(systemctl, port), port
    assert [part for part in SPLIT if systemctl.show(f"kraken-{part}", "NRestarts") != "0"] == []
    assert get(systemctl, "http://127.0.0.1:15003/readiness").startswith("OK")  # the tracker reaches the origin

    systemctl.run("systemctl", "start", "kraken-herd.service")
    states = {part: systemctl.show(f"kraken-{part}", "ActiveState") for part in (*SPLIT, "herd")}
    assert states == {**dict.fromkeys(SPLIT, "inactive"), "herd": "active"}
    assert systemctl.show("kraken-herd", "NRestarts") == "0"

    systemctl.run("systemctl", "start", "kraken-herd.target")
    systemctl.run("systemctl", "stop", "kraken-herd.target")
    wait(
        "end of the parts",
        STOP_S,
        lambda: all(systemctl.show(f"kraken-{part}", "ActiveState") == "inactive" for part in SPLIT),
    )


def test_redis(systemctl: Machine) -> None:
    systemctl.run("systemctl", "start", "kraken-redis.service")
    assert systemctl.run("redis-cli", "-p", "14001", "ping") == "PONG"
    before = main_pid(systemctl, "kraken-redis")
    systemctl.run("systemctl", "kill", "--signal=KILL", "kraken-redis")
    wait("new redis", 10, lambda: restarted(systemctl, "kraken-redis", before))
    assert systemctl.run("redis-cli", "-p", "14001", "ping") == "PONG"


DOCKER = """
import http.server, os, shutil, socketserver
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"{}")
    def address_string(self):
        return ""
server = socketserver.UnixStreamServer("/run/docker.sock", Handler)
shutil.chown("/run/docker.sock", "root", "docker")
os.chmod("/run/docker.sock", 0o660)
server.serve_forever()
"""


def test_a_drop_in_opens_the_socket_of_docker(systemctl: Machine) -> None:
    preload = "http://127.0.0.2:16002/preload/tags/library%2Fa:b"
    systemctl.run("groupadd", "--force", "docker")
    systemctl.run("systemd-run", f"--unit={DOCKER_STUB}", "--quiet", "python3", "-c", DOCKER)
    systemctl.run("systemctl", "start", "kraken-agent.service")
    with pytest.raises(AssertionError, match="HTTP Error 5"):
        get(systemctl, preload)
    drop_in(systemctl, "kraken-agent.service", "SupplementaryGroups=docker")
    systemctl.run("systemctl", "restart", "kraken-agent.service")
    get(systemctl, preload)
