"""Who is on the other end: PeerID, PeerInfo, PeerContext."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from typing_extensions import Self

from krakentx.core.errors import InvalidInput

_LENGTH = 20
_HOST = re.compile(
    r"(?=.{1,253}\Z)[0-9A-Za-z_-]{1,63}(\.[0-9A-Za-z_-]{1,63})*\.?"  # an IPv4 address, or a name that DNS can hold
    r"|(?=[^%]*:)[0-9A-Fa-f:.]{2,45}(%[0-9A-Za-z_.-]{1,15})?"  # an IPv6 address, perhaps with an interface
)
_MAX_ZONE = 253


class _Id(bytes):
    """20 raw bytes; 40 lower-case hex characters as text, an array of 20 integers in JSON."""

    __slots__ = ()

    def __new__(cls, raw: bytes) -> Self:
        if len(raw) != _LENGTH:
            raise InvalidInput(cls.__name__, f"{len(raw)} bytes, expected {_LENGTH}")
        return super().__new__(cls, raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 40 hex characters of either case."""
        try:
            return cls(bytes.fromhex(text) if len(text) == 2 * _LENGTH else b"")
        except ValueError as error:
            raise InvalidInput(cls.__name__, f"{text[:80]!r} is not hex") from error

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read an array of 20 integers 0..255.

        Raises:
            InvalidInput: anything else, a hex string included (the reference refuses it too).
        """
        if not isinstance(value, list) or not all(type(n) is int and 0 <= n <= 255 for n in value):
            raise InvalidInput(cls.__name__, "expected an array of 20 integers")
        return cls(bytes(value))

    def to_json(self) -> list[int]:
        """The array of 20 integers."""
        return list(self)

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hex()})"


class PeerID(_Id):
    """Identity of a running peer. Ordered bytewise."""

    __slots__ = ()

    @classmethod
    def of_address(cls, ip: str, port: int) -> PeerID:
        """`addr_hash`: SHA-1 of `ip:port`, the same after each restart."""
        if not ip:
            raise InvalidInput("PeerID", "the announced address is empty")
        return cls(hashlib.sha1(f"{ip}:{port}".encode(), usedforsecurity=False).digest())

    @classmethod
    def random(cls) -> PeerID:
        """A new identity at each start."""
        return cls(secrets.token_bytes(_LENGTH))


class InfoHash(_Id):
    """Identity of a torrent: SHA-1 of the bencoded Info of its metainfo."""

    __slots__ = ()


def _text(data: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = data.get(key, default)
    if not isinstance(value, str):
        raise InvalidInput("peer", f"{key} must be a string")
    return value


def _host(data: Mapping[str, Any]) -> str:
    """What may be dialled. Others name it, so whatever a resolver or a log could choke on ends here."""
    value = _text(data, "ip")
    if not _HOST.fullmatch(value):
        raise InvalidInput("address", f"{value[:80]!r} is neither an IP address nor a host name")
    return value


def check_zone(value: str) -> str:
    """The name of a zone as others tell it.

    Raises:
        InvalidInput: it is too long.
    """
    if len(value) > _MAX_ZONE:
        raise InvalidInput("peer", f"zone has more than {_MAX_ZONE} characters")
    return value


def _zone(data: Mapping[str, Any]) -> str:
    return check_zone(_text(data, "zone", ""))


def _port(data: Mapping[str, Any]) -> int:
    value = data.get("port")
    if type(value) is not int or not 0 < value < 65536:
        raise InvalidInput("peer", "port must be an integer from 1 to 65535")
    return value


@frozen
class PeerInfo:
    """A peer as a torrent sees it: how to reach it and whether it has everything."""

    peer_id: PeerID
    ip: str
    port: int
    origin: bool = False
    complete: bool = False
    zone: str = ""
    """Where the peer stands; an extension key that the reference ignores, left out of JSON when empty."""
    tls: bool = False
    """It speaks TLS on its port; an extension key too, left out of JSON when false."""

    @classmethod
    def from_json(cls, data: object) -> PeerInfo:
        """Read the object of an announce; unknown keys are ignored.

        Raises:
            InvalidInput: a key is missing or of another type.
        """
        if not isinstance(data, Mapping):
            raise InvalidInput("peer", "expected an object")
        return cls(
            peer_id=PeerID.from_json(data.get("peer_id")),
            ip=_host(data),
            port=_port(data),
            origin=data.get("origin") is True,
            complete=data.get("complete") is True,
            zone=_zone(data),
            tls=data.get("tls") is True,
        )

    def to_json(self) -> dict[str, Any]:
        """The object of an announce, keys in the reference's order."""
        data: dict[str, Any] = {
            "peer_id": self.peer_id.to_json(),
            "ip": self.ip,
            "port": self.port,
            "origin": self.origin,
            "complete": self.complete,
        }
        if self.zone:
            data["zone"] = self.zone
        if self.tls:
            data["tls"] = True
        return data

    @property
    def address(self) -> str:
        """`ip:port`, an IPv6 address in brackets."""
        return format_address(self.ip, self.port)


@frozen
class PeerContext:
    """What a running process tells of itself as a peer."""

    ip: str
    port: int
    peer_id: PeerID
    zone: str = ""
    cluster: str = ""
    origin: bool = False
    tls: bool = False

    @classmethod
    def from_json(cls, data: object) -> PeerContext:
        """Read the answer of `/internal/peercontext`."""
        if not isinstance(data, Mapping):
            raise InvalidInput("peer", "expected an object")
        return cls(
            ip=_host(data),
            port=_port(data),
            peer_id=PeerID.from_json(data.get("peer_id")),
            zone=_zone(data),
            cluster=_text(data, "cluster", ""),
            origin=data.get("origin") is True,
            tls=data.get("tls") is True,
        )

    def to_json(self) -> dict[str, Any]:
        """Keys in the reference's order; `tls` is our own, left out when false."""
        data: dict[str, Any] = {
            "ip": self.ip,
            "port": self.port,
            "peer_id": self.peer_id.to_json(),
            "zone": self.zone,
            "cluster": self.cluster,
            "origin": self.origin,
        }
        if self.tls:
            data["tls"] = True
        return data

    def as_peer(self, *, complete: bool) -> PeerInfo:
        """Itself as one entry of an announce."""
        return PeerInfo(self.peer_id, self.ip, self.port, self.origin, complete, self.zone, self.tls)


@frozen
class AnnounceAnswer:
    """The tracker's hand-out.

    Args:
        notice: what the operator of the asking peer should know, or empty; of our trackers only.
    """

    peers: tuple[PeerInfo, ...]
    interval_s: float
    notice: str = ""


def format_address(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def parse_address(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Read `host:port`, `[::1]:port`, and with a default port also `host`, `::1` and `[::1]`.

    Raises:
        InvalidInput: no host, or no valid port.
    """
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise InvalidInput("address", f"{text!r}: write [address]:port")
        port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not host:
        raise InvalidInput("address", f"{text!r} has no host")
    if not port:
        if default_port is None:
            raise InvalidInput("address", f"{text!r} has no port; write host:port")
        return host, default_port
    if not port.isascii() or not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
        raise InvalidInput("address", f"{text!r}: the port must be a number from 1 to 65535")
    return host, int(port)


def format_addresses(addresses: Sequence[tuple[str, int]]) -> str:
    """A comma-separated list for people and headers."""
    return ",".join(format_address(host, port) for host, port in addresses)
