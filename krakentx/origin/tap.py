"""`twistd kraken-origin`."""

from __future__ import annotations

from twisted.application.service import IService

from krakentx.cli.twistd import ComponentOptions, Flag, port_number
from krakentx.origin.config import OriginConfig
from krakentx.origin.service import build


class Options(ComponentOptions):
    """Flags of the origin."""

    component = "origin"
    config_class = OriginConfig
    summary = "Keeps blobs, seeds them to agents, and writes them to the backend."
    flags = (
        Flag("peer-ip", key="peer_ip", doc="Address that peers are told to dial; by default found out."),
        Flag("peer-port", key="peer_port", parse=port_number, doc="Port of the peer wire.", listens=True),
        Flag("blobserver-hostname", key="hostname", doc="Name in the ring of origins; by default the host's."),
        Flag("blobserver-port", key="port", parse=port_number, doc="HTTP port.", listens=True),
        Flag("zone", key="zone", doc="Name of the zone this host stands in."),
    )


def makeService(options: Options) -> IService:
    """What twistd runs."""
    from twisted.internet import reactor

    return options.service(build, reactor)
