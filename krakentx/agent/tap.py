"""`twistd kraken-agent`."""

from __future__ import annotations

from twisted.application.service import IService

from krakentx.agent.config import AgentConfig
from krakentx.agent.service import build
from krakentx.cli.twistd import ComponentOptions, Flag, port_number


class Options(ComponentOptions):
    """Flags of the agent."""

    component = "agent"
    config_class = AgentConfig
    summary = "Registry for pulls on one host: tags come from the build-index, bytes from other hosts' agents."
    flags = (
        Flag("agent-registry-port", "Registry port.", "agent_registry_port", port_number, listens=True),
        Flag("peer-port", "Port of the peer wire.", "peer_port", port_number, listens=True),
        Flag("agent-server-port", "Management port.", "agent_server_port", port_number, listens=True),
        Flag("peer-ip", "Address that other peers are told; by default the one that leads to the tracker.", "peer_ip"),
        Flag("zone", "Name of the zone this host stands in.", "zone"),
        Flag("tracker", "Tracker, host:port; may be repeated.", "tracker.hosts.static", many=True),
        Flag("build-index", "Build-index, host:port; may be repeated.", "build_index.hosts.static", many=True),
        Flag("fallback", "Origin or registry to fall back to, host:port; may be repeated.", "fallback", many=True),
    )


def makeService(options: Options) -> IService:
    """What twistd runs."""
    from twisted.internet import reactor

    return options.service(build, reactor)
