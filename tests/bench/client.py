"""What the benchmark asks over HTTP: small questions, a pull that throws the bytes away, a push from a file."""

from __future__ import annotations

import http.client
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

from attrs import frozen

_TIMEOUT_S = 120.0
_READ = 1 << 20


class Refused(Exception):
    """An answer that is not what the benchmark can go on with."""


def ask(port: int, method: str, path: str, headers: dict[str, str] | None = None) -> bytes:
    """One question on a connection of its own; returns the body of a good answer.

    Raises:
        Refused
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status >= 300:
        raise Refused(f"{method} {path} at port {port}: {answer.status} {body[:300]!r}")
    return body


def numbers(port: int) -> dict[str, float]:
    """The metrics of a component: name without labels and `_total` -> sum over its labels."""
    sums: dict[str, float] = {}
    for line in ask(port, "GET", "/metrics").decode().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0].removesuffix("_total")
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def ask_first_byte(port: int, path: str) -> socket.socket:
    """Ask for the first byte of a blob, and leave the answer in the socket for `check_first_byte`."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nRange: bytes=0-0\r\nConnection: close\r\n\r\n".encode())
    return sock


def check_first_byte(sock: socket.socket) -> None:
    """Raises: Refused: it was not sent."""
    answer = sock.recv(1 << 16)
    if b" 206 " not in answer.partition(b"\r\n")[0]:
        raise Refused(f"asked for the first byte, got {answer[:300]!r}")


@frozen
class Pulled:
    """Seconds since the request was sent."""

    first_byte_s: float
    total_s: float


def pull(port: int, path: str, size: int) -> Pulled:
    """GET `size` bytes and throw them away.

    Raises:
        Refused: another status, or fewer bytes.
    """
    scratch = memoryview(bytearray(_READ))
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = sock.recv(1 << 16)
            if not data:
                raise Refused(f"GET {path}: hung up after {head!r}")
            head += data
        head, _, rest = head.partition(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise Refused(f"GET {path} at port {port}: {head[:300]!r} {rest[:300]!r}")
        got, first_byte_s = len(rest), time.monotonic() - began
        while got < size:
            count = sock.recv_into(scratch)
            if not got:
                first_byte_s = time.monotonic() - began
            if not count:
                raise Refused(f"GET {path}: cut after {got} of {size} bytes")
            got += count
    return Pulled(first_byte_s, time.monotonic() - began)


def push(port: int, repo: str, source: Path, digest: str) -> float:
    """Push one blob as docker does: POST, PATCH with all bytes, PUT. Returns the seconds from first to last.

    Raises:
        Refused
    """
    began = time.monotonic()
    location = _step(port, "POST", f"/v2/{repo}/blobs/uploads/", 202)
    with source.open("rb") as file:
        location = _step(port, "PATCH", location, 202, file=file, size=source.stat().st_size)
    _step(port, "PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", 201)
    return time.monotonic() - began


def _step(port: int, method: str, target: str, wanted: int, file: object = None, size: int = 0) -> str:
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Length: {size}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as sock:
        sock.sendall(head.encode())
        if file is not None:
            sock.sendfile(file)  # type: ignore[arg-type]
        answer = http.client.HTTPResponse(sock, method=method)
        answer.begin()
        body = answer.read()
        if answer.status != wanted:
            raise Refused(f"{method} {target}: {answer.status} {body[:300]!r}")
        parts = urlsplit(answer.headers.get("Location", ""))
    return parts.path + (f"?{parts.query}" if parts.query else "")
