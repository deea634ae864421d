"""Announces per second of a tracker process of its own, with peers in memory and in redis."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import asdict

from tests.bench import load
from tests.bench.progress import Progress
from tests.cluster import Daemon
from tests.ports import free_ports

_TORRENTS = 20
_PEERS = 2000
_IN_FLIGHT = 64
_MANY = 2000
_BATCH = 100
_SEEDERS = 500
_BLOBS = 400
_REDIS_START_S = 10.0


def announce_requests(rng: random.Random, host: str | None = None) -> list[bytes]:
    """Announces (v2) of `_PEERS` unfinished agents spread over `_TORRENTS` blobs: every answer names others.

    Args:
        host: address of all of them, each on a port of its own; by default each has another one.
    """
    digests = [hashlib.sha256(rng.randbytes(8)).hexdigest() for _ in range(_TORRENTS)]
    requests = []
    for number in range(_PEERS):
        digest = rng.choice(digests)
        info_hash = hashlib.sha1(digest.encode()).digest()
        address = f"10.{rng.randrange(256)}.{number >> 8}.{number & 255}"
        port = 16001
        if host is not None:
            address, port = host, 20_000 + number
        peer_id = hashlib.sha1(f"{address}:{port}".encode()).digest()
        body = json.dumps(
            {
                "name": digest,
                "digest": f"sha256:{digest}",
                "info_hash": list(info_hash),
                "peer": {"peer_id": list(peer_id), "ip": address, "port": port, "origin": False, "complete": False},
            }
        ).encode()
        head = (
            f"POST /announce/{info_hash.hex()} HTTP/1.1\r\nHost: tracker\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


def batched_requests(rng: random.Random) -> list[bytes]:
    """Batches of `_BATCH` complete torrents each, of `_SEEDERS` agents that hold some of `_BLOBS` blobs."""
    digests = [hashlib.sha256(rng.randbytes(8)).hexdigest() for _ in range(_BLOBS)]
    requests = []
    for number in range(_SEEDERS):
        address = f"10.0.{number >> 8}.{number & 255}"
        peer_id = list(hashlib.sha1(f"{address}:16001".encode()).digest())
        held = rng.sample(digests, _BATCH)
        body = json.dumps(
            {
                "peer": {"peer_id": peer_id, "ip": address, "port": 16001, "origin": False, "complete": True},
                "again": 300_000_000_000,
                "torrents": {hashlib.sha1(digest.encode()).hexdigest(): f"sha256:{digest}" for digest in held},
            }
        ).encode()
        requests.append(
            f"POST /announces HTTP/1.1\r\nHost: tracker\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
    return requests


@contextlib.contextmanager
def tracker(folder: Path, redis_port: int | None, origin_port: int | None) -> Iterator[tuple[int, int]]:
    """A tracker; yields its port and its pid.

    Args:
        redis_port: None for peers in memory.
        origin_port: whom it asks who has a blob; None for nobody.
    """
    (port,) = free_ports(1)
    config: dict[str, Any] = {"port": port, "origin": {"hosts": {"static": [f"127.0.0.1:{origin_port or 1}"]}}}
    if redis_port is not None:
        config["peerstore"] = {"redis": {"enabled": True, "addr": f"127.0.0.1:{redis_port}"}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tracker.yaml").write_text(json.dumps(config))
    argv = (f"--config={folder / 'tracker.yaml'}", f"--data-dir={folder / 'data'}")
    daemon = Daemon(folder, "kraken-tracker", argv, [(port, "/health")])
    try:
        daemon.start()
        yield port, daemon.pid
    finally:
        daemon.stop()


@contextlib.contextmanager
def redis_server(program: str) -> Iterator[int]:
    """A redis that keeps nothing; yields its port."""
    (port,) = free_ports(1)
    argv = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + _REDIS_START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def measure(folder: Path, origin_port: int | None, seconds: float, progress: Progress) -> dict[str, dict[str, Any]]:
    """The rows `announce_memory`, `announce_redis`, `announce_2000_open`, `announce_batched[_redis]`."""
    requests = announce_requests(random.Random(7))

    def ask(running: tuple[int, int], connections: int) -> dict[str, Any]:
        return asdict(load.run(load.Load(*running, requests, connections, _IN_FLIGHT, seconds)))

    rows: dict[str, dict[str, Any]] = {}
    progress.step("announce, peers in memory")
    with tracker(folder / "tracker", None, origin_port) as running:
        rows["announce_memory"] = ask(running, _IN_FLIGHT)
        progress.step(f"announce, {_MANY} open connections")
        rows[f"announce_{_MANY}_open"] = ask(running, _MANY)
    batches = batched_requests(random.Random(8))

    def ask_batched(running: tuple[int, int]) -> dict[str, Any]:
        """The torrents of batches, and CPU time for one torrent."""
        row = asdict(load.run(load.Load(*running, batches, _IN_FLIGHT, _IN_FLIGHT, seconds)))
        return row | {"per_s": row["per_s"] * _BATCH, "cpu_us_each": row["cpu_us_each"] / _BATCH}

    progress.step("announce, in batches")
    with tracker(folder / "tracker-batches", None, origin_port) as running:
        rows["announce_batched"] = ask_batched(running)
    progress.step("announce, peers in redis")
    program = shutil.which("redis-server")
    if program is None:
        rows["announce_redis"] = {"skipped": "redis-server is not on this machine"}
        return rows
    with redis_server(program) as redis_port, tracker(folder / "tracker-redis", redis_port, origin_port) as running:
        rows["announce_redis"] = ask(running, _IN_FLIGHT)
        rows["announce_batched_redis"] = ask_batched(running)
    return rows
