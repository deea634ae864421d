"""The scripts of the example, run for real on bare hosts, with nothing on PATH that the guide of old asked for."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from krakentx.config.load import load
from tests.config.test_files import CLASSES, config_class
from tests.multihost.box import BARE_PATH, FOLDER, FULL_PATH, REPOSITORY, Box
from tests.multihost.conftest import Site

# The first test of a run also waits for the hosts and for the first deployments.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

CHECKS = ["✓ Push to herd succeeds", "✓ Agent pulls via P2P (no timeout)", "✓ Image verification passes"]
NOT_NEEDED = ("curl", "nginx", "sqlite3", "redis-server", "envsubst", "netstat", "docker", "podman", "make", "gcc")
SCRIPTS = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.sh"))
SOURCED = {"herd_param.sh", "agent_param.sh", "scripts/lib.sh"}


def checks(box: Box, herd: str, agent: str, **options: object) -> list[str]:
    said = box.run("test/test_multihost.sh", herd, agent, **options)  # type: ignore[arg-type]
    print(said)
    return [line for line in said.splitlines() if line[0] in "✓✗"]


def owned(box: Box, *folders: str) -> dict[str, tuple[str, str]]:
    """Path -> owner and mode of these folders and all that is in them."""
    said = box.run("find", *folders, "-printf", "%p %u %M\n", path=FULL_PATH)
    return {path: (user, mode) for path, user, mode in (line.split() for line in said.splitlines())}


# -- the folder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", CLASSES)
def test_config_only_extends_the_file_of_the_package(component: str) -> None:
    path = FOLDER / "config" / component / "multihost.yaml"
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert lines == [f"extends: krakentx:{component}/multihost.yaml"]
    env = {"HERD_HOST_IP": "10.0.1.100", "AGENT_HOST_IP": "10.0.1.101"}
    cls = config_class(component)
    assert load(cls, path, env=env) == load(cls, REPOSITORY / "etc" / component / "multihost.yaml", env=env)


def test_scripts_are_executable_in_git() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-s", "--", "*.sh"], cwd=FOLDER, capture_output=True, text=True, check=True
    ).stdout
    modes = {line.split("\t")[1]: line[:6] for line in listed.splitlines()}
    assert modes == {name: "100644" if name in SOURCED else "100755" for name in SCRIPTS}


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_posix_and_clean(name: str) -> None:
    first = (FOLDER / name).read_text().splitlines()[0]
    assert first in ("#!/bin/sh", "# shellcheck shell=sh")
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not on this machine; it comes with the Debian package shellcheck")
    done = subprocess.run(["shellcheck", "-S", "style", FOLDER / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# -- deployments ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def ready(site: Site) -> None:
    site.ready()


def test_the_hosts_are_bare(site: Site) -> None:
    said = site.herd.run("sh", "-c", f"command -v {' '.join(NOT_NEEDED)} || echo none")
    assert said == "none\n"
    assert not (site.herd.root / REPOSITORY.relative_to("/")).exists()


def test_the_folder_alone_deploys_a_herd_from_the_wheel_beside_it(site: Site) -> None:
    said = site.said["deploy_herd.sh"]
    print(said)
    assert "installing krakentx-" in said and "using /opt/kraken/bin/twistd" in said
    assert "no redis-server here: the tracker keeps its peers in memory" in said
    assert "systemd is not at work here, so twistd runs in the background" in said
    assert "push to 10.0.1.100:15000" in said
    assert "not found" not in said and "warning" not in said


def test_the_folder_alone_deploys_an_agent_where_the_package_is(site: Site) -> None:
    said = site.said["deploy_agent.sh"]
    print(said)
    assert "pull from 10.0.1.101:16000" in said
    assert "not found" not in said and "warning" not in said


def test_the_three_checks_on_the_agents_host_by_its_log(site: Site) -> None:
    assert checks(site.agent, site.herd.ip, site.agent.ip) == CHECKS


def test_the_three_checks_from_another_host_by_metrics(site: Site) -> None:
    assert checks(site.herd, site.herd.ip, site.agent.ip) == CHECKS


def test_the_checks_fail_when_the_herd_does_not_answer(site: Site) -> None:
    said = checks(site.agent, "10.0.1.99", site.agent.ip, ok=False)
    assert said == ["✗ Push to herd fails: is it deployed, and is its port 15000 open to this host?"]


def test_folders_are_where_the_guide_has_them_and_nobody_elses(site: Site) -> None:
    checks(site.agent, site.herd.ip, site.agent.ip)
    herd = owned(site.herd, "/var/cache/kraken", "/var/log/kraken", "/var/run/kraken/")
    agent = owned(site.agent, "/var/cache/kraken", "/var/log/kraken", "/var/run/kraken/")
    assert {"/var/cache/kraken/origin", "/var/cache/kraken/proxy", "/var/run/kraken/kraken-herd.pid"} <= herd.keys()
    assert "/var/log/kraken/kraken-herd/stdout.log" in herd
    assert {"/var/cache/kraken/agent/download", "/var/cache/kraken/agent/cache"} <= agent.keys()
    assert {"/var/log/kraken/kraken-agent/stdout.log", "/var/run/kraken/kraken-agent.pid"} <= agent.keys()
    for user, mode in (*herd.values(), *agent.values()):
        assert (user == "kraken" and mode[7:] == "---") or mode[0] == "l", (user, mode)
    for box, component in ((site.herd, "herd"), (site.agent, "agent")):
        pid = (box.root / f"run/kraken/kraken-{component}.pid").read_text()
        status = box.run("cat", f"/proc/{pid}/status")
        assert not re.search(r"^Uid:\s+0", status, re.M)


def test_a_second_deployment_keeps_data_even_after_undeploy(site: Site) -> None:
    [manifest, *_] = site.push("keep/app:v1")
    site.pull(site.agent, "keep/app:v1", manifest)
    assert "stopped kraken-herd" in site.herd.run("scripts/undeploy.sh")
    assert "stopped" not in site.herd.run("scripts/undeploy.sh")
    assert site.herd.run("ss", "-ltn", path=FULL_PATH).count("LISTEN") == 0
    assert "installing" not in site.deploy_herd()
    assert "stopped kraken-agent" in site.deploy_agent(site.agent)
    before = len(site.agent.log("agent"))
    site.pull(site.agent, "keep/app:v1", manifest)
    assert "Torrent complete" not in site.agent.log("agent")[before:]  # it was still in the cache
    site.herd.run("python3", "test/image.py", "pull", "127.0.0.1:15000", "keep/app:v1", manifest)


def test_a_stale_pid_file_of_another_process_is_left_alone(site: Site) -> None:
    site.deploy_agent(site.other)
    site.other.run("scripts/undeploy.sh")
    keeper = subprocess.Popen(site.other.command("/usr/bin/sleep", "60"))
    try:
        (site.other.root / "run/kraken/kraken-agent.pid").write_text(f"{keeper.pid}\n")
        site.deploy_agent(site.other)
        assert keeper.poll() is None
    finally:
        keeper.kill()
        keeper.wait()


def test_bind_address_is_what_listens(site: Site) -> None:
    site.deploy_agent(site.other, env={"BIND_ADDRESS": site.other.ip})
    for box, address in ((site.other, site.other.ip), (site.agent, "0.0.0.0")):
        assert set(re.findall(r"(\S+):1600[0-2] ", box.run("ss", "-ltn", path=FULL_PATH))) == {address}


def test_the_name_of_docker_desktop_is_this_machine_elsewhere(site: Site) -> None:
    other = site.other
    said = other.run("scripts/deploy_herd.sh", "host.docker.internal")
    assert f"host.docker.internal is not known on this machine (only Docker Desktop has it); taking {other.ip}" in said
    said = other.run("scripts/deploy_agent.sh", "host.docker.internal", "localhost")
    assert "pull from 127.0.0.1:16000" in said and "does not answer" not in said
    assert checks(other, "host.docker.internal", "localhost") == CHECKS


def test_containers_without_a_program_or_an_image(site: Site) -> None:
    env = {"HERD_HOST_IP": site.herd.ip, "AGENT_HOST_IP": site.agent.ip}
    for part in ("herd", "agent"):
        script = f"{part}_start_container.sh"
        said = site.other.run("sh", script, env=env, path=BARE_PATH, ok=False)
        assert "neither podman nor docker works here" in said
        if shutil.which("podman", path=FULL_PATH):
            said = site.other.run("sh", script, env=env, path=FULL_PATH, ok=False)
            assert f"podman has no image kraken-{part}:dev: build the images" in said


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["scripts/deploy_herd.sh"], "use: deploy_herd.sh HERD"),
        (["scripts/deploy_herd.sh", "no.such.host.invalid"], "no.such.host.invalid does not resolve here"),
        (["scripts/deploy_agent.sh", "10.0.1.100"], "use: deploy_agent.sh HERD AGENT"),
        (["scripts/undeploy.sh", "--all"], "use: undeploy.sh [--purge]"),
        (["test/test_multihost.sh", "10.0.1.100"], "use: test_multihost.sh HERD AGENT"),
        (["herd_start_processes.sh"], "set HERD_HOST_IP"),
        (["herd_start_container.sh"], "set HERD_HOST_IP"),
        (["agent_start_container.sh"], "set HERD_HOST_IP"),
    ],
)
def test_wrong_use_is_told_in_one_line(site: Site, argv: list[str], words: str) -> None:
    said = site.other.run("sh", *argv, ok=False)
    assert words in said.splitlines()[-1]


def test_an_address_of_no_interface_is_noticed(site: Site) -> None:
    said = site.deploy_agent(site.other, "10.0.1.199")
    assert "warning: no interface of this machine has the address 10.0.1.199" in said
    [manifest, *_] = site.push("noticed/app:v1")
    site.pull(site.other, "noticed/app:v1", manifest)
    told = "10.0.1.199:16001 is announced from 10.0.1.102: if others cannot reach that, deploy the agent with"
    assert told in site.other.log("agent") and told in site.herd.log("herd")
