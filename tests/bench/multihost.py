"""`make bench-multihost`: the numbers of a deployment on hosts with links of their own; docs/benchmark.md tells more.

A herd, four agents and a plain registry stand in network namespaces, the link of each capped to the same rate in both
directions. What a host sends is counted at its link, headers and acknowledgements included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import Factory, define

import krakentx
from tests.bench import client, paced, report
from tests.bench.announce import announce_requests
from tests.bench.blobs import Blob, changed, make
from tests.bench.progress import Progress
from tests.cluster import ROOT, NotStarted
from tests.testbed import daemons
from tests.testbed.daemons import AGENT_MANAGEMENT, PEER, PROXY, TRACKER, HostDaemon
from tests.testbed.hosts import Host, Hosts, NoTestbed
from tests.testbed.pulls import NAMESPACE, Pull, blob_path, pull

_AGENTS = 4
_REGISTRY_PORT = 5000
_MB = 1_000_000
_START_S = 20.0
Rows = dict[str, Any]

TARGETS = {
    "egress_copies_3_at_once": report.Target("", high=1.5),
    "egress_copies_second": report.Target("", high=0.1),
    "egress_copies_third": report.Target("", high=0.1),
    "peer_share_fourth": report.Target("", low=0.9),
    "time_ratio_3": report.Target("", high=1.5),
    "tracker_2000_errors": report.Target("", high=1),
}


@define
class Site:
    """What stands where. All hosts but the herd's and the plain registry's have an agent."""

    hosts: Hosts
    herd: Host
    plain: Host
    agents: list[HostDaemon]
    blob: Blob
    rate: str
    progress: Progress
    seconds: float
    details: Rows = Factory(dict)

    def new_blob(self) -> Blob:
        """Push another blob, of which no agent has a byte."""
        self.blob = changed(self.blob)
        with self.herd.inside():
            client.push(PROXY, NAMESPACE, self.blob.path, self.blob.digest)
        time.sleep(1.0)  # the herd writes it to its backend meanwhile
        return self.blob

    def pull(self, count: int) -> tuple[float, float]:
        """Have so many agents pull the blob at once; returns seconds until all have it, and copies sent by the herd."""
        return self._timed(self.herd, [lambda h=agent.host: pull(h, self.blob) for agent in self.agents[:count]])

    def pull_plain(self, count: int) -> tuple[float, float]:
        """The same from the plain registry."""
        path = blob_path(self.blob)
        return self._timed(
            self.plain,
            [
                lambda h=agent.host: Pull(h, path, address=self.plain.ip, port=_REGISTRY_PORT)
                for agent in self.agents[:count]
            ],
        )

    def _timed(self, source: Host, begin: Sequence[Callable[[], Pull]]) -> tuple[float, float]:
        before = source.traffic()
        began = time.monotonic()
        for each in [start() for start in begin]:
            each.right(self.blob)
        took_s = time.monotonic() - began
        return took_s, (source.traffic() - before).sent / self.blob.size


def at_once(site: Site) -> Rows:
    """Three agents at the same moment, against one alone on the same kind of link."""
    site.new_blob()
    site.progress.step("one agent alone")
    alone_s, _ = site.pull(1)
    site.new_blob()
    site.progress.step("three agents at once")
    three_s, copies = site.pull(3)
    site.details.update(alone_s=alone_s, three_s=three_s)
    return {"egress_copies_3_at_once": copies, "time_ratio_3": three_s / alone_s}


def in_turn(site: Site) -> Rows:
    """One after the other; the fourth cannot reach the peer port of the origin."""
    site.new_blob()
    copies = []
    for number, agent in enumerate(site.agents[:3], 1):
        site.progress.step(f"one after another, agent {number}")
        copies.append(site._timed(site.herd, [lambda h=agent.host: pull(h, site.blob)])[1])
    site.progress.step("a fourth, with the origin's peer port dropped")
    last = site.agents[3]
    last.host.drop(PEER)
    before = _received(last)
    took_s, fourth = site._timed(site.herd, [lambda: pull(last.host, site.blob)])
    last.host.undrop()
    peers, fallback = (now - then for now, then in zip(_received(last), before, strict=True))
    site.details.update(egress_copies_first=copies[0], egress_copies_fourth=fourth, fourth_s=took_s)
    return {
        "egress_copies_second": copies[1],
        "egress_copies_third": copies[2],
        "peer_share_fourth": peers / (peers + fallback),
    }


def _received(agent: HostDaemon) -> tuple[float, float]:
    """Bytes that came to an agent from peers, and by fallback."""
    with agent.host.inside():
        numbers = client.numbers(AGENT_MANAGEMENT)
    prefix = "kraken_agent_peer_received_"
    return numbers[f"{prefix}peers_bytes"], numbers[f"{prefix}fallback_bytes"]


def plain_registry(site: Site) -> Rows:
    """The same pulls from a registry of the distribution project."""
    program = shutil.which("docker-registry")
    if program is None:
        return {"plain_registry_time_ratio_3": "docker-registry is not on this machine"}
    with _registry(site, program, site.blob.path.parent):
        with site.plain.inside():
            client.push(_REGISTRY_PORT, NAMESPACE, site.blob.path, site.blob.digest)
        site.progress.step("plain registry, one host alone")
        alone_s, _ = site.pull_plain(1)
        site.progress.step("plain registry, three hosts at once")
        three_s, copies = site.pull_plain(3)
    site.details.update(plain_alone_s=alone_s, plain_three_s=three_s, plain_egress_copies_3=copies)
    return {"plain_registry_time_ratio_3": three_s / alone_s}


@contextlib.contextmanager
def _registry(site: Site, program: str, folder: Path) -> Iterator[None]:
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder / 'registry'}}}}}\n"
        f"http: {{addr: ':{_REGISTRY_PORT}'}}\n"
    )
    with site.plain.inside(), (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + _START_S
            while socket.socket().connect_ex(("127.0.0.1", _REGISTRY_PORT)) != 0:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise NotStarted(f"docker-registry: {(folder / 'registry.log').read_text()[-1000:]}")
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(10)


def tracker(site: Site) -> Rows:
    """Two thousand agents with a connection each, announcing at the interval which the tracker gives them."""
    site.progress.step("2000 agents announce")
    source = site.agents[0].host
    requests = announce_requests(random.Random(7), source.ip)
    interval_s = 3.0
    with source.inside():
        kept = paced.run((site.herd.ip, TRACKER), requests, interval_s, site.seconds)
    site.details.update(
        tracker_2000_answers=kept.answers,
        tracker_2000_late=kept.late,
        tracker_2000_p50_ms=kept.p50_ms,
        tracker_2000_max_ms=kept.max_ms,
    )
    return {"tracker_2000_errors": kept.errors, "tracker_2000_p99_ms": kept.p99_ms}


@contextlib.contextmanager
def site(folder: Path, size: int, rate: str, seconds: float, progress: Progress) -> Iterator[Site]:
    """Herd, agents and the host of the plain registry, on links of that rate."""
    progress.step("hosts, herd and agents")
    with Hosts.up(2 + _AGENTS) as hosts:
        herd_host, *agent_hosts, plain = hosts
        agents = [daemons.agent(host, folder / host.name, herd_host.ip) for host in agent_hosts]
        with daemons.running(daemons.herd(herd_host, folder / "herd"), *agents):
            for host in hosts:
                host.limit(rate)
            yield Site(hosts, herd_host, plain, agents, make(folder / "blob", size), rate, progress, seconds)


def table(rows: Rows, details: Rows) -> str:
    """All numbers, one in a line; those of the guide first."""
    lines = [f"{'number':<32}{'value':>12}   {'target':<10}", "-" * 64]
    for key, value in {**rows, **details}.items():
        target = TARGETS.get(key)
        shown = value if isinstance(value, str) else report.number(value)
        wanted = "" if target is None else str(target)
        word = "" if target is None or isinstance(value, str) else "ok" if target.met(value) else "missed"
        lines.append(f"{key:<32}{shown:>12}   {wanted:<10}{word}".rstrip())
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Measure, print, write. A missed target is told, and no failure."""
    parser = argparse.ArgumentParser(prog="make bench-multihost ARGS=...", description=__doc__)
    parser.add_argument("--mb", type=int, default=200, help="size of the blob (200)")
    parser.add_argument("--rate", default="200mbit", help="of each host's link, both ways (200mbit)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the 2,000 agents announce (30)")
    parser.add_argument("--json", type=Path, default=ROOT / "bench-multihost.json", help="where the numbers go")
    options = parser.parse_args(argv)
    parts = (at_once, plain_registry, in_turn, tracker)
    progress = Progress(10)
    rows: Rows = {}
    try:
        with (
            tempfile.TemporaryDirectory(prefix="kraken-hosts-") as place,
            site(Path(place), options.mb * _MB, options.rate, options.seconds, progress) as where,
        ):
            for part in parts:
                rows.update(part(where))
            details = where.details
    except NoTestbed as error:
        sys.exit(f"error: {error}")
    progress.end()
    machine = report.machine()
    print(f"{options.mb} MB at {options.rate}; {machine['cores']} x {machine['cpu']}, python {machine['python']}")
    print(table(rows, details))
    document = {
        "version": krakentx.__version__,
        "machine": machine,
        "blob_bytes": options.mb * _MB,
        "rate": options.rate,
        **rows,
        "details": details,
    }
    options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {options.json}")


if __name__ == "__main__":
    main(sys.argv[1:])
