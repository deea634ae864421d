"""The configuration of the agent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from attrs import Factory, frozen

from krakentx.clients.config import HostsConfig, PassiveUpstreamConfig, TrackerConfig
from krakentx.config.fields import duration, size
from krakentx.core.errors import InvalidInput
from krakentx.core.peer import format_address, parse_address
from krakentx.peer.address import PeerIDFactory
from krakentx.peer.tlsconfig import TlsConfig
from krakentx.storage.config import CleanupConfig
from krakentx.swarm.config import SwarmConfig
from krakentx.web.access import LOOPBACK

ORIGIN_PORT = 15002
_TRACKER = TrackerConfig(HostsConfig(static=("127.0.0.1:15003",)))
_BUILD_INDEX = PassiveUpstreamConfig(HostsConfig(static=("127.0.0.1:15004",)))


@frozen
class CacheCleanupConfig(CleanupConfig):
    """`cache_cleanup`, with a bound unless the operator sets another."""

    budget_bytes: int = size("50GB", key="budget")


@frozen
class StoreConfig:
    """`store`: blobs on disk."""

    UNUSED = frozenset({"read_part_size", "write_part_size"})

    download_dir: Path | None = None
    """Blobs that are arriving; by default `download` in the data folder."""
    cache_dir: Path | None = None
    """Whole blobs, on the same file system; by default `cache` in the data folder."""
    download_cleanup: CleanupConfig = Factory(CleanupConfig)
    cache_cleanup: CacheCleanupConfig = Factory(CacheCleanupConfig)


@frozen
class DockerConfig:
    """`container_runtime.docker`: how to reach dockerd for preloads."""

    docker_host: str = "unix:///var/run/docker.sock"
    docker_scheme: str = "http"
    docker_version: str = ""
    """Version of its API; empty for the daemon's newest."""


@frozen
class ContainerdConfig:
    """`container_runtime.containerd`: how to reach containerd for preloads."""

    address: str = "/run/containerd/containerd.sock"
    ctr: str = "ctr"
    """The program that comes with containerd and does the pull."""


@frozen
class RuntimeConfig:
    """`container_runtime`."""

    docker: DockerConfig = DockerConfig()
    containerd: ContainerdConfig = ContainerdConfig()
    timeout_s: float = duration("30m", key="timeout")
    """For one preload as a whole."""


@frozen
class AgentConfig:
    """Registry for pulls on one host, and a peer of the swarm."""

    UNUSED = frozenset({"registry_backup"})

    agent_registry_port: int = 16000
    agent_server_port: int = 16002
    peer_port: int = 16001
    interface: str = ""
    """Address to listen on; empty for all."""
    peer_ip: str = ""
    """Address that other peers are told; empty to take the one that leads to the tracker."""
    zone: str = ""
    cluster: str = ""
    peer_id_factory: PeerIDFactory = "addr_hash"
    tracker: TrackerConfig = _TRACKER
    build_index: PassiveUpstreamConfig = _BUILD_INDEX
    fallback: tuple[str, ...] | None = None
    """Origins or registries to ask for single pieces when peers give nothing. Without this key: port 15002 of
    HERD_HOST_IP, or of the trackers' hosts. An empty list: none."""
    store: StoreConfig = Factory(StoreConfig)
    scheduler: SwarmConfig = Factory(SwarmConfig)
    tls: TlsConfig = Factory(TlsConfig)
    allowed_cidrs: tuple[str, ...] | None = None
    """Networks that may use the registry; without this key everyone may."""
    admin_cidrs: tuple[str, ...] = LOOPBACK
    """Networks that may change the agent's state: delete blobs, change settings of the scheduler."""
    outage_status: Literal[503, 404] = 503
    """What a pull is answered while the herd is down. 404 is a lie that old clients need: they ask their next mirror
    only after it."""
    tag_timeout_s: float = duration("5s", key="tag_timeout")
    """For one question to one build-index."""
    metainfo_patience_s: float = duration("1s", key="metainfo_patience")
    """How long the tracker is asked for metainfo before the fallback hosts are asked too."""
    stat_timeout_s: float = duration("30s", key="stat_timeout")
    """For the size of a blob that an origin may have to fetch from its backend first."""
    stall_timeout_s: float = duration("60s", key="stall_timeout")
    """A pull in which nothing arrives for so long ends."""
    container_runtime: RuntimeConfig = Factory(RuntimeConfig)
    docker_daemon: DockerConfig | None = None
    """The reference's older name for `container_runtime.docker`, which it replaces."""
    data_dir: Path | None = None

    @property
    def docker(self) -> DockerConfig:
        """The docker to preload into."""
        return self.docker_daemon or self.container_runtime.docker


def fallback_hosts(config: AgentConfig, env: Mapping[str, str]) -> HostsConfig:
    """Where single pieces come from when peers give nothing: what is configured, else the herd's origin."""
    if config.fallback is not None:
        return HostsConfig(static=config.fallback)
    herd = env.get("HERD_HOST_IP", "").strip()
    if herd:
        return HostsConfig(static=(format_address(herd, ORIGIN_PORT),))
    trackers = config.tracker.hosts
    texts = trackers.static or ((trackers.dns,) if trackers.dns else ())
    try:
        hosts = dict.fromkeys(parse_address(text.strip(), ORIGIN_PORT)[0] for text in texts)
    except InvalidInput:
        return HostsConfig()  # the pool of the trackers tells what is wrong with it
    return HostsConfig(static=tuple(format_address(host, ORIGIN_PORT) for host in hosts))
