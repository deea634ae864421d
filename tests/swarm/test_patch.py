"""Settings for a running scheduler."""

from __future__ import annotations

from typing import Any

import pytest

from krakentx.core.errors import InvalidInput
from krakentx.swarm.config import SwarmConfig
from krakentx.swarm.patch import patched

BEFORE = SwarmConfig()


def test_the_names_of_the_reference_are_understood_in_any_case() -> None:
    body = {
        "SeederTTI": 7_000_000_000,
        "connState": {"MaxOpenConnectionsPerTorrent": 5, "DisableBlacklist": True, "BlacklistDuration": 500_000_000},
        "Conn": {"HandshakeTimeout": 1_000_000_000, "Bandwidth": {"Enable": True, "EgressBitsPerSec": 8}},
        "Dispatch": {"PipelineLimit": 4, "PieceRequestPolicy": "default"},
    }
    after = patched(BEFORE, body)
    assert after.seeder_tti_s == 7.0
    assert (after.connstate.max_open_conn, after.connstate.disable_blacklist) == (5, True)
    assert after.connstate.blacklist_duration_s == 0.5
    assert (after.conn.bandwidth.enable, after.conn.bandwidth.egress_bits_per_sec) == (True, 8)
    assert (after.dispatch.pipeline_limit, after.dispatch.piece_request_policy) == (4, "default")


def test_what_is_not_named_stays() -> None:
    first = patched(BEFORE, {"connstate": {"max_open_conn": 3}})
    second = patched(first, {"LeecherTTI": 1_000_000_000})
    assert second.connstate.max_open_conn == 3 and second.seeder_tti_s == BEFORE.seeder_tti_s
    assert patched(BEFORE, {}) == BEFORE


def test_settings_that_steer_nothing_here_are_passed_over() -> None:
    body = {"EmitStatsInterval": 1, "ConnState": {"MaxMutualConnections": 3}, "Conn": {"Bandwidth": {"TokenSize": 1}}}
    assert patched(BEFORE, body) == BEFORE


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"SeederTTI": "5m"}, "nanoseconds"),
        ({"SeederTTI": True}, "nanoseconds"),
        ({"SeederTTI": -1}, "nanoseconds"),
        ({"SeederTTI": 10**400}, "nanoseconds"),
        ({"ConnState": 5}, "object"),
        ({"ConnState": {"MaxOpenConnectionsPerTorrent": "5"}}, "int"),
        ({"ConnState": {"MaxOpenConnectionsPerTorrent": True}}, "int"),
        ({"ConnState": {"DisableBlacklist": 1}}, "bool"),
        ({"Dispatch": {"PieceRequestPolicy": "best"}}, "rarest_first"),
        ({"SeederTTL": 1}, "SeederTTL"),
        ([], "object"),
        (None, "object"),
    ],
)
def test_anything_else_is_refused_by_name(body: Any, word: str) -> None:
    with pytest.raises(InvalidInput, match=word):
        patched(BEFORE, body)


def test_a_bandwidth_of_nothing_is_refused() -> None:
    off = {"Conn": {"Bandwidth": {"EgressBitsPerSec": 0}}}
    assert patched(BEFORE, off).conn.bandwidth.egress_bytes_s is None
    with pytest.raises(InvalidInput, match="egress_bits_per_sec must be more than 0"):
        patched(patched(BEFORE, off), {"Conn": {"Bandwidth": {"Enable": True}}})
