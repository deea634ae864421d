"""Which address to announce to other peers."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Callable
from typing import Literal

from krakentx.core.errors import ConfigError, InvalidInput
from krakentx.core.peer import PeerID, parse_address

PeerIDFactory = Literal["addr_hash", "random"]

_SIOCGIFADDR = 0x8915
_BRIDGES = ("docker", "br-", "virbr", "cni", "podman", "lxcbr")
_HINT = "say with --peer-ip which address other hosts can reach"


def announced_ip(
    explicit: str,
    tracker: str,
    *,
    route: Callable[[str, int], str] | None = None,
    bridge: Callable[[str], str | None] | None = None,
) -> str:
    """The address that other peers are told to dial.

    An explicit one wins. Otherwise the address from which packets leave towards the tracker: the hosts that share it
    most likely share the network too. An address of loopback or of a container bridge would reach this host only, so
    it is taken only when the tracker itself is on loopback.

    Args:
        explicit: an address or a name; empty to look for one.
        tracker: `host:port`.
        route: (host, port) -> own address towards it; OSError when there is none. For tests.
        bridge: address -> name of the container bridge that has it, or None. For tests.

    Raises:
        ConfigError: the name does not resolve, there is no route, or nothing but a useless address.
    """
    if explicit:
        return _resolved(explicit)
    try:
        host, port = parse_address(tracker, 80)
        own = (route or _route)(host, port)
    except InvalidInput as error:
        raise ConfigError(f"the address of the tracker: {error.message}") from error
    except socket.gaierror as error:
        raise ConfigError(
            f"the tracker's name {host} does not resolve ({error.strerror}); "
            f"mend it (--tracker, or tracker.hosts in the configuration), or {_HINT}"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"no own address towards the tracker {tracker}: {error.strerror or error}; {_HINT}"
        ) from error
    found = (bridge or _bridge_of)(own)
    if found is not None:
        raise ConfigError(f"the way to the tracker {tracker} leaves through {found} ({own}), a bridge; {_HINT}")
    if ipaddress.ip_address(own).is_unspecified:
        raise ConfigError(f"no own address towards the tracker {tracker}; {_HINT}")
    return own


def make_peer_id(factory: PeerIDFactory, ip: str, port: int) -> PeerID:
    """By `peer_id_factory`: the same after each restart (`addr_hash`), or a new one (`random`)."""
    return PeerID.random() if factory == "random" else PeerID.of_address(ip, port)


def _resolved(name: str) -> str:
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        try:
            info = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ConfigError(f"--peer-ip: {name!r} is no address and does not resolve ({error.strerror})") from error
        address = ipaddress.ip_address(info[0][4][0])
    if address.is_unspecified or address.is_multicast:
        raise ConfigError(f"--peer-ip: nobody can dial {address}; give the address of one interface")
    return str(address)


def _route(host: str, port: int) -> str:
    """Connecting a UDP socket sends nothing: the kernel only chooses the way."""
    problem: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0]).partition("%")[0]
        except OSError as error:
            problem = error
    raise problem or OSError("no address")


def _bridge_of(ip: str) -> str | None:
    """The container bridge that has this address; only IPv4 ones have any by default."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            if not name.startswith(_BRIDGES):
                continue
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has no address
                continue
            if socket.inet_ntoa(answer[20:24]) == ip:
                return name
    return None
