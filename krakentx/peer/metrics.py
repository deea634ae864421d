"""The numbers of the peer wire, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from krakentx.peer.counters import Counters
from krakentx.peer.scheduler import Scheduler


class SwarmCollector(Collector):
    """Reads a scheduler whenever somebody asks; register it with the component's `Metrics.registry`.

    Args:
        component: `agent` or `origin`.
    """

    def __init__(self, component: str, scheduler: Scheduler) -> None:
        self._prefix = f"kraken_{component}_peer"
        self._scheduler = scheduler

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Called by prometheus_client."""
        counters = self._scheduler.counters
        for field in attrs.fields(Counters):
            name, text = f"{self._prefix}_{field.name}", field.metadata["text"]
            yield CounterMetricFamily(name, text, value=getattr(counters, field.name))
        tls = self._scheduler.tls
        yield GaugeMetricFamily(
            f"{self._prefix}_tls_expires",
            "When the certificate of the peer wire ends, in seconds since 1970; 0 without TLS.",
            value=tls.expires if tls else 0,
        )
        yield GaugeMetricFamily(f"{self._prefix}_torrents", "Blobs in the swarm.", value=self._scheduler.torrent_count)
        yield GaugeMetricFamily(
            f"{self._prefix}_connections", "Connections to peers.", value=self._scheduler.connection_count
        )
        bandwidth = self._scheduler.bandwidth
        for way, limit in (("egress", bandwidth.egress_bytes_s), ("ingress", bandwidth.ingress_bytes_s)):
            text = f"Limit of the {way} of piece bytes, in bytes per second; 0 without."
            yield GaugeMetricFamily(f"{self._prefix}_{way}_limit_bytes", text, value=limit or 0)
