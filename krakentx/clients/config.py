"""Sections of the configuration that say where other components are; shared by every component."""

from __future__ import annotations

from attrs import Factory, frozen

from krakentx.config.fields import duration
from krakentx.core.errors import ConfigError


@frozen
class HostsConfig:
    """One list of hosts: `static` names each, `dns` names one `name:port` that resolves to all of them."""

    WHOLE = True  # naming `dns` does away with a default `static`

    static: tuple[str, ...] = ()
    dns: str = ""
    ttl_s: float = duration("5s", key="ttl")

    def __attrs_post_init__(self) -> None:
        if self.static and self.dns:
            raise ConfigError("give either `static` or `dns`, not both; `static: []` drops an inherited list")

    def __bool__(self) -> bool:
        return bool(self.static or self.dns)


@frozen
class PassiveConfig:
    """A host that failed `fails` times within `fail_timeout` is asked last for as long."""

    fails: int = 3
    fail_timeout_s: float = duration("5m", key="fail_timeout")


@frozen
class ActiveConfig:
    """Health by asking: `fails` wrong answers in a row take a host out, `passes` right ones bring it back."""

    fails: int = 3
    passes: int = 2
    timeout_s: float = duration("3s", key="timeout")


@frozen
class MonitorConfig:
    """How often health is asked for."""

    interval_s: float = duration("10s", key="interval")


@frozen
class UpstreamHealthConfig:
    """`healthcheck` of a list whose members are asked for their health."""

    filter: ActiveConfig = Factory(ActiveConfig)
    monitor: MonitorConfig = Factory(MonitorConfig)
    disabled: bool = False


@frozen
class UpstreamConfig:
    """A cluster of origins or build-indexes as its clients see it."""

    hosts: HostsConfig = Factory(HostsConfig)
    healthcheck: UpstreamHealthConfig = Factory(UpstreamHealthConfig)


@frozen
class RingConfig:
    """The hash ring. All who share a ring must agree on `max_replica`."""

    UNUSED = frozenset({"membership_wait_timeout", "membership_wait_interval"})

    max_replica: int = 3
    refresh_interval_s: float = duration("10s", key="refresh_interval")


@frozen
class TrackerConfig:
    """The trackers as an agent sees them."""

    hosts: HostsConfig = Factory(HostsConfig)
    healthcheck: PassiveConfig = Factory(PassiveConfig)
    hashring: RingConfig = Factory(RingConfig)


@frozen
class PassiveUpstreamConfig:
    """The build-indexes as an agent sees them."""

    hosts: HostsConfig = Factory(HostsConfig)
    healthcheck: PassiveConfig = Factory(PassiveConfig)
