"""The yardstick: what plain blocking sockets cost for the same bytes, with nothing around them.

sendfile -> recv_into -> crc32 -> pwrite over loopback, plus one sha256 of the blob: what no implementation in this
language can do without. Two processes, as a seeder and a leecher are.
"""

from __future__ import annotations

import hashlib
import os
import resource
import socket
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from isal.isal_zlib import crc32

_READ = 1 << 20


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _send(path: str, port: int, results: Any) -> None:
    began = _cpu_s()
    with open(path, "rb") as file, socket.create_connection(("127.0.0.1", port)) as sock:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at < size:
            at += os.sendfile(sock.fileno(), file.fileno(), at, min(_READ, size - at))
    results.put(_cpu_s() - began)


def _receive(listener: socket.socket, path: str, size: int, piece: int, results: Any) -> None:
    began = _cpu_s()
    scratch = memoryview(bytearray(_READ))
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    sock, _ = listener.accept()
    at, sums = 0, []
    while at < size:
        crc, end = 0, min(at + piece, size)
        while at < end:
            count = sock.recv_into(scratch, min(_READ, end - at))
            if not count:
                sys.exit("the sender is gone")
            view = scratch[:count]
            crc = crc32(view, crc)
            at += os.pwrite(fd, view, at)
        sums.append(crc)
    total, at = hashlib.sha256(), 0
    while at < size:
        count = os.preadv(fd, [scratch], at)
        total.update(scratch[:count])
        at += count
    os.close(fd)
    results.put(_cpu_s() - began)


def measure(source: Path, folder: Path, piece: int = 4 << 20) -> dict[str, float]:
    """Send `source` once and receive it into `folder`.

    Returns:
        `wall_s`, and `cpu_s_per_gib` of both processes together.
    """
    context = get_context("fork")
    results = context.Queue()
    size = source.stat().st_size
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        began = time.monotonic()
        ends = [
            context.Process(target=_receive, args=(listener, str(folder / "raw"), size, piece, results)),
            context.Process(target=_send, args=(str(source), port, results)),
        ]
        for end in ends:
            end.start()
        cpu_s = sum(results.get(timeout=120) for _ in ends)
        for end in ends:
            end.join(10)
        wall_s = time.monotonic() - began
    (folder / "raw").unlink()
    return {"wall_s": wall_s, "cpu_s_per_gib": cpu_s * (1 << 30) / size}
