"""YAML values to the types which the fields of a section declare."""

from __future__ import annotations

import collections.abc
import enum
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from krakentx.config.yamlfile import Decimal

Nest = Callable[[type, Any, str], Any]  # (section class, tree, dotted place) -> section; ConfigError

_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


class Problem(Exception):
    """A value of the wrong kind, `at` a place inside the field's value."""

    def __init__(self, message: str, at: str) -> None:
        super().__init__(message)
        self.at = at


def convert(value: Any, hint: Any, nest: Nest, at: str = "") -> Any:
    """`value` as `hint` wants it.

    Args:
        nest: builds a section.
        at: where `value` stands inside the field's value: `[2]`, `.name`, or empty for all of it.

    Raises:
        Problem: it cannot be one; names what was expected.
    """
    origin, args = get_origin(hint), get_args(hint)
    if hint in (Any, object):
        return value
    if origin in (Union, types.UnionType):
        return _any_of(value, args, nest, at)
    if origin is Literal:
        return _one_of(value, args, at)
    if origin in (tuple, list, frozenset, set, collections.abc.Sequence):
        return _many(value, origin, args, nest, at)
    if origin in (dict, collections.abc.Mapping):
        return _map(value, args, nest, at)
    if attrs.has(hint):
        return nest(hint, value, at)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(_one_of(value, tuple(member.value for member in hint), at))
    return _scalar(value, hint, at)


def _scalar(value: Any, hint: Any, at: str) -> Any:
    kind = type(value)
    if hint is str:
        if isinstance(value, Decimal):
            return value.text
        if kind is int or isinstance(value, str):
            return str(value)
    elif hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    elif hint is float and (kind is int or isinstance(value, float)):
        return float(value)
    elif kind is hint and hint in (int, bool):
        return value
    raise Problem(f"must be {_WORDS.get(hint, hint)}, not {value!r}", at)


def _one_of(value: Any, allowed: tuple[Any, ...], at: str) -> Any:
    if value not in allowed:
        raise Problem(f"must be one of {', '.join(map(str, allowed))}, not {value!r}", at)
    return value


def _any_of(value: Any, hints: tuple[Any, ...], nest: Nest, at: str) -> Any:
    kinds = [hint for hint in hints if hint is not type(None)]
    if value is None and len(kinds) < len(hints):
        return None
    for hint in kinds[:-1]:
        try:
            return convert(value, hint, nest, at)
        except Problem:
            continue
    return convert(value, kinds[-1], nest, at)


def _many(value: Any, origin: Any, args: tuple[Any, ...], nest: Nest, at: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise Problem(f"must be a list, like [a, b], not {value!r}", at)
    hint = args[0] if args else Any
    items = [convert(item, hint, nest, f"{at}[{number}]") for number, item in enumerate(value)]
    return tuple(items) if origin is collections.abc.Sequence else origin(items)


def _map(value: Any, args: tuple[Any, ...], nest: Nest, at: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise Problem(f"must be a map of keys to values, not {value!r}", at)
    key_hint, value_hint = args or (Any, Any)
    result = {}
    for key, item in value.items():
        place = f"{at}.{key}"
        plain = str(key) if isinstance(key, str) else key
        result[convert(plain, key_hint, nest, place)] = convert(item, value_hint, nest, place)
    return result
