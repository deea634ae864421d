"""What a client of the registry feels: a cold pull, a pull past a dropped port, other requests meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import client, procs
from tests.bench.blobs import Blob
from tests.bench.load import percentile
from tests.bench.progress import Progress
from tests.bench.swarm import NAMESPACE, blob_path, forget
from tests.cluster import Cluster, Herd, NotStarted

_PROBE_PAUSE_S = 0.005
_SUNK = "127.0.0.2"


def cold(cluster: Cluster, blob: Blob, rounds: int, progress: Progress) -> dict[str, Any]:
    """The row `cold_pull`: the first agent holds nothing and streams the blob while it arrives."""
    agent = cluster.agents[0]
    pulled = []
    for number in range(rounds):
        progress.step(f"cold pull, round {number + 1} of {rounds}")
        procs.wait_idle(cluster.pids)
        pulled.append(client.pull(agent.port, blob_path(blob), blob.size))
        rss = procs.peak_rss_mib(agent.pid)
        forget([agent], blob)
    return {
        "cold_pull": {
            "first_byte_s": median(each.first_byte_s for each in pulled),
            "total_s": median(each.total_s for each in pulled),
            "rss_mib_max": rss,
        }
    }


def health(cluster: Cluster, blob: Blob, rounds: int, progress: Progress) -> dict[str, Any]:
    """The rows `health_...`: how long `GET /v2/` takes at an agent through which a cold pull runs."""
    agent = cluster.agents[0]
    taken_s: list[float] = []
    for number in range(rounds):
        progress.step(f"GET /v2/ during a pull, round {number + 1} of {rounds}")
        procs.wait_idle(cluster.pids)
        over = threading.Event()
        prober = threading.Thread(target=_probe, args=(agent.port, over, taken_s))
        prober.start()
        try:
            client.pull(agent.port, blob_path(blob), blob.size)
        finally:
            over.set()
            prober.join()
        forget([agent], blob)
    taken_s.sort()
    return {
        "health_p50_ms": 1000 * percentile(taken_s, 50),
        "health_p99_ms": 1000 * percentile(taken_s, 99),
        "health_max_ms": 1000 * taken_s[-1],
    }


def _probe(port: int, over: threading.Event, taken_s: list[float]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while not over.is_set():
        began = time.monotonic()
        connection.request("GET", "/v2/")
        answer = connection.getresponse()
        answer.read()
        taken_s.append(time.monotonic() - began)
        over.wait(_PROBE_PAUSE_S)
    connection.close()


@contextlib.contextmanager
def dropped_port(port: int) -> Iterator[None]:
    """A port of `_SUNK` that swallows whoever dials it, as a firewall's DROP does.

    Its listener never accepts, and with a full queue Linux drops every further SYN; no root is needed for that.
    """
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.create_server((_SUNK, port), backlog=0))
        for _ in range(8):
            sock = held.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        time.sleep(0.2)
        probe = held.enter_context(socket.socket())
        probe.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            probe.connect(listener.getsockname())
            raise NotStarted("this kernel takes connections that nobody accepts; the row needs a dropped port")
        yield


def fallback(folder: Path, blob: Blob, rounds: int, progress: Progress) -> dict[str, Any]:
    """The row `fallback_dropped_port`: a pull through an agent which cannot reach the origin's peer port.

    Set against a pull of the same bytes from the herd itself.
    """
    progress.step("a herd whose peer port is dropped")
    herd = Herd.make(folder / "herd", {"origin": {"interface": "127.0.0.1"}}, peer_ip=_SUNK)
    through, direct = [], []
    with Cluster.start(folder, agents=1, herd=herd) as cluster, dropped_port(herd.peer_port):
        client.push(herd.proxy_port, NAMESPACE, blob.path, blob.digest)
        procs.wait_idle(cluster.pids)
        for number in range(rounds + 1):
            progress.step(f"pulls past it, round {number} of {rounds}" if number else "pulls past it, warming up")
            straight = client.pull(herd.proxy_port, blob_path(blob), blob.size)
            procs.wait_idle(cluster.pids)
            pulled = client.pull(cluster.agents[0].port, blob_path(blob), blob.size)
            forget(cluster.agents, blob)
            if number:
                direct.append(straight.total_s)
                through.append(pulled)
    total_s, direct_s = median(each.total_s for each in through), median(direct)
    return {
        "fallback_dropped_port": {
            "first_byte_s": median(each.first_byte_s for each in through),
            "total_s": total_s,
            "direct_s": direct_s,
            "ratio": total_s / direct_s,
        }
    }
