#!/usr/bin/env python3
"""Addresses and HTTP for the scripts, on nothing but Python's own library.

net.py resolve NAME           the address of a name (itself, when it is an address)
net.py own                    an address of this host that others may reach
net.py mine ADDRESS           exit code 0 when this host has it
net.py wait SECONDS URL...    until all of them answer 200; names on stderr what did not
net.py reach HOST PORT...     says of each port whether somebody there takes connections; exit code 0 when all do
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
import sys
import time
import urllib.error
import urllib.request

_SIOCGIFADDR = 0x8915
_CONTAINERS = ("docker", "br-", "veth", "virbr", "cni", "podman", "lxcbr")
_SOMEWHERE = ("192.0.2.1", 9)  # set aside for documentation; nothing is sent there


def resolve(name: str) -> int:
    if name == "localhost":  # so by definition, whatever /etc/hosts says
        print("127.0.0.1")
        return 0
    try:
        found = [info[4][0] for info in socket.getaddrinfo(name.strip("[]"), None, type=socket.SOCK_STREAM)]
    except OSError as error:
        print(f"{name} does not resolve: {error.strerror}", file=sys.stderr)
        return 1
    print(next((address for address in found if ":" not in address), found[0]))
    return 0


def own() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_SOMEWHERE)  # a UDP socket sends nothing by that: the kernel only chooses the way
            print(probe.getsockname()[0])
            return 0
        except OSError:  # no default route: any address of an interface then
            pass
        for _, name in socket.if_nameindex():
            if name == "lo" or name.startswith(_CONTAINERS):
                continue
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue
            print(socket.inet_ntoa(answer[20:24]))
            return 0
    print("no address but loopback", file=sys.stderr)
    return 1


def mine(address: str) -> int:
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return 1
    return 0


def wait(seconds: float, urls: list[str]) -> int:
    deadline = time.monotonic() + seconds
    problem = ""
    for url in urls:
        while problem := _problem(url):
            if time.monotonic() > deadline:
                print(f"{url}: {problem}", file=sys.stderr)
                return 1
            time.sleep(0.1)
    return 0


def _problem(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # hosts of one's own are asked directly
    try:
        with opener.open(url, timeout=5):
            return ""
    except urllib.error.URLError as error:
        return str(error.reason)
    except OSError as error:
        return str(error)


def reach(host: str, ports: list[str]) -> int:
    closed = 0
    for port in ports:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=3).close()
            said = "open"
        except TimeoutError:
            said = "no answer: a firewall drops it, or the host is not there"
        except OSError as error:
            said = f"{error.strerror or error}".lower()
        closed += said != "open"
        print(f"{host} {port} {said}")
    return 1 if closed else 0


def main(verb: str = "", *args: str) -> int:
    if verb == "resolve":
        return resolve(args[0])
    if verb == "own":
        return own()
    if verb == "mine":
        return mine(args[0])
    if verb == "wait":
        return wait(float(args[0]), list(args[1:]))
    if verb == "reach":
        return reach(args[0], list(args[1:]))
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
