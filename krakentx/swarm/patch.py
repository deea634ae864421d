"""`PATCH /x/config/scheduler`: new settings for a running scheduler, in the reference's JSON.

Keys are the reference's field names in any case (`ConnState.MaxOpenConnectionsPerTorrent`) or our YAML keys; durations
are whole nanoseconds. What is not named stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_type_hints

import attrs

from krakentx.core.errors import InvalidInput
from krakentx.swarm.config import SwarmConfig

T = TypeVar("T")

# The reference's names that are not our YAML keys without the underscores.
_ALIASES = {"connstate.maxopenconnectionspertorrent": "maxopenconn"}
# Settings of the reference that steer nothing here.
_UNUSED = frozenset(
    [
        *("preemptioninterval", "emitstatsinterval", "torrentlog", "log"),
        *("connstate.maxmutualconnections", "connstate.maxmutualconn", "conn.receiverbuffersize"),
        "conn.bandwidth.tokensize",
    ]
)
_NS = 1_000_000_000
_MAX_NS = 1 << 63


def patched(config: SwarmConfig, data: object) -> SwarmConfig:
    """`config` with what `data`, read from JSON, says otherwise.

    Raises:
        InvalidInput: (`parameter`) an unknown key, or a value of the wrong kind; nothing has changed.
    """
    return _merge(config, data, "")


def _merge(section: T, data: object, prefix: str) -> T:
    if not isinstance(data, Mapping):
        raise InvalidInput("parameter", f"{prefix.rstrip('.') or 'the body'} must be a JSON object")
    hints = get_type_hints(type(section))
    fields: tuple[Any, ...] = attrs.fields(type(section))  # type: ignore[arg-type]  # every section is an attrs class
    known = {str(field.metadata.get("key") or field.name).replace("_", ""): field for field in fields}
    changes: dict[str, Any] = {}
    for key, value in data.items():
        folded = str(key).lower().replace("_", "")
        dotted = prefix + folded
        if dotted in _UNUSED:
            continue
        field = known.get(_ALIASES.get(dotted, folded))
        if field is None:
            raise InvalidInput("parameter", f"{prefix}{key} is no setting of the scheduler")
        current = getattr(section, field.name)
        if attrs.has(type(current)):
            changes[field.name] = _merge(current, value, f"{dotted}.")
        else:
            changes[field.name] = _value(value, hints[field.name], field.name, f"{prefix}{key}")
    return attrs.evolve(section, **changes)  # type: ignore[misc]  # as above


def _value(value: object, hint: Any, name: str, shown: str) -> object:
    if name.endswith("_s"):
        if type(value) is not int or not 0 <= value < _MAX_NS:
            raise InvalidInput("parameter", f"{shown} must be a whole number of nanoseconds")
        return value / _NS
    choices = get_args(hint)
    if choices:
        if value not in choices:
            raise InvalidInput("parameter", f"{shown} must be one of {', '.join(choices)}")
    elif type(value) is not hint or (hint is int and isinstance(value, int) and value < 0):
        raise InvalidInput("parameter", f"{shown} must be of type {hint.__name__}")
    return value
