"""The configuration of an origin."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs
from attrs import Factory, frozen

from krakentx.backend.config import BackendConfig
from krakentx.clients.config import ActiveConfig, HostsConfig, RingConfig
from krakentx.config.fields import duration, parse_size, size
from krakentx.core.errors import InvalidInput
from krakentx.core.metainfo import DEFAULT_PIECE_LENGTHS, PieceLengths
from krakentx.peer.tlsconfig import TlsConfig
from krakentx.queue.config import QueueConfig
from krakentx.storage.config import CleanupConfig
from krakentx.swarm.config import SwarmConfig


def parse_piece_lengths(value: object) -> PieceLengths:
    """Read the map of blob sizes to piece lengths.

    Raises:
        InvalidInput: anything else, or an empty map.
    """
    if not isinstance(value, dict):
        raise InvalidInput("piece_lengths", "write a map of blob sizes to piece lengths, like `0: 4MB`")
    return PieceLengths(tuple((parse_size(at), parse_size(length)) for at, length in value.items()))


@frozen
class MetaInfoGenConfig:
    """`metainfogen`: how blobs are cut. All origins of a ring must agree, and keep it once blobs are there."""

    piece_lengths: PieceLengths = attrs.field(
        default=DEFAULT_PIECE_LENGTHS, metadata={"key": "piece_lengths", "parse": parse_piece_lengths}
    )


@frozen
class BlobServerConfig:
    """`blobserver`."""

    duplicate_write_back_stagger_s: float = duration("30m", key="duplicate_write_back_stagger")
    """A replica writes to the backend after this time, once more for each rank, unless it is there by then."""
    max_uploads: int = 1000
    upload_idle_s: float = duration("6h", key="upload_idle")
    """An upload nobody touched for so long is dropped."""
    fetches: int = 8
    """Agents whose peers give nothing, that get pieces by HTTP at one time."""
    fetch_wait_s: float = duration("2500ms", key="fetch_wait")
    """How long others wait for their turn, until they are sent away to come again."""
    max_waiting_fetches: int = 256
    """Agents that may wait; further ones are sent away at once."""


@frozen
class CAStoreConfig:
    """`castore`: blobs on disk; both folders must be on one file system."""

    upload_dir: Path | None = None
    cache_dir: Path | None = None
    upload_cleanup: CleanupConfig = Factory(CleanupConfig)
    cache_cleanup: CleanupConfig = Factory(CleanupConfig)

    UNUSED = frozenset(
        {"volumes", "capacity", "read_part_size", "write_part_size", "skip_hash_verification", "memory_cache"}
    )


@frozen
class RefreshConfig:
    """`blobrefresh`: bringing blobs back from the backend."""

    size_limit_bytes: int = size("0", key="size_limit")
    """Larger blobs are refused; 0 = none is."""
    parallel: int = 16
    max_waiting: int = 10_000
    error_ttl_s: float = duration("5s", key="error_ttl")
    """How long a failure is told to who asks again, instead of trying again."""


@frozen
class LocalDBConfig:
    """`localdb`: the file of the queue."""

    source: Path | None = None


@frozen
class OriginConfig:
    """The whole file."""

    port: int = 15002
    interface: str = ""
    peer_port: int = 15001
    peer_ip: str = ""
    """Where peers reach it; empty to find out."""
    hostname: str = ""
    """How it is named in the ring, without port; empty for the host's name."""
    zone: str = ""
    data_dir: Path | None = None
    peer_id_factory: Literal["addr_hash", "random"] = "addr_hash"
    admin_cidrs: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Networks from which blobs may be deleted and settings changed."""
    cluster: HostsConfig = Factory(HostsConfig)
    """The members of the ring, itself among them; empty when it is alone."""
    hashring: RingConfig = Factory(RingConfig)
    healthcheck: ActiveConfig = Factory(ActiveConfig)
    blobserver: BlobServerConfig = Factory(BlobServerConfig)
    castore: CAStoreConfig = Factory(CAStoreConfig)
    metainfogen: MetaInfoGenConfig = Factory(MetaInfoGenConfig)
    backends: list[BackendConfig] = Factory(list)
    blobrefresh: RefreshConfig = Factory(RefreshConfig)
    localdb: LocalDBConfig = Factory(LocalDBConfig)
    writeback: QueueConfig = Factory(QueueConfig)
    scheduler: SwarmConfig = Factory(SwarmConfig)
    tls: TlsConfig = Factory(TlsConfig)

    UNUSED = frozenset(
        {
            "auth",
            "hashring.refresh_interval",
            "hashring.membership_wait_timeout",
            "hashring.membership_wait_interval",
        }
    )
