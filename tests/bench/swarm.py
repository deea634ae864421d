"""One origin to one and to four agents, beside the yardstick, in turns."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from attrs import Factory, define

from tests.bench import client, procs, raw
from tests.bench.blobs import Blob
from tests.bench.progress import Progress
from tests.cluster import Agent, Cluster

NAMESPACE = "bench/blob"
_POLL_S = 0.005
_DONE_S = 120.0
_GIB = 1 << 30


class NeverCame(Exception):
    """A blob did not arrive in time."""


@define
class Samples:
    """Of one row, round after round."""

    wall_s: list[float] = Factory(list)
    cpu_s_per_gib: list[float] = Factory(list)
    herd_copies: list[float] = Factory(list)


def blob_path(blob: Blob) -> str:
    """Path of its GET at a registry."""
    return f"/v2/{NAMESPACE}/blobs/{blob.digest}"


def cached_at(agent: Agent, blob: Blob) -> Path:
    """The file that is there once the agent has the whole blob and its sha256 has passed."""
    return agent.folder / "data" / "cache" / blob.hex[:2] / blob.hex[2:4] / blob.hex / "data"


def fetch(agents: Sequence[Agent], blob: Blob) -> None:
    """Have the agents download the blob at once, without an HTTP stream of its bytes: ask for one byte each.

    Raises:
        NeverCame
    """
    deadline = time.monotonic() + _DONE_S
    with contextlib.ExitStack() as held:
        asked = [held.enter_context(client.ask_first_byte(agent.port, blob_path(blob))) for agent in agents]
        missing = [cached_at(agent, blob) for agent in agents]
        while missing:
            missing = [path for path in missing if not path.exists()]
            if time.monotonic() > deadline:
                raise NeverCame(f"{blob.digest} did not reach {len(missing)} of {len(agents)} agents")
            time.sleep(_POLL_S)
        for sock in asked:
            client.check_first_byte(sock)


def forget(agents: Sequence[Agent], blob: Blob) -> None:
    """Have the agents drop the blob, so that the next round finds them empty."""
    for agent in agents:
        client.ask(agent.management_port, "DELETE", f"/blobs/{blob.digest}")


def sent_by_herd(cluster: Cluster) -> dict[str, float]:
    """Bytes that left the herd so far: `sendfile` and `copy` over the peer wire, `http` from its origin."""
    numbers = client.numbers(cluster.herd.origin_port)
    return {
        "sendfile": numbers["kraken_origin_peer_sent_sendfile_bytes"],
        "copy": numbers["kraken_origin_peer_sent_copy_bytes"],
        "http": numbers["kraken_origin_http_sent_bytes"],
    }


def measure(cluster: Cluster, blob: Blob, folder: Path, rounds: int, progress: Progress) -> dict[str, Any]:
    """The rows `raw`, `swarm_1`, `swarm_4`, `egress_copies_4` and `sendfile_percent`.

    One more round comes before and does not count: memory that this machine touches for the first time is several
    times slower.
    """
    yardstick: dict[str, list[float]] = {"wall_s": [], "cpu_s_per_gib": []}
    samples = {1: Samples(), len(cluster.agents): Samples()}
    for number in range(rounds + 1):
        what = f"round {number} of {rounds}" if number else "warming up"
        progress.step(f"raw sockets, {what}")
        found = raw.measure(blob.path, folder)
        if number:
            for key, values in yardstick.items():
                values.append(found[key])
        for count, sample in samples.items():
            progress.step(f"one origin to {count} agents, {what}")
            one_round(cluster, blob, count, sample if number else Samples())
    rows: dict[str, Any] = {"raw": {key: median(values) for key, values in yardstick.items()}}
    for count, sample in samples.items():
        cpu = median(sample.cpu_s_per_gib)
        rows[f"swarm_{count}"] = {
            "wall_s": median(sample.wall_s),
            "cpu_s_per_gib": cpu,
            "rss_mib_max": max(procs.peak_rss_mib(agent.pid) for agent in cluster.agents),
            "ratio_raw_cpu": rows["raw"]["cpu_s_per_gib"] / cpu,
        }
    rows["egress_copies_4"] = median(samples[len(cluster.agents)].herd_copies)
    rows["sendfile_percent"] = 100 * _sendfile_share(cluster)
    return rows


def one_round(cluster: Cluster, blob: Blob, count: int, sample: Samples) -> None:
    """One download by `count` agents, and everything as before again."""
    agents = cluster.agents[:count]
    procs.wait_idle(cluster.pids)
    before = sum(sent_by_herd(cluster).values())
    with procs.measured(cluster.pids) as cost:
        fetch(agents, blob)
    sample.wall_s.append(cost.wall_s)
    sample.cpu_s_per_gib.append(cost.cpu_s * _GIB / (blob.size * count))
    sample.herd_copies.append((sum(sent_by_herd(cluster).values()) - before) / blob.size)
    forget(agents, blob)


def _sendfile_share(cluster: Cluster) -> float:
    """Of all piece bytes that herd and agents have sent over the peer wire."""
    herd = sent_by_herd(cluster)
    by_sendfile, by_copy = herd["sendfile"], herd["copy"]
    for agent in cluster.agents:
        numbers = client.numbers(agent.management_port)
        by_sendfile += numbers["kraken_agent_peer_sent_sendfile_bytes"]
        by_copy += numbers["kraken_agent_peer_sent_copy_bytes"]
    return by_sendfile / (by_sendfile + by_copy)
