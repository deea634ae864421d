"""`redis: {spawn: true}`: a redis-server that lives and dies with the herd."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from krakentx.core.errors import ConfigError
from krakentx.herd.config import RedisConfig
from krakentx.herd.redis import RedisServer, end_orphan
from tests.herd.world import Image, evolved, herd_config, pull, push, registry_of, until
from tests.ports import free_ports

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def keys(port: int) -> int:
    """How many there are, asked in redis' own words."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(b"DBSIZE\r\n")
        return int(sock.recv(100)[1:])


def pid_of(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock, sock.makefile("rwb") as stream:
        stream.write(b"INFO server\r\n")
        stream.flush()
        return next(int(line.partition(b":")[2]) for line in stream if line.startswith(b"process_id:"))


@pytest_twisted.ensureDeferred
async def test_the_herd_starts_it_again_and_takes_it_along(world, tmp_path: Path, logs) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not on this machine; it comes with the Debian package redis-server")
    (port,) = free_ports(1)
    config = evolved(herd_config(tmp_path / "herd"), redis__spawn=True, redis__port=port, redis__retry_s=0.2)
    one = await world(evolved(config, tracker__peerstore__redis__retry_s=0.2), agents=1)
    await until(lambda: listens(port))
    image = Image.make(1, 3_000_000)
    assert (await push(one.proxy, "a", "v1", image)).status == 201
    assert await pull(registry_of(one.agents[0]), "a", "v1") == image
    await until(lambda: keys(port) > 0)

    os.kill(pid_of(port), signal.SIGKILL)
    other = await one.add_agent()
    assert await pull(registry_of(other), "a", "v1") == image
    assert other.scheduler.counters.received_fallback_bytes == 0  # the tracker named peers all the while
    await until(lambda: listens(port))
    await pull(registry_of(await one.add_agent()), "a", "v1")
    await until(lambda: keys(port) > 0)

    pid = pid_of(port)
    await one.end(one.herd)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest_twisted.ensureDeferred
async def test_the_server_of_a_herd_that_was_killed_gives_its_port_back(tmp_path: Path, start) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not on this machine; it comes with the Debian package redis-server")
    (port,) = free_ports(1)
    pidfile = tmp_path / "redis" / "redis.pid"
    pidfile.parent.mkdir()
    argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--pidfile", str(pidfile), "--save", ""]
    orphan = subprocess.Popen(argv, cwd=pidfile.parent, stdout=subprocess.DEVNULL)
    await until(lambda: listens(port) and pidfile.exists())
    threading.Thread(target=orphan.wait).start()  # as init does with orphans

    await start(RedisServer(RedisConfig(spawn=True, port=port), pidfile.parent, reactor=reactor))
    await until(lambda: listens(port))
    assert pid_of(port) != orphan.pid


def test_a_process_that_only_has_the_number_of_ours_lives_on(tmp_path: Path) -> None:
    (tmp_path / "redis.pid").write_text(f"{os.getpid()}\n")
    end_orphan(tmp_path / "redis.pid")
    (tmp_path / "redis.pid").write_text("no number\n")
    end_orphan(tmp_path / "redis.pid")
    assert Path("/proc/self").exists()


def test_a_missing_program_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no-such-redis; install it"):
        RedisServer(RedisConfig(spawn=True, binary="no-such-redis"), tmp_path, reactor=reactor)
