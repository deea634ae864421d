"""Who may ask: lists of networks in the configuration against the address that a request comes from."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from attrs import field, frozen
from twisted.web.resource import IResource, Resource
from zope.interface import implementer

from krakentx.core.errors import ConfigError, Denied
from krakentx.web.errors import code_of, registry_body, status_of
from krakentx.web.replies import reply

_ALWAYS_OPEN = frozenset({b"/health", b"/readiness", b"/metrics"})
LOOPBACK = ("127.0.0.0/8", "::1/128")

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(texts: Iterable[str]) -> tuple[_Network, ...]:
    try:
        return tuple(ipaddress.ip_network(text, strict=False) for text in texts)
    except ValueError as error:
        raise ValueError(f"{error}; write networks like 10.0.0.0/8, or single addresses") from error


@frozen
class Allowed:
    """The networks of one key of the configuration.

    Args:
        key: what an operator changes to let somebody in; a refusal names it.

    Raises:
        ValueError: one of them is no network.
    """

    key: str
    networks: tuple[_Network, ...] = field(converter=_networks)

    def check(self, request: Any) -> None:
        """Raises: Denied: the request comes from elsewhere."""
        host = getattr(request.getClientAddress(), "host", "")
        if not self.holds(host):
            raise Denied(f"{host or 'this address'} is in no network of `{self.key}`; add it there to let it in")

    def holds(self, host: str) -> bool:
        """Whether an address is in one of the networks; an IPv4 address that came over IPv6 counts as itself."""
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self.networks)


@implementer(IResource)
class Guarded(Resource):
    """A registry that answers only some networks; everyone else gets 403 in the registry's words."""

    isLeaf = True

    def __init__(self, inner: IResource, allowed: Allowed) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner = inner
        self._allowed = allowed

    def render(self, request: Any) -> Any:
        """Called by twisted.web for each request."""
        if request.path not in _ALWAYS_OPEN:
            try:
                self._allowed.check(request)
            except Denied as error:
                body = registry_body(code_of(error), str(error))
                return reply(request, status_of(error), body, "application/json")
        return self._inner.render(request)


def allowed(key: str, networks: Iterable[str]) -> Allowed:
    """Read the networks of a key of the configuration. Raises: ConfigError: one of them is no network."""
    try:
        return Allowed(key, networks)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error


def guarded(inner: IResource, key: str, networks: Iterable[str] | None) -> IResource:
    """The resource for these networks only; for everyone when the key is not set. Raises: ConfigError."""
    return inner if networks is None else Guarded(inner, allowed(key, networks))
