"""`twistd kraken-build-index`."""

from __future__ import annotations

from twisted.application.service import IService

from krakentx.buildindex.config import BuildIndexConfig
from krakentx.buildindex.service import build
from krakentx.cli.twistd import ComponentOptions, Flag, port_number


class Options(ComponentOptions):
    """Flags of the build-index."""

    component = "build-index"
    config_class = BuildIndexConfig
    summary = "Keeps what every tag points at."
    flags = (Flag("port", key="port", parse=port_number, doc="HTTP port.", listens=True),)


def makeService(options: Options) -> IService:
    """What twistd runs."""
    from twisted.internet import reactor

    return options.service(build, reactor)
