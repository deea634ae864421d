"""What an agent falls back to."""

from __future__ import annotations

import pytest

from krakentx.agent.config import AgentConfig, DockerConfig, fallback_hosts
from krakentx.clients.config import HostsConfig, TrackerConfig


def _config(*trackers: str, dns: str = "", **changes: object) -> AgentConfig:
    return AgentConfig(tracker=TrackerConfig(hosts=HostsConfig(static=trackers, dns=dns)), **changes)


@pytest.mark.parametrize(
    ("config", "env", "hosts"),
    [
        (AgentConfig(), {}, ("127.0.0.1:15002",)),
        (AgentConfig(), {"HERD_HOST_IP": "10.0.1.100"}, ("10.0.1.100:15002",)),
        (AgentConfig(), {"HERD_HOST_IP": "fd00::1"}, ("[fd00::1]:15002",)),
        (_config("10.0.0.1:15003", "10.0.0.2:15003", "10.0.0.1:9"), {}, ("10.0.0.1:15002", "10.0.0.2:15002")),
        (_config("[fd00::1]:15003"), {}, ("[fd00::1]:15002",)),
        (_config(dns="trackers.example:15003"), {}, ("trackers.example:15002",)),
        (AgentConfig(fallback=()), {"HERD_HOST_IP": "10.0.1.100"}, ()),
        (AgentConfig(fallback=("h:1",)), {"HERD_HOST_IP": "10.0.1.100"}, ("h:1",)),
    ],
)
def test_the_fallback_is_configured_or_the_herd(
    config: AgentConfig, env: dict[str, str], hosts: tuple[str, ...]
) -> None:
    assert fallback_hosts(config, env).static == hosts


def test_the_old_name_of_the_docker_section_wins() -> None:
    assert AgentConfig().docker.docker_host == "unix:///var/run/docker.sock"
    assert AgentConfig(docker_daemon=DockerConfig(docker_host="tcp://h:1")).docker.docker_host == "tcp://h:1"
