"""The configuration of the herd: a section for each part, inline or the path of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from attrs import Factory, frozen

from krakentx.backend.config import BackendChoice, BackendConfig
from krakentx.backend.config import TestfsConfig as TestfsBackend
from krakentx.buildindex.config import BuildIndexConfig
from krakentx.clients.config import HostsConfig, UpstreamConfig
from krakentx.config.fields import duration
from krakentx.core.peer import format_address
from krakentx.origin.config import OriginConfig
from krakentx.proxy.config import ProxyConfig
from krakentx.testfs.config import TestfsConfig
from krakentx.tracker.config import TrackerConfig


@frozen
class RedisConfig:
    """`redis`: a redis-server of the herd's own, for trackers of other herds to share the peers of this one."""

    spawn: bool = False
    """Start it with the herd, restart it when it dies, stop it with the herd; the tracker then uses it."""
    binary: str = "redis-server"
    port: int = 14001
    bind: str = "127.0.0.1"
    retry_s: float = duration("1s", key="retry")
    """Before it is started again; doubles up to a minute while it dies at once."""


@frozen
class HerdConfig:
    """All central parts in one process."""

    testfs: TestfsConfig = Factory(TestfsConfig)
    origin: OriginConfig = Factory(OriginConfig)
    tracker: TrackerConfig = Factory(TrackerConfig)
    build_index: BuildIndexConfig = Factory(BuildIndexConfig)
    proxy: ProxyConfig = Factory(ProxyConfig)
    redis: RedisConfig = Factory(RedisConfig)
    data_dir: Path | None = None


def wired(config: HerdConfig) -> HerdConfig:
    """Let the parts find each other, and their folders, wherever nothing else is configured."""
    assert config.data_dir is not None, "the caller chooses the data folder"
    testfs = _reach(config.testfs.interface, config.testfs.port)
    origin = _one(_reach(config.origin.interface, config.origin.port))
    index = _one(_reach(config.build_index.interface, config.build_index.port))
    parts: dict[str, Any] = {
        "testfs": config.testfs,
        "origin": _with_backend(config.origin, TestfsBackend(testfs, "blobs", "identity")),
        "tracker": _with_redis(_asking(config.tracker, origin=origin), config.redis),
        "build_index": _with_backend(
            _asking(config.build_index, origin=origin), TestfsBackend(testfs, "tags", "docker_tag")
        ),
        "proxy": _asking(config.proxy, origin=origin, build_index=index),
    }
    folders = {name: config.data_dir / name.replace("_", "-") for name in parts}
    return attrs.evolve(
        config, **{name: attrs.evolve(part, data_dir=part.data_dir or folders[name]) for name, part in parts.items()}
    )


def _reach(interface: str, port: int) -> str:
    """How this process reaches one of its own ports."""
    anywhere = interface in ("", "0.0.0.0", "::")
    return format_address("127.0.0.1" if anywhere else interface, port)


def _one(address: str) -> UpstreamConfig:
    return UpstreamConfig(HostsConfig(static=(address,)))


def _asking(part: Any, **upstreams: UpstreamConfig) -> Any:
    """`part` with these upstreams where it has its defaults: those are for parts which stand alone on their ports."""
    usual = type(part)()
    unset = {name: each for name, each in upstreams.items() if getattr(part, name) == getattr(usual, name)}
    return attrs.evolve(part, **unset)


def _with_backend(part: Any, testfs: TestfsBackend) -> Any:
    """`part` with the herd's own testfs as its backend when it has none."""
    return part if part.backends else attrs.evolve(part, backends=[BackendConfig(BackendChoice(testfs))])


def _with_redis(tracker: TrackerConfig, redis: RedisConfig) -> TrackerConfig:
    if not redis.spawn:
        return tracker
    store = attrs.evolve(tracker.peerstore.redis, enabled=True, addr=_reach(redis.bind, redis.port))
    return attrs.evolve(tracker, peerstore=attrs.evolve(tracker.peerstore, redis=store))
