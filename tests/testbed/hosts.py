"""Hosts with addresses of their own on this machine: network namespaces on a bridge, made by netns.sh.

A thread that is `inside` a host opens its sockets there and starts its processes there; everything else, files
included, is shared. So daemons, clients and load generators that know nothing of namespaces run on any host.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import string
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, field, frozen

_SCRIPT = Path(__file__).with_name("netns.sh")
_STATE = Path("/run/netns-testbed")
_OWNER = "owner"
_CLONE_NEWNET = 0x40000000
_FIRST = 100
_LIBC = ctypes.CDLL(None, use_errno=True)


class NoTestbed(Exception):
    """This machine cannot have such hosts; the text says why."""


@frozen
class Traffic:
    """Bytes that crossed a host's link since it was made, headers included."""

    received: int
    sent: int

    def __sub__(self, earlier: Traffic) -> Traffic:
        return Traffic(self.received - earlier.received, self.sent - earlier.sent)


@define(eq=False)
class Host:
    """One of them."""

    hosts: Hosts
    name: str
    ip: str

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Within the block, new sockets and processes of this thread belong to this host."""
        here = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        try:
            there = os.open(f"/run/netns/{self.hosts.set_name}-{self.name}", os.O_RDONLY)
            try:
                _enter(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _enter(here)
        finally:
            os.close(here)

    def limit(self, rate: str) -> None:
        """Cap both directions of its link: `200mbit`, or `off`."""
        self.hosts.script("limit", self.name, rate)

    def drop(self, port: int) -> None:
        """Silently drop TCP and UDP to and from that port, whichever side it is on."""
        self.hosts.script("drop", self.name, str(port))

    def lose(self, percent: int) -> None:
        """Drop that share of the packets it sends, at random."""
        self.hosts.script("lose", self.name, str(percent))

    def undrop(self) -> None:
        """Lift all drops and losses."""
        self.hosts.script("undrop", self.name)

    def unplug(self) -> None:
        """Pull its cable; nobody is told."""
        self.hosts.script("unplug", self.name)

    def plug(self) -> None:
        """Put it back."""
        self.hosts.script("plug", self.name)

    def mend(self) -> None:
        """Cable in, nothing dropped, no limit."""
        self.plug()
        self.undrop()
        self.limit("off")

    def traffic(self) -> Traffic:
        """Counted so far."""
        received, sent = self.hosts.script("bytes", self.name).split()
        return Traffic(int(received), int(sent))


@define(eq=False)
class Hosts:
    """A set of them, named apart from all other sets of this machine."""

    set_name: str
    prefix: str
    _hosts: dict[int, Host] = field(factory=dict, init=False)

    @classmethod
    @contextlib.contextmanager
    def up(cls, count: int, *, prefix: str = "10.0.1") -> Iterator[Hosts]:
        """Make hosts 100, 101, ...; at the end of the block everything in them ends and they are gone.

        Sets whose process died without that are cleared away first.

        Raises:
            NoTestbed
        """
        if why := missing():
            raise NoTestbed(why)
        clear_abandoned()
        hosts = cls("t" + "".join(random.SystemRandom().choices(string.ascii_lowercase, k=5)), prefix)
        try:
            # The owner is written before the first namespace is there, so that none can be left without one.
            state = _STATE / hosts.set_name
            state.mkdir(parents=True)
            (state / _OWNER).write_text(str(os.getpid()))
            for line in hosts.script("up", str(count)).splitlines():
                name, ip = line.split()
                hosts._hosts[int(name[1:])] = Host(hosts, name, ip)
            yield hosts
        finally:
            hosts.script("down")

    def __getitem__(self, number: int) -> Host:
        """By its last octet: `hosts[101]`."""
        return self._hosts[number]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    @property
    def herd(self) -> Host:
        """The first of them."""
        return self[_FIRST]

    def script(self, *argv: str) -> str:
        """Run netns.sh for this set; returns what it printed.

        Raises:
            NoTestbed: it failed; the text is its own.
        """
        return _script(self.set_name, self.prefix, *argv)


def missing() -> str:
    """Why this machine has no hosts to give; empty when it has."""
    if os.geteuid() != 0:
        return "hosts of their own need root"
    for program, package in (("ip", "iproute2"), ("tc", "iproute2"), ("iptables", "iptables"), ("bash", "bash")):
        if shutil.which(program) is None:
            return f"{program} is not on this machine; it comes with the Debian package {package}"
    try:
        _script("probe", "10.0.1", "list")
        subprocess.run(["unshare", "-n", "true"], check=True, capture_output=True, timeout=10)
    except (NoTestbed, OSError, subprocess.SubprocessError) as error:
        return f"network namespaces are not allowed here: {error}"
    return ""


def skip_unless_possible() -> None:
    """Skip the test where there can be no hosts."""
    if why := missing():
        pytest.skip(why)


def clear_abandoned() -> None:
    """Take down the sets whose process is gone."""
    for owner in _STATE.glob(f"*/{_OWNER}"):
        with contextlib.suppress(OSError, ValueError):
            if not Path(f"/proc/{int(owner.read_text())}").exists():
                _script(owner.parent.name, "10.0.1", "down")


def _script(set_name: str, prefix: str, *argv: str) -> str:
    done = subprocess.run(
        [str(_SCRIPT), *argv],
        env={**os.environ, "TESTBED": set_name, "TESTBED_PREFIX": prefix},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise NoTestbed(f"netns.sh {' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")
