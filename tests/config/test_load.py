"""YAML to values: merging, variables, and errors that name file, line, key and remedy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import attrs
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from krakentx.agent.config import AgentConfig
from krakentx.config.fields import duration, named, size
from krakentx.config.load import load, yaml_keys
from krakentx.config.yamlfile import Key
from krakentx.core.errors import ConfigError


@frozen
class Host:
    UNUSED: ClassVar[frozenset[str]] = frozenset({"bandwidth"})

    name: str
    weight: int = 1


@frozen
class Retry:
    UNUSED: ClassVar[frozenset[str]] = frozenset({"jaeger_level"})

    interval_s: float = duration("30s", key="interval")
    limit_bytes: int = size("4MB", key="limit")
    attempts: int = 3


@frozen
class Hosts:
    WHOLE: ClassVar[bool] = True

    static: tuple[str, ...] = ()
    dns: str = ""

    def __attrs_post_init__(self) -> None:
        if self.static and self.dns:
            raise ConfigError("give either `static` or `dns`")


@frozen
class Upstream:
    hosts: Hosts = Hosts()
    fails: int = 3


@frozen
class Config:
    UNUSED: ClassVar[frozenset[str]] = frozenset({"old", "retry.colour"})

    port: int = attrs.field(default=15003)
    retry: Retry = Retry()
    origin: Upstream = Upstream(Hosts(static=("o:1",)), fails=9)
    hosts: tuple[str, ...] = ("localhost:1",)
    ring: tuple[Host, ...] = ()
    remotes: Mapping[str, tuple[str, ...]] = attrs.Factory(dict)
    metrics_on: bool = named("metrics", True)
    rate: float = 0.5
    priority: Literal["completeness", "default"] = "completeness"
    version: str = "1.21"
    backup: str | None = "x"
    listen: int | str = 0
    data_dir: Path | None = None

    @port.validator
    def _is_port(self, attribute: object, value: int) -> None:
        if not 0 <= value < 65536:
            raise ValueError(f"port must be from 0 to 65535, not {value}")


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write(name: str, text: str) -> Path:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_without_a_file_everything_is_default() -> None:
    assert load(Config) == Config()


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "retry:\nhosts:\n", "{}"])
def test_an_empty_file_or_key_is_default(write, text: str) -> None:
    assert load(Config, write("a.yaml", text)) == Config()


def test_every_kind_of_value(write) -> None:
    path = write(
        "a.yaml",
        """
        port: 8080
        retry: {interval: 1h30m, limit: 50G, attempts: 0}
        hosts: [a:1, b:2]
        ring: [{name: a}, {name: b, weight: 7}]
        remotes: {zone2: [test/.*]}
        metrics: false
        rate: 1
        priority: default
        version: 1.20
        backup: null
        listen: sock
        data_dir: /var/x
        """,
    )
    assert load(Config, path) == Config(
        port=8080,
        retry=Retry(interval_s=5400.0, limit_bytes=50 << 30, attempts=0),
        hosts=("a:1", "b:2"),
        ring=(Host("a"), Host("b", 7)),
        remotes={"zone2": ("test/.*",)},
        metrics_on=False,
        rate=1.0,
        priority="default",
        version="1.20",
        listen="sock",
        data_dir=Path("/var/x"),
    )


def test_zero_and_false_are_values(write) -> None:
    config = load(Config, write("a.yaml", "port: 0\nretry: {interval: 0, limit: 0}\nhosts: []\nversion: ''\n"))
    assert (config.port, config.retry.interval_s, config.retry.limit_bytes) == (0, 0.0, 0)
    assert (config.hosts, config.version) == ((), "")


def test_extends_merges_maps_and_replaces_lists(write) -> None:
    write("base/root.yaml", "port: 1\nretry: {interval: 1s, attempts: 9}\nhosts: [a:1, b:2]\n")
    write("base/mid.yaml", "extends: root.yaml\nretry: {interval: 2s}\n")
    path = write("top.yaml", "extends: base/mid.yaml\nhosts: [c:3]\n")
    config = load(Config, path)
    assert (config.port, config.retry.interval_s, config.retry.attempts, config.hosts) == (1, 2.0, 9, ("c:3",))


def test_a_section_given_in_part_keeps_the_rest_of_its_default(write) -> None:
    assert load(Config, write("a.yaml", "origin: {fails: 1}")).origin == Upstream(Hosts(static=("o:1",)), fails=1)
    assert load(Config, write("a.yaml", "origin: {hosts: {dns: d}}")).origin == Upstream(Hosts(dns="d"), fails=9)


def test_secrets_and_overrides_have_the_last_word(write) -> None:
    path = write("a.yaml", "port: 1\nretry: {attempts: 1, interval: 1s}\n")
    secrets = write("s.yaml", "port: 2\nretry: {attempts: 2}\n")
    config = load(Config, path, secrets=secrets, overrides={"port": 3, "retry.limit": "1KB"})
    assert (config.port, config.retry) == (3, Retry(interval_s=1.0, attempts=2, limit_bytes=1024))


def test_a_section_may_live_in_a_file_of_its_own(write) -> None:
    write("parts/retry-base.yaml", "attempts: 5\ninterval: 5s\n")
    write("parts/retry.yaml", "extends: retry-base.yaml\ninterval: 6s\n")
    write("base.yaml", "retry: parts/retry.yaml\n")
    config = load(Config, write("a.yaml", "extends: base.yaml\nretry: {limit: 0}\n"))
    assert config.retry == Retry(interval_s=6.0, attempts=5, limit_bytes=0)


def test_variables(write) -> None:
    path = write(
        "a.yaml",
        'port: ${PORT}\nhosts: ["${HOST}:1", "${NONE:-fallback}:2", $HOST]\nversion: "${PORT}"\n'
        "backup: a$${PORT}b\nrate: ${EMPTY:-0.25}\ndata_dir: ${EMPTY:-}\n",
    )
    config = load(Config, path, env={"PORT": "77", "HOST": "h", "EMPTY": ""})
    assert (config.port, config.version, config.rate) == (77, "77", 0.25)
    assert config.hosts == ("h:1", "fallback:2", "$HOST")
    assert (config.backup, config.data_dir) == ("a${PORT}b", None)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_variable_cannot_break_the_structure(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    path = tmp_path_factory.mktemp("x") / "a.yaml"
    path.write_text('version: "${V}"\nport: 1\n')
    assert load(Config, path, env={"V": value}) == Config(port=1, version=value)


def test_useless_keys_of_the_reference_are_one_warning(write) -> None:
    write("base.yaml", "nginx: {name: kraken-agent}\nzap: {level: info}\n")
    path = write(
        "a.yaml",
        "extends: base.yaml\nnginx: {root: true}\nold: 1\nregistry: {docker: {version: 0.1}}\n"
        "retry: {colour: red, jaeger_level: 1, attempts: 4}\nmetrics: false\nring: [{name: a, bandwidth: 1}]\n",
    )
    warnings: list[str] = []
    config = load(Config, path, warn=warnings.append)
    assert config == Config(
        retry=Retry(attempts=4), metrics_on=False, ring=(Host("a"),)
    )  # `metrics` is ours here, so not a useless one
    [warning] = warnings
    assert set(warning.partition("for them: ")[2].split(", ")) == {
        *("nginx", "zap", "old", "registry.docker", "retry.colour", "retry.jaeger_level", "ring[0].bandwidth")
    }


@pytest.mark.parametrize(
    "text, place, words",
    [
        ("prot: 1", "1: prot", "unknown key; did you mean port?"),
        ("port: 1\nretry:\n  intervall: 1s", "3: retry.intervall", "did you mean interval?"),
        ("retry: {zzz: 1}", "1: retry.zzz", "known here: attempts, interval, limit"),
        ("port: x", "1: port", "must be a whole number, not 'x'"),
        ("port: true", "1: port", "must be a whole number, not True"),
        ("port: 1.5", "1: port", "must be a whole number, not 1.5"),
        ("metrics: 1", "1: metrics", "must be true or false, not 1"),
        ("hosts: a:1", "1: hosts", "must be a list"),
        ("hosts:\n- a\n- [b]", "1: hosts[1]", "must be a text"),
        ("remotes: [a]", "1: remotes", "must be a map"),
        ("remotes: {a: [1, {}]}", "1: remotes.a[1]", "must be a text"),
        ("ring: [{nmae: a}]", "1: ring[0].nmae", "did you mean name?"),
        ("ring: [{weight: 2}]", "1", "name"),
        ("retry: [1]", "1: retry", "must be a section"),
        ("retry: {interval: 3}", "1: retry.interval", "write it like 500ms, 3s"),
        ("retry: {limit: much}", "1: retry.limit", "write it like 512KB"),
        ("priority: fast", "1: priority", "must be one of completeness, default"),
        ("version: no", "1: version", "must be a text, not False"),
        ("retry: {}\norigin: {hosts: {dns: d, static: [a]}}", "2: origin.hosts", "give either `static`"),
        ("port: 70000", None, "port must be from 0 to 65535"),
        ("port: ${NOWHERE}", "1", "the variable NOWHERE is not set"),
        ("a: 1\nport: 1\nport: 2", "2", "the key port is written twice"),
        ("port: [1", "1", "not valid YAML"),
        ("a: b: c", "1", "not valid YAML"),
        ("port: !!python/object:os.system 1", "1", "not valid YAML"),
        ("\tport: 1", "1", "not valid YAML"),
        ("- port", None, "must hold keys and values"),
        ("just words", None, "must hold keys and values"),
        ("extends: [a]", None, "must be the path"),
        ("a: 1\n---\nb: 1", "2", "not valid YAML"),
    ],
)
def test_mistakes_are_told_with_file_line_key_and_remedy(write, text: str, place: str | None, words: str) -> None:
    path = write("a.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load(Config, path, env={})
    message = str(caught.value)
    assert "\n" not in message
    assert words in message
    if place is not None:
        assert message.startswith(f"{path}:{place}: ")


def test_the_line_named_is_the_one_that_has_the_last_word(write) -> None:
    base = write("base.yaml", "\n\nport: x\n")
    top = write("top.yaml", "extends: base.yaml\nretry:\n  attempts: many\n")
    with pytest.raises(ConfigError, match=r"retry\.attempts") as caught:
        load(Config, top, overrides={Key("port", "--port"): 1})
    assert str(caught.value).startswith(f"{top}:3")
    with pytest.raises(ConfigError) as caught:
        load(Config, base)
    assert str(caught.value).startswith(f"{base}:3: port")
    with pytest.raises(ConfigError) as caught:
        load(Config, overrides={Key("port", "--port"): "x"})
    assert str(caught.value).startswith("--port: port")


def test_files_that_cannot_be_read(write, tmp_path: Path) -> None:
    write("a.yaml", "extends: b.yaml\n")
    write("b.yaml", "extends: a.yaml\n")
    with pytest.raises(ConfigError, match=r"extends itself: a.yaml -> b.yaml -> a.yaml"):
        load(Config, tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match=r"c.yaml:1: extends: there is no file .*gone.yaml"):
        load(Config, write("c.yaml", "extends: gone.yaml\n"))
    with pytest.raises(ConfigError, match=r"d.yaml:1: retry: there is no file .*gone.yaml"):
        load(Config, write("d.yaml", "retry: gone.yaml\n"))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00x")
    with pytest.raises(ConfigError, match="not a text file"):
        load(Config, tmp_path / "bytes.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load(Config, tmp_path)


def test_merge_keys_of_yaml_work(write) -> None:
    path = write("a.yaml", "ring:\n- &one {name: a, weight: 2}\n- {<<: *one, name: b}\n")
    assert load(Config, path).ring == (Host("a", 2), Host("b", 2))


def test_every_key_can_be_listed() -> None:
    keys = list(yaml_keys(Config))
    assert {"port", "metrics", "retry", "retry.interval", "hosts"} <= set(keys)
    assert "metrics_on" not in keys


def test_extends_may_name_a_file_that_came_with_the_package(write) -> None:
    env = {"HERD_HOST_IP": "10.0.1.100"}
    config = load(AgentConfig, write("own.yaml", "extends: krakentx:agent/multihost.yaml\npeer_port: 7\n"), env=env)
    assert (config.peer_port, config.tracker.hosts.static) == (7, ("10.0.1.100:15003",))
    with pytest.raises(ConfigError, match=r"own\.yaml:1: extends: there is no file .*nowhere\.yaml"):
        load(AgentConfig, write("own.yaml", "extends: krakentx:nowhere.yaml\n"))
