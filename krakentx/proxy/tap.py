"""`twistd kraken-proxy`."""

from __future__ import annotations

from twisted.application.service import IService

from krakentx.cli.twistd import ComponentOptions, Flag, port_number
from krakentx.proxy.config import ProxyConfig
from krakentx.proxy.service import build


class Options(ComponentOptions):
    """Flags of the proxy."""

    component = "proxy"
    config_class = ProxyConfig
    summary = "Registry for pushes (and pulls): blobs go to the origins, tags to the build-index."
    flags = (
        Flag("port", key="port", parse=port_number, many=True, doc="Registry port; may be repeated.", listens=True),
        Flag("server-port", key="server.port", parse=port_number, doc="Management port.", listens=True),
    )


def makeService(options: Options) -> IService:
    """What twistd runs."""
    from twisted.internet import reactor

    return options.service(build, reactor)
