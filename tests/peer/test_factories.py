"""Dials to what others name."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from krakentx.peer.factories import DialError, dial


def never() -> Any:
    class Never:
        closing = True

    return Never()


@pytest.mark.parametrize("host", ["a" * 300, "x..y", ".", "", "\0", "\ud800", "fe80::1%nosuch", "::1%" + "a" * 5000])
@pytest_twisted.ensureDeferred
async def test_hosts_that_cannot_be_are_failed_dials_and_no_bugs(host: str, logs: Any) -> None:
    with pytest.raises(DialError):
        await dial(reactor, host, 1, never, 5.0)
