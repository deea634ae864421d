"""The clean-up block of the configuration, one for each folder of blobs."""

from __future__ import annotations

import attrs
from attrs import frozen

from krakentx.config.fields import duration, size
from krakentx.core.errors import InvalidInput


def _percent(_instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if not 0 <= value <= 100:
        raise InvalidInput("parameter", f"{attribute.name} must be a percentage from 0 to 100")


@frozen
class CleanupConfig:
    """When blobs leave. Only blobs of this folder are ever counted, whatever else fills the disk."""

    disabled: bool = False
    interval_s: float = duration("30m", key="interval")
    tti_s: float = duration("6h", key="tti")
    """A blob that nobody read for so long goes; 0 = never for that reason."""
    ttl_s: float = duration("0", key="ttl")
    """A blob this old goes; 0 = never for that reason."""
    budget_bytes: int = size("0", key="budget")
    """High mark: above it the least recently used blobs go; 0 = no bound. Looked at after each new blob."""
    budget_low_bytes: int = size("0", key="budget_low")
    """Low mark: until the folder is down to it; 0 = nine tenths of `budget`."""
    aggressive_threshold: int = attrs.field(default=0, validator=_percent)
    """As `budget`, in percent of the volume's size; 0 = off."""
    aggressive_lower_threshold: int = attrs.field(default=0, validator=_percent)
    """Low mark in percent; 0 = blobs older than `aggressive_ttL` go instead."""
    aggressive_ttl_s: float = duration("1h", key="aggressive_ttL")
