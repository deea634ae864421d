"""An announced address that others cannot reach is told to both operators."""

from __future__ import annotations

import json
from typing import Any

import pytest

from krakentx.clients.tracker import decode_answer
from krakentx.core.errors import InvalidInput
from krakentx.tracker.logic import check_address, origin_problem


@pytest.mark.parametrize(
    ("announced", "source", "word"),
    [
        ("10.0.1.101", "10.0.1.101", ""),
        ("10.0.1.101", "::ffff:10.0.1.101", ""),
        ("127.0.0.1", "127.0.0.1", ""),
        ("10.0.1.100", "127.0.0.1", ""),  # the herd's own host, whose agent asks by loopback
        ("agent-7.example", "10.0.1.107", ""),
        ("fd00::1", "10.0.1.101", ""),  # another family tells nothing
        ("127.0.0.1", "10.0.1.101", "no other host can reach"),
        ("::1", "10.0.1.101", "no other host can reach"),
        ("172.17.0.2", "10.0.1.101", "AGENT_HOST_IP=10.0.1.101"),
    ],
)
def test_an_address_that_does_not_fit_its_source_is_noticed(announced: str, source: str, word: str) -> None:
    problem = check_address(announced, source)
    assert word in problem and bool(word) == bool(problem)


@pytest.mark.parametrize("announced", ["0.0.0.0", "::", "224.0.0.1", "", "a b", "x/y"])
def test_an_address_where_nobody_can_be_is_refused(announced: str) -> None:
    with pytest.raises(InvalidInput):
        check_address(announced, "10.0.1.101")


@pytest.mark.parametrize(
    ("address", "source", "wrong"),
    [
        ("10.0.1.100", "10.0.1.101", False),
        ("127.0.0.1", "127.0.0.1", False),
        ("origin.example", "10.0.1.101", False),
        ("127.0.0.1", "10.0.1.101", True),
    ],
)
def test_an_origin_on_loopback_is_noticed_by_the_peers_of_other_hosts(address: str, source: str, wrong: bool) -> None:
    assert bool(origin_problem(address, source)) is wrong


def test_the_agent_tells_what_the_tracker_noticed() -> None:
    answer: dict[str, Any] = {"peers": None, "interval": 3_000_000_000, "notice": "x" * 600}
    assert decode_answer(json.dumps(answer).encode()).notice == "x" * 500
    assert decode_answer(json.dumps({**answer, "notice": 7}).encode()).notice == ""
