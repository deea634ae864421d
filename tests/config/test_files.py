"""The files that we ship say what the code does, and the files of the Go original can be kept."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from krakentx.config.load import load, yaml_keys

ROOT = Path(__file__).parents[2]
REFERENCE = Path(__file__).parents[1] / "data/reference"
CLASSES = {
    "testfs": "krakentx.testfs.config:TestfsConfig",
    "origin": "krakentx.origin.config:OriginConfig",
    "tracker": "krakentx.tracker.config:TrackerConfig",
    "build-index": "krakentx.buildindex.config:BuildIndexConfig",
    "proxy": "krakentx.proxy.config:ProxyConfig",
    "agent": "krakentx.agent.config:AgentConfig",
    "herd": "krakentx.herd.config:HerdConfig",
}
each_component = pytest.mark.parametrize("component", CLASSES)


def config_class(component: str) -> type:
    module, _, name = CLASSES[component].partition(":")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, type)
    return found


def keys_of(tree: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield f"{prefix}{key}"
            yield from keys_of(value, f"{prefix}{key}.")


@each_component
def test_base_yaml_holds_every_key_with_its_default(component: str) -> None:
    path = ROOT / "etc" / component / "base.yaml"
    cls = config_class(component)
    warnings: list[str] = []
    assert load(cls, path, env={}, warn=warnings.append) == cls()
    assert warnings == []
    if component != "herd":  # whose sections are the other files
        assert set(yaml_keys(cls)) - set(keys_of(yaml.safe_load(path.read_text()))) == set()


@pytest.mark.parametrize("component", ["origin", "build-index"])
def test_the_backends_of_the_comments_can_be_taken_as_they_stand(component: str, tmp_path: Path) -> None:
    text = (ROOT / "etc" / component / "base.yaml").read_text()
    examples = re.findall(r"^# (  - namespace:.*\n(?:#     .*\n)+)", text, re.MULTILINE)
    assert len(examples) == 2
    path = tmp_path / "own.yaml"
    path.write_text("backends:\n" + "".join(examples).replace("\n# ", "\n"))
    kinds = [entry.backend for entry in load(config_class(component), path, env={}).backends]
    assert kinds[0].file is not None and kinds[1].testfs is not None


@each_component
def test_multihost_yaml_takes_its_addresses_from_the_environment(component: str) -> None:
    path = ROOT / "etc" / component / "multihost.yaml"
    cls = config_class(component)
    env = {"HERD_HOST_IP": "10.0.1.100", "AGENT_HOST_IP": "10.0.1.101", "BIND_ADDRESS": "0.0.0.0"}
    warnings: list[str] = []
    text = str(load(cls, path, env=env, warn=warnings.append))
    assert warnings == []
    assert component == "testfs" or "10.0.1.100" in text
    assert component != "agent" or "10.0.1.101" in text
    load(cls, path, env={"HERD_HOST_IP": "10.0.1.100"})


@pytest.mark.parametrize("component", [component for component in CLASSES if component not in ("testfs", "herd")])
def test_a_file_of_the_reference_is_taken_with_one_warning(component: str) -> None:
    warnings: list[str] = []
    load(config_class(component), REFERENCE / f"{component}.yaml", env={}, warn=warnings.append)
    assert len(warnings) == 1
    assert "nginx" in warnings[0] and "zap" in warnings[0]
