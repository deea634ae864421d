"""`twistd kraken-tracker`."""

from __future__ import annotations

from twisted.application.service import IService

from krakentx.cli.twistd import ComponentOptions, Flag, port_number
from krakentx.tracker.config import TrackerConfig
from krakentx.tracker.service import build


class Options(ComponentOptions):
    """Flags of the tracker."""

    component = "tracker"
    config_class = TrackerConfig
    summary = "Tells peers about each other, and hands out the metainfo of blobs."
    flags = (Flag("port", key="port", parse=port_number, doc="HTTP port.", listens=True),)


def makeService(options: Options) -> IService:
    """What twistd runs."""
    from twisted.internet import reactor

    return options.service(build, reactor)
