"""What must hold of every run: bytes are neither lost nor made, and no line carries more than it can."""

from __future__ import annotations

from krakentx.sim.world import World

_FUZZ = 1e-6  # of a sum of bytes: rounding


def audit(world: World) -> None:
    """Stop everything, and see that every byte that left a host came to another, and no line carried too much.

    Nothing can happen in this world afterwards.
    """
    hosts, clock, bandwidth = world.hosts.values(), world.clock, world.config.conn.bandwidth
    for host in hosts:
        host.alive = False
    for host in hosts:
        for end in host.ends.values():
            end.abort()
    clock.run(clock.now + 2 * world.network.latency_s, lambda: False)
    out = sum(host.up.carried for host in hosts)
    into = sum(host.down.carried for host in hosts)
    counted = sum(sum(host.received.values()) + host.lost for host in hosts)
    for other in (into, counted):
        assert abs(other - out) <= _FUZZ * max(out, 1.0), f"{out:.0f} bytes left, {other:.0f} came"
    for host in hosts:
        lines = (host.up, host.down, *((host.rack.up, host.rack.down) if host.rack else ()))
        caps = (bandwidth.egress_bytes_s, bandwidth.ingress_bytes_s, None, None)
        for line, cap in zip(lines, caps, strict=False):
            most = min(line.capacity, cap or line.capacity) * clock.now
            assert line.carried <= most * (1 + _FUZZ), f"{line.name} carried {line.carried:.0f} of {most:.0f}"
