"""The configuration of the proxy."""

from __future__ import annotations

from pathlib import Path

from attrs import Factory, frozen

from krakentx.clients.config import HostsConfig, UpstreamConfig
from krakentx.config.fields import size
from krakentx.storage.config import CleanupConfig

_ORIGIN = UpstreamConfig(HostsConfig(static=("127.0.0.1:15002",)))
_BUILD_INDEX = UpstreamConfig(HostsConfig(static=("127.0.0.1:15004",)))


@frozen
class CacheCleanupConfig(CleanupConfig):
    """`cache_cleanup`, with a bound unless the operator sets another."""

    budget_bytes: int = size("10GB", key="budget")


@frozen
class CastoreConfig:
    """`castore`: where pushed and fetched blobs lie while they pass."""

    UNUSED = frozenset(
        {"capacity", "volumes", "read_part_size", "write_part_size", "skip_hash_verification", "memory_cache"}
    )

    upload_dir: Path | None = None
    """Upload sessions; by default `upload` in the data folder."""
    cache_dir: Path | None = None
    """Whole blobs, on the same file system; by default `cache` in the data folder."""
    upload_cleanup: CleanupConfig = Factory(CleanupConfig)
    """Of it only `tti` and `interval`: a session that nobody touched for so long ends."""
    cache_cleanup: CacheCleanupConfig = Factory(CacheCleanupConfig)
    """What the origins have not taken yet never leaves."""
    max_uploads: int = 1000
    """Sessions at one time."""


@frozen
class ServerConfig:
    """`server`: the management port."""

    port: int = 15005
    interface: str = ""
    prefetch_min_blob_size_bytes: int = size("0", key="prefetch_min_blob_size")
    prefetch_max_blob_size_bytes: int = size("50GB", key="prefetch_max_blob_size")
    """Blobs below the one or above the other size are not prefetched."""
    prefetch_parallel: int = 8
    """Blobs that one prefetch asks for at a time."""


@frozen
class ProxyConfig:
    """Registry for pushes."""

    port: tuple[int, ...] = (15000,)
    interface: str = ""
    server: ServerConfig = Factory(ServerConfig)
    castore: CastoreConfig = Factory(CastoreConfig)
    origin: UpstreamConfig = _ORIGIN
    build_index: UpstreamConfig = _BUILD_INDEX
    allowed_cidrs: tuple[str, ...] | None = None
    """Networks that may use the registry; without this key everyone may."""
    data_dir: Path | None = None
