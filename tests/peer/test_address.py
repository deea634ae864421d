"""Which address is announced."""

from __future__ import annotations

import pytest

from krakentx.core.errors import ConfigError
from krakentx.core.peer import PeerID
from krakentx.peer.address import announced_ip, make_peer_id


def _route(address: str):
    return lambda host, port: address


def _no_route(host: str, port: int) -> str:
    raise OSError(101, "Network is unreachable")


def _no_bridge(ip: str) -> None:
    return None


def test_an_explicit_address_wins() -> None:
    assert announced_ip("10.1.2.3", "nowhere:1", route=_no_route) == "10.1.2.3"
    assert announced_ip("[fd00::1]", "nowhere:1", route=_no_route) == "fd00::1"


def test_the_way_to_the_tracker_tells_the_address() -> None:
    assert announced_ip("", "10.0.1.100:15003", route=_route("10.0.1.101"), bridge=_no_bridge) == "10.0.1.101"


def test_loopback_is_taken_when_the_tracker_is_there() -> None:
    assert announced_ip("", "127.0.0.1:15003") == "127.0.0.1"


def test_a_bridge_of_containers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"docker0.*--peer-ip"):
        announced_ip("", "172.17.0.2:15003", route=_route("172.17.0.1"), bridge=lambda ip: "docker0")


def test_no_route_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match=r"10\.9\.9\.9:15003.*unreachable.*--peer-ip"):
        announced_ip("", "10.9.9.9:15003", route=_no_route)


def test_a_tracker_whose_name_does_not_resolve_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match=r"no\.such\.name\.invalid does not resolve.*--tracker.*--peer-ip"):
        announced_ip("", "no.such.name.invalid:15003")


@pytest.mark.parametrize("given", ["0.0.0.0", "::", "224.0.0.1", "no.such.name.invalid"])
def test_an_address_that_nobody_can_dial_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="--peer-ip"):
        announced_ip(given, "127.0.0.1:15003")


def test_the_identity_stays_or_changes_as_configured() -> None:
    assert make_peer_id("addr_hash", "10.0.0.1", 16001) == PeerID.of_address("10.0.0.1", 16001)
    assert make_peer_id("random", "10.0.0.1", 16001) != make_peer_id("random", "10.0.0.1", 16001)
