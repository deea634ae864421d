"""Errors render themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from krakentx.core import errors
from krakentx.core.errors import (
    Busy,
    ConfigError,
    Corrupt,
    InvalidInput,
    KrakenError,
    NotFound,
    OutOfSpace,
    RangeNotSatisfiable,
    TooLarge,
    Unavailable,
)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("no such key"), "no such key"),
        (ConfigError("no such key", Path("herd.yaml")), "herd.yaml: no such key"),
        (InvalidInput("tag", "is empty"), "invalid tag: is empty"),
        (TooLarge("manifest", 10), "manifest is larger than the limit of 10 bytes"),
        (NotFound("blob", "sha256:ab"), "blob sha256:ab not found"),
        (Unavailable("tracker:15003", "timed out"), "tracker:15003 is unavailable: timed out"),
        (OutOfSpace("/data"), "no space left on the disk of /data"),
        (RangeNotSatisfiable(5), "range not satisfiable"),
        (Corrupt("a", "b"), "bytes hash to b, expected a"),
        (Busy("too many uploads"), "too many uploads"),
    ],
)
def test_an_error_is_a_sentence(error: KrakenError, text: str) -> None:
    assert str(error) == text


def test_all_of_them_are_kraken_errors() -> None:
    assert all(issubclass(getattr(errors, name), KrakenError) for name in errors.__all__)
    assert not issubclass(errors.LocalProtocolError, errors.RemoteProtocolError)
