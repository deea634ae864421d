"""Where the objects of testfs meet."""

# mypy: allow-untyped-calls
# twisted.application has no types.

from __future__ import annotations

from typing import Any

from twisted.application.service import MultiService

from krakentx.storage.threads import Threads
from krakentx.testfs.api import testfs_app
from krakentx.testfs.config import TestfsConfig
from krakentx.testfs.logic import Files
from krakentx.web.metrics import HttpMetrics, Metrics
from krakentx.web.service import HttpService


class TestfsService(MultiService):
    """testfs, listening while it runs."""

    __test__ = False

    http: HttpService


def build(config: TestfsConfig, *, reactor: Any) -> TestfsService:
    """Put testfs together; `config.data_dir` must be set."""
    assert config.data_dir is not None, "the caller chooses the data folder"
    metrics = Metrics("testfs")
    files = Files(config.data_dir, Threads(reactor, reactor.getThreadPool()))
    service = TestfsService()
    service.http = HttpService(
        "testfs",
        testfs_app(files, metrics).resource(),
        config.port,
        config.interface,
        reactor=reactor,
        setting="--port or testfs.port",
        metrics=HttpMetrics(metrics),
    )
    service.http.setServiceParent(service)
    return service
