"""`twistd kraken-herd`."""

from __future__ import annotations

from twisted.application.service import IService

from krakentx.cli.twistd import ComponentOptions, Flag, port_number
from krakentx.herd.config import HerdConfig
from krakentx.herd.service import build


class Options(ComponentOptions):
    """Flags of the herd."""

    component = "herd"
    config_class = HerdConfig
    summary = "All central parts in one process: testfs, origin, tracker, build-index and proxy."
    flags = (
        Flag("peer-ip", "Address that agents are told for the origin; by default found out.", "origin.peer_ip"),
        Flag("testfs-port", "testfs.", "testfs.port", port_number, listens=True),
        Flag("port", "Proxy's registry; may be repeated.", "proxy.port", port_number, many=True, listens=True),
        Flag("peer-port", "Origin's peer wire.", "origin.peer_port", port_number, listens=True),
        Flag("blobserver-port", "Origin.", "origin.port", port_number, listens=True),
        Flag("tracker-port", "Tracker.", "tracker.port", port_number, listens=True),
        Flag("build-index-port", "Build-index.", "build_index.port", port_number, listens=True),
        Flag("server-port", "Proxy's management.", "proxy.server.port", port_number, listens=True),
        Flag("blobserver-hostname", "Name of the origin in a ring of several.", "origin.hostname"),
        Flag("zone", "Name of the zone this host stands in.", "origin.zone"),
    )


def makeService(options: Options) -> IService:
    """What twistd runs."""
    from twisted.internet import reactor

    return options.service(build, reactor)
