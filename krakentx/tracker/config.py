"""The configuration of the tracker."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import Factory, frozen

from krakentx.clients.config import HostsConfig, UpstreamConfig
from krakentx.config.fields import duration, size


@frozen
class ServerConfig:
    """`trackerserver`: what an announce is answered with."""

    announce_limit: int = 50
    """Peers of one answer, origins not counted."""
    announce_interval_s: float = duration("3s", key="announce_interval")
    max_announces_per_s: int = 1000
    """Of unfinished peers: when they would ask more often, they are told a longer interval, up to a minute; 0 = any."""
    metainfo_ttl_s: float = duration("5m", key="metainfo_ttl")
    """How long metainfo is kept; it never changes for a blob unless the piece lengths of the ring do."""
    metainfo_cache_bytes: int = size("64MB", key="metainfo_cache")


@frozen
class LocalStoreConfig:
    """`peerstore.local`: peers in memory."""

    ttl_s: float = duration("5h", key="ttl")
    """How long a complete peer of the reference is kept: it announces only once."""
    leecher_ttl_s: float = duration("5m", key="leecher_ttl")
    """How long an incomplete peer is kept that does not say when it will announce again."""
    max_peers: int = 200_000
    """Peers of all torrents; above it the torrents silent for longest are forgotten."""
    max_torrent_peers: int = 20_000


@frozen
class RedisConfig:
    """`peerstore.redis`: peers shared by several trackers."""

    enabled: bool = False
    addr: str = "127.0.0.1:14001"
    sentinels: tuple[str, ...] = ()
    """Addresses of sentinels, host:port. When there are any they say where redis is, and `addr` does not count."""
    sentinel_master: str = "mymaster"
    """The name under which the sentinels know it."""
    dial_timeout_s: float = duration("5s", key="dial_timeout")
    read_timeout_s: float = duration("30s", key="read_timeout")
    write_timeout_s: float = duration("30s", key="write_timeout")
    peer_set_window_size_s: float = duration("1h", key="peer_set_window_size")
    max_peer_set_windows: int = 5
    max_active_conns: int = 8
    """Connections to redis."""
    retry_s: float = duration("5s", key="retry")
    """After a failure the memory is used alone, and redis is tried again every so often."""

    UNUSED = frozenset({"max_idle_conns", "idle_conn_timeout"})

    @property
    def where(self) -> str:
        """Where it is, for the log."""
        return f"{self.sentinel_master} of {', '.join(self.sentinels)}" if self.sentinels else self.addr


@frozen
class PeerStoreConfig:
    """`peerstore`."""

    local: LocalStoreConfig = Factory(LocalStoreConfig)
    redis: RedisConfig = Factory(RedisConfig)


@frozen
class OriginStoreConfig:
    """`originstore`: how long it is remembered which origins have a blob, and how to reach them."""

    locations_ttl_s: float = duration("10s", key="locations_ttl")
    locations_error_ttl_s: float = duration("1s", key="locations_error_ttl")
    origin_context_ttl_s: float = duration("10s", key="origin_context_ttl")
    origin_unavailable_ttl_s: float = duration("5s", key="origin_unavailable_ttl")


@frozen
class PolicyConfig:
    """`peerhandoutpolicy`."""

    priority: Literal["completeness", "default"] = "completeness"
    """`completeness`: complete agents first, then origins, then the others. `default`: no order."""


@frozen
class TrackerConfig:
    """The whole file."""

    port: int = 15003
    interface: str = ""
    data_dir: Path | None = None
    trackerserver: ServerConfig = Factory(ServerConfig)
    peerstore: PeerStoreConfig = Factory(PeerStoreConfig)
    originstore: OriginStoreConfig = Factory(OriginStoreConfig)
    peerhandoutpolicy: PolicyConfig = Factory(PolicyConfig)
    origin: UpstreamConfig = Factory(lambda: UpstreamConfig(hosts=HostsConfig(static=("127.0.0.1:15002",))))

    UNUSED = frozenset({"tls", "peerstore.redis.max_idle_conns", "peerstore.redis.idle_conn_timeout"})
