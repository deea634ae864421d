"""Who may ask."""

from __future__ import annotations

import pytest
import pytest_twisted
from klein import Klein
from twisted.internet import reactor

from krakentx.core.errors import ConfigError
from krakentx.web.access import Allowed, allowed, guarded
from krakentx.web.service import HttpService


@pytest.mark.parametrize(
    ("host", "holds"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.1.2.3", False),
        ("fd00::7", True),
        ("fd01::7", False),
        ("192.168.0.5", True),
        ("fe80::1%eth0", False),
        ("", False),
    ],
)
def test_an_address_is_held_or_not(host: str, holds: bool) -> None:
    assert Allowed("k", ("10.0.0.0/8", "fd00::/16", "192.168.0.5")).holds(host) is holds


def test_what_is_no_network_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"allowed_cidrs.*10\.0\.0\.0/8"):
        allowed("allowed_cidrs", ["10.0.0/8"])


def _app() -> Klein:
    app = Klein()

    @app.route("/", branch=True)
    def anything(request: object) -> bytes:
        return b"in"

    return app


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("networks", "status"), [(None, 200), (("127.0.0.1",), 200), (("10.0.0.0/8",), 403), ((), 403)]
)
async def test_others_are_refused_with_the_key_to_change(start, fetch, networks, status) -> None:
    resource = guarded(_app().resource(), "allowed_cidrs", networks)
    server = await start(HttpService("test", resource, 0, "127.0.0.1", reactor=reactor))
    answer = await fetch("GET", f"http://127.0.0.1:{server.port_number}/v2/")
    assert answer.status == status
    if status == 403:
        assert b'"DENIED"' in answer.body and b"allowed_cidrs" in answer.body
    assert (await fetch("GET", f"http://127.0.0.1:{server.port_number}/health")).status == 200
