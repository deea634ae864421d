"""YAML files to frozen attrs values.

`load(AgentConfig, "agent.yaml")` reads the file and those that it `extends`, lays the secrets file and the flags of the
command line over it, and fills the class. Rules:

- `extends: base.yaml` names a parent, relative to the file that says so; `extends: krakentx:agent/base.yaml` is the one
  that came with the package. Maps merge key by key, anything else replaces.
- A section may be the path of a file that holds it, again relative: `origin: origin.yaml`.
- A missing or empty key means the default; `0`, `false` and `[]` are values. A section given in part keeps the rest of
  its default, unless its class says `WHOLE = True`: then it is given as a whole (a list of hosts, say).
- A key that nobody knows is an error. Keys of the Go reference that have no use here are told in one warning; a class
  names its own in a class attribute `UNUSED`, a set of dotted keys.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_type_hints

import attrs

from krakentx.config import shipped
from krakentx.config.values import Problem, convert
from krakentx.config.yamlfile import Key, read_yaml
from krakentx.core.errors import ConfigError, KrakenError

T = TypeVar("T")

# What any component's file of the reference may hold for helpers which we do not have: its proxy in front, its logging
# library, its metrics senders, its tracing.
UNUSED_EVERYWHERE = frozenset(
    [
        *("zap", "nginx", "tls", "metrics", "network_event", "trace", "tracing", "jaeger", "otel"),
        *("registry.docker", "registryoverride", "auth", "backend_manager"),
        *("blobserver.listener", "trackerserver.listener", "tagserver.listener", "server.listener", "agentserver"),
        *("trackerserver.get_metainfo_limit", "tagserver.cache"),
    ]
)


def load(
    cls: type[T],
    path: str | Path | None = None,
    *,
    secrets: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    warn: Callable[[str], None] | None = None,
) -> T:
    """Fill `cls` from files; without any, from its defaults.

    Args:
        env: where `${NAME}` is looked up; the process's environment when None.
        overrides: dotted YAML keys to values, laid over everything (the flags of the command line).
        warn: told of keys that are ignored, at most once.

    Raises:
        ConfigError: names the file, the line, the key, and what to write instead.
    """
    env = os.environ if env is None else env
    unused: list[str] = []
    merged: dict[Any, Any] = {}
    for file in (path, secrets):
        if file is not None:
            _merge(merged, _read(cls, Path(file), env, (), unused))
    _merge(merged, _nested(overrides or {}))
    if unused and warn is not None:
        warn(f"{path or secrets}: ignored, as KrakenTX has no use for them: {', '.join(dict.fromkeys(unused))}")
    return _section(cls, merged, str(path or ""), "", cls() if merged else None)


def yaml_key(field: attrs.Attribute[Any]) -> str:
    """The key under which `field` stands in YAML."""
    return str(field.metadata.get("key") or field.name)


def yaml_keys(cls: type) -> Iterator[str]:
    """Every dotted key that a file for `cls` may hold, sections as well as values."""
    hints = get_type_hints(cls)
    for field in attrs.fields(cls):
        yield yaml_key(field)
        if attrs.has(hints[field.name]) and "parse" not in field.metadata:
            yield from (f"{yaml_key(field)}.{key}" for key in yaml_keys(hints[field.name]))


def _read(cls: type, path: Path, env: Mapping[str, str], chain: tuple[Path, ...], unused: list[str]) -> dict[Any, Any]:
    """One file over its parents, with sections that live in other files brought in and useless keys taken out."""
    identity = path.resolve()
    if identity in chain:
        raise ConfigError(f"extends itself: {' -> '.join(p.name for p in (*chain, identity))}", path)
    tree = read_yaml(path, env)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError("must hold keys and values, like `port: 15003`", path)

    def read_other(kind: type, key: str, name: object) -> dict[Any, Any]:
        place = f"{next(k.where for k in tree if k == key)}: {key}"
        if not isinstance(name, str):
            raise ConfigError("must be the path of one YAML file", place)
        other = shipped.find(name, path.parent)
        if not other.exists():
            raise ConfigError(f"there is no file {other}", place)
        return _read(kind, other, env, (*chain, identity), unused)

    below = read_other(cls, "extends", tree["extends"]) if tree.get("extends") is not None else {}
    tree.pop("extends", None)
    _drop_unused(cls, tree, "", unused)
    hints = get_type_hints(cls)
    for field in attrs.fields(cls):
        key = yaml_key(field)
        if isinstance(tree.get(key), str) and attrs.has(hints[field.name]):
            tree[key] = read_other(hints[field.name], key, tree[key])
    _merge(below, tree)
    return below


def _merge(below: dict[Any, Any], above: Mapping[Any, Any]) -> None:
    for key, value in above.items():
        held = below.pop(key, None)  # popped, so that the key that stays knows the line which has the last word
        if isinstance(held, dict) and isinstance(value, Mapping):
            _merge(held, value)
            value = held
        below[key] = value


def _nested(overrides: Mapping[str, Any]) -> dict[Any, Any]:
    tree: dict[Any, Any] = {}
    for dotted, value in overrides.items():
        where = getattr(dotted, "where", "override")
        *sections, last = dotted.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(Key(section, where), {})
        inner[Key(last, where)] = value
    return tree


def _drop_unused(cls: type, tree: dict[Any, Any], prefix: str, unused: list[str]) -> None:
    known = {yaml_key(field): field for field in attrs.fields(cls)}
    hints = get_type_hints(cls)
    for dotted in sorted(UNUSED_EVERYWHERE | getattr(cls, "UNUSED", frozenset())):
        _drop(cls, tree, dotted.split("."), prefix, unused)
    for key, value in tree.items():
        inner = _section_class(hints[known[key].name]) if key in known else None
        if inner is not None:
            for place, part in _sections_in(value):
                _drop_unused(inner, part, f"{prefix}{key}{place}.", unused)


def _section_class(hint: Any) -> type | None:
    """The class of the sections that a field of this type holds: itself, or in a list."""
    if attrs.has(hint):
        return cast(type, hint)
    return next((arg for arg in get_args(hint) if attrs.has(arg)), None)


def _sections_in(value: Any) -> Iterator[tuple[str, dict[Any, Any]]]:
    """The section that `value` is, or those that it lists, each with its place."""
    if isinstance(value, dict):
        yield "", value
    elif isinstance(value, list):
        yield from ((f"[{number}]", part) for number, part in enumerate(value) if isinstance(part, dict))


def _drop(cls: type | None, tree: dict[Any, Any], path: list[str], prefix: str, unused: list[str]) -> None:
    """Take one unused key out, unless `cls` has a field for it; and the section around it when nothing else is left."""
    first, *rest = path
    if first not in tree:
        return
    field = next((f for f in attrs.fields(cls) if yaml_key(f) == first), None) if cls and attrs.has(cls) else None
    if not rest:
        if field is None:
            del tree[first]
            unused.append(prefix + first)
        return
    inner = tree[first]
    if isinstance(inner, dict):
        hint = get_type_hints(cls)[field.name] if cls and field else None
        _drop(hint, inner, rest, f"{prefix}{first}.", unused)
        if not inner and field is None:
            del tree[first]


def _section(cls: type[T], tree: Any, where: str, prefix: str, default: object = None) -> T:
    """`cls` filled from `tree`, which was written at `where` under the dotted `prefix`; `default` has the rest."""
    if not isinstance(tree, Mapping):
        raise ConfigError("must be a section with keys and values of its own", f"{where}: {prefix.rstrip('.')}")
    fields = {yaml_key(field): field for field in attrs.fields(cast("type[attrs.AttrsInstance]", cls))}
    hints = get_type_hints(cls)
    if type(default) is not cls or getattr(cls, "WHOLE", False):
        default = None
    values: dict[str, Any] = {}
    for key, value in tree.items():
        place = getattr(key, "where", where)
        if key not in fields:
            raise ConfigError(_unknown(str(key), list(fields)), f"{place}: {prefix}{key}")
        if value is not None:
            field = fields[key]
            held = getattr(default, field.name, None)
            values[field.alias or field.name] = _value(field, hints[field.name], value, place, f"{prefix}{key}", held)
    try:
        return cls(**values) if default is None else cast("T", attrs.evolve(cast(Any, default), **values))
    except (KrakenError, ValueError, TypeError) as error:  # a validator of the class, or a field that must be given
        raise ConfigError(str(error), f"{where}: {prefix.rstrip('.')}" if prefix else where or None) from error


def _value(field: attrs.Attribute[Any], hint: Any, value: Any, where: str, dotted: str, default: object) -> Any:
    def nest(cls: type, tree: Any, at: str) -> Any:
        return _section(cls, tree, where, f"{dotted}{at}.", None if at else default)

    try:
        return field.metadata["parse"](value) if "parse" in field.metadata else convert(value, hint, nest)
    except Problem as problem:
        raise ConfigError(str(problem), f"{where}: {dotted}{problem.at}") from problem
    except ConfigError:
        raise
    except (KrakenError, ValueError, TypeError) as error:
        raise ConfigError(str(error), f"{where}: {dotted}") from error


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known)) or 'none'}"
    return f"unknown key; {hint}"
