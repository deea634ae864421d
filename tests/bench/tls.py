"""One origin to one agent over the encrypted peer wire, beside the plain one."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import client, procs
from tests.bench.blobs import Blob
from tests.bench.progress import Progress
from tests.bench.swarm import NAMESPACE, Samples, one_round, sent_by_herd
from tests.cluster import Cluster, Herd
from tests.peer.authority import Authority


def measure(plain: Cluster, blob: Blob, folder: Path, rounds: int, progress: Progress) -> dict[str, Any]:
    """The row `swarm_1_tls`, with a herd of its own; rounds of both take turns, and the first does not count.

    Args:
        plain: a cluster that has the blob.
    """
    progress.step("a herd that requires TLS")
    folder.mkdir()
    authority = Authority.make(folder, "cluster")
    peer = authority.issue("peer")
    section = {
        "peers": "required",
        "cas": [{"path": str(authority.path)}],
        "client": {"cert": {"path": str(peer.cert.path)}, "key": {"path": str(peer.key.path)}},
    }
    (folder / "agent.yaml").write_text(json.dumps({"tls": section}))
    herd = Herd.make(folder / "herd", {"origin": {"tls": section}})
    samples = {"plain": Samples(), "tls": Samples()}
    with Cluster.start(folder, agents=1, herd=herd, agent_options=(f"--config={folder / 'agent.yaml'}",)) as cluster:
        client.push(herd.proxy_port, NAMESPACE, blob.path, blob.digest)
        for number in range(rounds + 1):
            for kind, each in (("plain", plain), ("tls", cluster)):
                progress.step(f"{kind}, round {number} of {rounds}" if number else f"{kind}, warming up")
                one_round(each, blob, 1, samples[kind] if number else Samples())
        sent = sent_by_herd(cluster)
        assert sent["copy"] > 0 and sent["sendfile"] == 0, "it was not encrypted"
        memory = max(procs.peak_rss_mib(agent.pid) for agent in cluster.agents)
    plain_cpu, cpu = (median(samples[kind].cpu_s_per_gib) for kind in ("plain", "tls"))
    return {
        "swarm_1_tls": {
            "wall_s": median(samples["tls"].wall_s),
            "plain_wall_s": median(samples["plain"].wall_s),
            "cpu_s_per_gib": cpu,
            "plain_cpu_s_per_gib": plain_cpu,
            "ratio_plain_cpu": cpu / plain_cpu,
            "rss_mib_max": memory,
        }
    }
