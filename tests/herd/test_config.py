"""How the parts of a herd find each other."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve

from krakentx.backend.config import BackendChoice, BackendConfig, FileConfig
from krakentx.clients.config import HostsConfig, UpstreamConfig
from krakentx.config.load import load
from krakentx.herd.config import HerdConfig, RedisConfig, wired
from krakentx.origin.config import OriginConfig
from krakentx.testfs.config import TestfsConfig
from krakentx.tracker.config import TrackerConfig

FOLDER = Path("/data")


def test_parts_ask_each_other_on_the_ports_that_are_configured() -> None:
    config = wired(
        HerdConfig(data_dir=FOLDER, testfs=TestfsConfig(port=1), origin=OriginConfig(port=2, interface="10.0.0.9"))
    )
    origin = HostsConfig(static=("10.0.0.9:2",))
    for part in (config.tracker, config.build_index, config.proxy):
        assert part.origin.hosts == origin
    assert config.proxy.build_index.hosts.static == ("127.0.0.1:15004",)
    for part, kind in ((config.origin, "identity"), (config.build_index, "docker_tag")):
        (backend,) = part.backends
        assert (backend.backend.testfs.addr, backend.backend.testfs.name_path) == ("127.0.0.1:1", kind)


def test_what_is_configured_stays() -> None:
    other = UpstreamConfig(HostsConfig(static=("10.0.0.1:80",)))
    backend = BackendConfig(BackendChoice(file=FileConfig(path=Path("/b"))))
    config = wired(
        HerdConfig(
            data_dir=FOLDER,
            tracker=TrackerConfig(origin=other),
            origin=OriginConfig(backends=[backend], data_dir=Path("/o")),
        )
    )
    assert config.tracker.origin == other
    assert config.origin.backends == [backend]
    assert config.origin.data_dir == Path("/o")


def test_each_part_has_its_folder() -> None:
    config = wired(HerdConfig(data_dir=FOLDER))
    assert [part.data_dir for part in (config.testfs, config.origin, config.build_index, config.proxy)] == [
        FOLDER / name for name in ("testfs", "origin", "build-index", "proxy")
    ]


def test_a_redis_of_its_own_is_used_by_the_tracker() -> None:
    config = HerdConfig(data_dir=FOLDER)
    assert not wired(config).tracker.peerstore.redis.enabled
    redis = wired(evolve(config, redis=RedisConfig(spawn=True, port=7))).tracker.peerstore.redis
    assert (redis.enabled, redis.addr) == (True, "127.0.0.1:7")


def test_a_section_may_stand_inline_or_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "origin.yaml").write_text("peer_port: 5\n")
    (tmp_path / "herd.yaml").write_text("origin: origin.yaml\nproxy: {port: [6, 7]}\nredis: {spawn: true}\n")
    config = load(HerdConfig, tmp_path / "herd.yaml")
    assert (config.origin.peer_port, config.proxy.port, config.redis.spawn) == (5, (6, 7), True)
