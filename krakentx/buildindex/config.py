"""The configuration of the build-index."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import attrs
from attrs import Factory, frozen

from krakentx.backend.config import BackendConfig
from krakentx.clients.config import HostsConfig, UpstreamConfig
from krakentx.config.fields import duration
from krakentx.core.errors import InvalidInput
from krakentx.queue.config import QueueConfig


def check_regex(_section: object, _attribute: object, value: str) -> None:
    """Raises: InvalidInput: it is no regular expression."""
    try:
        re.compile(value)
    except re.error as error:
        raise InvalidInput("namespace", f"{value!r} is no regular expression: {error}") from error


@frozen
class TagTypeConfig:
    """One of `tag_types`: what a tag of such a name depends on.

    `docker`: the manifest and all that it refers to, down to the layers. `default`: the blob alone.
    """

    namespace: str = attrs.field(default=".*", validator=check_regex)
    type: Literal["docker", "default"] = "docker"
    root: str = ""
    """Of no use; the reference's files carry it."""


@frozen
class TagServerConfig:
    """`tagserver`."""

    duplicate_put_stagger_s: float = duration("20m", key="duplicate_put_stagger")
    """A neighbour writes a tag to the backend after this time, the next one after twice it."""
    duplicate_replicate_stagger_s: float = duration("20m", key="duplicate_replicate_stagger")
    check_dependencies: bool = True
    """Refuse a tag when something that it depends on is known to be absent from the origins."""


@frozen
class TagStoreConfig:
    """`tag_store`."""

    write_through: bool = False
    """Answer only when the backend has the tag: an outage of it then makes pushes fail."""


@frozen
class StoreConfig:
    """`store`: tags on disk. They are a few bytes each, and never leave by themselves."""

    cache_dir: Path | None = None

    UNUSED = frozenset({"upload_dir", "upload_cleanup", "cache_cleanup", "read_part_size", "write_part_size"})


@frozen
class LocalDBConfig:
    """`localdb`: the file of the queues."""

    source: Path | None = None


@frozen
class BuildIndexConfig:
    """The whole file."""

    port: int = 15004
    interface: str = ""
    hostname: str = ""
    """How it is named in `cluster`, without port; empty for the host's name."""
    data_dir: Path | None = None
    tagserver: TagServerConfig = Factory(TagServerConfig)
    tag_store: TagStoreConfig = Factory(TagStoreConfig)
    tag_types: list[TagTypeConfig] = Factory(lambda: [TagTypeConfig()])
    remotes: dict[str, list[str]] = Factory(dict)
    """Address of another cluster's build-index -> expressions for the tags that it gets."""
    origin: UpstreamConfig = Factory(lambda: UpstreamConfig(hosts=HostsConfig(static=("127.0.0.1:15002",))))
    cluster: UpstreamConfig = Factory(UpstreamConfig)
    """The build-indexes of this cluster, itself among them; empty when it is alone."""
    store: StoreConfig = Factory(StoreConfig)
    backends: list[BackendConfig] = Factory(list)
    localdb: LocalDBConfig = Factory(LocalDBConfig)
    writeback: QueueConfig = Factory(QueueConfig)
    tag_replication: QueueConfig = Factory(QueueConfig)

    UNUSED = frozenset({"tls", "auth"})
