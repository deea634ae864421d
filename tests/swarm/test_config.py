"""The keys of the reference are there, with the defaults that we mean."""

from __future__ import annotations

from krakentx.swarm.config import ConnStateConfig, SwarmConfig


def test_a_quarter_is_dialled_unless_told_otherwise() -> None:
    assert ConnStateConfig().dialled_limit == 8
    assert ConnStateConfig(max_open_conn=1).dialled_limit == 1
    assert ConnStateConfig(max_dialled_conn=3).dialled_limit == 3
    assert ConnStateConfig(max_dialled_conn=3).wanted_conn == 6
    assert ConnStateConfig(max_dialled_conn=30).wanted_conn == 32


def test_the_time_for_a_piece_grows_with_its_size() -> None:
    config = SwarmConfig()
    assert config.piece_timeout_s(512 << 10) == 4.0
    assert config.piece_timeout_s(4 << 20) == 4.0
    assert config.piece_timeout_s(64 << 20) == 64.0
