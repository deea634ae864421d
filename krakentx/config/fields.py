"""The kinds of value that a YAML key can hold, as attrs fields.

A section of the configuration is an `attrs.frozen` class. The loader (`krakentx.config.load`) fills it by these rules:
the YAML key is the field's name unless `key` says otherwise; a field whose type is an attrs class is a nested section;
`str`, `int`, `float`, `bool`, lists and maps of them are taken as they stand; `duration` and `size` are parsed here.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import attrs

from krakentx.core.errors import InvalidInput

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h|d)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_duration(value: object) -> float:
    """Seconds from `3s`, `1h30m`, `250ms` or 0.

    Raises:
        InvalidInput: anything else; a number without a unit is refused, since its unit would be a guess.
    """
    if value == "0" or (type(value) is int and value == 0):
        return 0.0
    text = str(value)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidInput("duration", f"{value!r}; write it like 500ms, 3s, 5m or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def parse_size(value: object) -> int:
    """Bytes from `4MB`, `4MiB`, `50G` (all powers of 1024, as in the reference) or a plain integer.

    Raises:
        InvalidInput: anything else.
    """
    if type(value) is int and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise InvalidInput("size", f"{value!r}; write it like 512KB, 4MB or 50G")
    return int(Fraction(match[1]) * 1024 ** _POWERS[match[2].lower()])


def duration(default: str, *, key: str | None = None) -> Any:
    """A field in seconds (name it `..._s`), written in YAML like `3s`."""
    return attrs.field(default=parse_duration(default), metadata={"key": key, "parse": parse_duration})


def size(default: str, *, key: str | None = None) -> Any:
    """A field in bytes (name it `..._bytes`), written in YAML like `4MB`."""
    return attrs.field(default=parse_size(default), metadata={"key": key, "parse": parse_size})


def named(key: str, default: Any) -> Any:
    """A field whose YAML key is not its name; a mutable default is given as `attrs.Factory`."""
    return attrs.field(default=default, metadata={"key": key})
