"""One YAML file as plain values, each key knowing the file and line where it stands.

Differences to plain YAML, all for the sake of whoever edits the files: `${NAME}` and `${NAME:-default}` are replaced
inside scalars (so a value can never break the file's structure), a key written twice is an error instead of the last
one winning, and numbers remember how they were written (`docker_version: 1.20` stays `1.20` where a text is wanted).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from krakentx.core.errors import ConfigError

_VARIABLE = re.compile(r"\$(\$)?\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class Key(str):
    """A key of a mapping which knows where it was written (`file:line`, or the flag that set it)."""

    where: str

    def __new__(cls, text: str, where: str) -> Key:
        self = super().__new__(cls, text)
        self.where = where
        return self


class Decimal(float):
    """A float that remembers its spelling."""

    text: str

    def __new__(cls, value: float, text: str) -> Decimal:
        self = super().__new__(cls, value)
        self.text = text
        return self


def read_yaml(path: Path, env: Mapping[str, str]) -> Any:
    """The value of the file's one document; None when it is empty.

    Raises:
        ConfigError: it cannot be read, is not YAML, or names a variable that is neither set nor given a default.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not a text file in UTF-8", path) from error
    loader = _Loader(text, path, env)
    try:
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"not valid YAML: {error.problem or error.context}", where) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {' '.join(str(error).split())}", path) from error
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str, path: Path, env: Mapping[str, str]) -> None:
        super().__init__(text)
        self._path = path
        self._env = env

    def where(self, node: yaml.Node) -> str:
        return f"{self._path}:{node.start_mark.line + 1}"

    def expand(self, node: yaml.ScalarNode) -> None:
        def value_of(match: re.Match[str]) -> str:
            if match[1]:
                return match[0][1:]
            value = self._env.get(match[2])
            if value is None or (value == "" and match[3] is not None):  # `:-` means unset or empty, as in a shell
                value = match[3]
            if value is None:
                raise ConfigError(
                    f"the variable {match[2]} is not set; set it, or write ${{{match[2]}:-default}}", self.where(node)
                )
            return value

        if not isinstance(node.value, str) or "${" not in node.value:
            return
        node.value = _VARIABLE.sub(value_of, node.value)
        if node.style is None:  # unquoted: `port: ${PORT}` is a number once PORT is known
            node.tag = self.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode):
            self.expand(node)
        return super().construct_object(node, deep=deep)

    def construct_section(self, node: yaml.MappingNode) -> dict[Any, Any]:
        own = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and own.count(key.value) > 1:
                raise ConfigError(f"the key {key.value} is written twice in one section", self.where(key))
        self.flatten_mapping(node)
        section: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool)):
                raise ConfigError("a key must be a plain word", self.where(key_node))
            if isinstance(key, str):
                key = Key(key, self.where(key_node))
            section.pop(key, None)
            section[key] = self.construct_object(value_node, deep=True)
        return section

    def construct_decimal(self, node: yaml.ScalarNode) -> Decimal:
        return Decimal(self.construct_yaml_float(node), node.value)


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_section)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_decimal)
# Dates would surprise: nothing in a configuration is one, so `2024-01-01` stays a text.
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_yaml_str)  # type: ignore[type-var]  # stubs want one class
