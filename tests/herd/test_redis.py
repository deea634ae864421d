"""A redis-server as a child."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from krakentx.core.errors import ConfigError
from krakentx.herd.config import RedisConfig
from krakentx.herd.redis import RedisServer
from tests.herd.world import free_ports, until

pytestmark = pytest.mark.integration


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 0.2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16) == b"+PONG\r\n"
    except OSError:
        return False


@pytest_twisted.ensureDeferred
async def test_it_runs_with_the_herd_and_again_when_it_dies(start, tmp_path: Path) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    (port,) = free_ports(1)
    server = await start(RedisServer(RedisConfig(spawn=True, port=port, retry_s=0.05), tmp_path / "r", reactor=reactor))
    await until(lambda: _answers(port))
    pid = server._child.transport.pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: server._child.transport is not None and server._child.transport.pid not in (None, pid))
    await until(lambda: _answers(port))
    await server.stopService()
    assert not _answers(port)


def test_a_missing_program_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"redis\.spawn.*no-such-redis"):
        RedisServer(RedisConfig(spawn=True, binary="no-such-redis"), tmp_path, reactor=reactor)
