"""`twistd kraken-testfs`."""

from __future__ import annotations

from twisted.application.service import IService

from krakentx.cli.twistd import ComponentOptions, Flag, port_number
from krakentx.testfs.config import TestfsConfig
from krakentx.testfs.service import build


class Options(ComponentOptions):
    """Flags of testfs."""

    component = "testfs"
    config_class = TestfsConfig
    summary = "A file server that stands in for real storage: upload, download, stat and list of files."
    flags = (Flag("port", key="port", parse=port_number, doc="HTTP port.", listens=True),)


def makeService(options: Options) -> IService:
    """What twistd runs."""
    from twisted.internet import reactor

    return options.service(build, reactor)
