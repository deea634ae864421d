"""Numbers for Prometheus: one registry for each component, so that a herd's parts do not mix."""

from __future__ import annotations

from klein import Klein
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from twisted.web.iweb import IRequest

from krakentx.web.replies import reply

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of no use to anyone

_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """The numbers of one component, named `kraken_<component>_<name>`."""

    def __init__(self, component: str) -> None:
        self.registry = CollectorRegistry()
        self._prefix = f"kraken_{component.replace('-', '_')}"

    def counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        """A number that grows; Prometheus shows it with `_total` at the end."""
        return Counter(name, text, labels, namespace=self._prefix, registry=self.registry)

    def gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        """A number that goes up and down; `set_function` reads it when it is asked for."""
        return Gauge(name, text, labels, namespace=self._prefix, registry=self.registry)

    def histogram(
        self, name: str, text: str, labels: tuple[str, ...] = (), buckets: tuple[float, ...] = _BUCKETS
    ) -> Histogram:
        """A distribution, of seconds unless `buckets` say otherwise."""
        return Histogram(name, text, labels, namespace=self._prefix, registry=self.registry, buckets=buckets)


class HttpMetrics:
    """Requests of one component by method and status."""

    def __init__(self, metrics: Metrics) -> None:
        self._requests = metrics.counter("http_requests", "HTTP requests by method and status.", ("method", "status"))
        self._sent = metrics.counter("http_sent_bytes", "Bytes of bodies sent in answer to HTTP requests.")
        self._seconds = metrics.histogram("http_request_seconds", "Time to answer an HTTP request.", ("method",))

    def observe(self, method: bytes, status: int, elapsed_s: float, sent_bytes: int) -> None:
        """Count one request."""
        # The method is the client's word: unknown ones share a label, or a client could make us keep any number.
        name = method.decode() if method in _METHODS else "other"
        self._requests.labels(name, str(status)).inc()
        self._sent.inc(sent_bytes)
        self._seconds.labels(name).observe(elapsed_s)


_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})


def add_metrics(app: Klein, metrics: Metrics) -> None:
    """Serve the numbers at `/metrics`."""

    @app.route("/metrics", methods=["GET"])
    def show(*args: object) -> bytes:
        request: IRequest = args[-1]  # type: ignore[assignment]  # an app that is a class attribute puts itself first
        return reply(request, 200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST)
