"""Ports for servers whose address must be known before they start."""

from __future__ import annotations

import random
import socket

_RANGE = range(18_000, 32_000)
"""Below the ports that Linux gives to clients and to servers that let it choose: it would give one of ours away in the
moment between our look and the start of its server."""

_given: set[int] = set()
_chance = random.SystemRandom()  # not the seeded one of a test: two runs side by side must not look at the same ports


def free_port() -> int:
    """A port of this machine that nobody has, and that was not given before."""
    for port in _chance.sample(_RANGE, len(_RANGE)):
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise AssertionError(f"no port between {_RANGE.start} and {_RANGE.stop} is free")


def free_ports(count: int) -> list[int]:
    """Several of them."""
    return [free_port() for _ in range(count)]


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("", port))
            sock.listen(1)
        except OSError:
            return False
        return True
