"""A load at its own pace: each connection asks again when its interval has passed, however busy the server is.

So a server that falls behind is seen to, which a load generator that waits for it would hide: the time of an answer
counts from when the question was due.
"""

from __future__ import annotations

import heapq
import resource
import select
import socket
import time
from collections.abc import Sequence

from attrs import define, field, frozen

from tests.bench.load import percentile

_ANSWER_S = 15.0  # as patient as an agent is
_READ = 1 << 16


@frozen
class Kept:
    """What came of it.

    Args:
        errors: questions without an answer in 15 s, or with another status than 200, and lost connections.
        late: questions that were not asked since the one before was still open; an agent waits for its answer too.
    """

    answers: int
    errors: int
    late: int
    p50_ms: float
    p99_ms: float
    max_ms: float


@define(eq=False)
class _Connection:
    number: int
    sock: socket.socket
    due: float
    waiting: bool = False
    got: bytearray = field(factory=bytearray)


def run(address: tuple[str, int], requests: Sequence[bytes], interval_s: float, seconds: float) -> Kept:
    """One connection for each request, which it sends every `interval_s`, spread evenly over that time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, len(requests) + 1000), hard))
    connections: list[_Connection] = []
    try:
        for number in range(len(requests)):
            sock = socket.create_connection(address, timeout=_ANSWER_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connections.append(_Connection(number, sock, 0.0))
        with select.epoll() as epoll:
            return _ask(epoll, connections, requests, interval_s, seconds)
    finally:
        for connection in connections:
            connection.sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _ask(
    epoll: select.epoll,
    connections: list[_Connection],
    requests: Sequence[bytes],
    interval_s: float,
    seconds: float,
) -> Kept:
    by_fd = {connection.sock.fileno(): connection for connection in connections}
    began = time.monotonic()
    for connection in connections:
        connection.due = began + interval_s * connection.number / len(connections)
        epoll.register(connection.sock, select.EPOLLIN)
    due = [(connection.due, connection.number) for connection in connections]
    heapq.heapify(due)
    end = began + seconds
    taken_s: list[float] = []
    errors = late = 0
    open_ = len(connections)
    while True:
        now = time.monotonic()
        while due and due[0][0] <= now and due[0][0] < end:
            at, number = heapq.heappop(due)
            connection = connections[number]
            if connection.waiting:
                late += 1
            else:
                connection.due, connection.waiting = at, True
                connection.sock.sendall(requests[number])
            heapq.heappush(due, (at + interval_s, number))
        waiting = sum(each.waiting for each in connections) if now >= end else open_
        if not waiting or now > end + _ANSWER_S:
            break
        for fd, _ in epoll.poll(0.05 if now >= end else max(0.0, min(0.05, due[0][0] - now)) if due else 0.05):
            connection = by_fd[fd]
            data = connection.sock.recv(_READ)
            if not data:
                errors += connection.waiting
                connection.waiting = False
                epoll.unregister(fd)
                due = [entry for entry in due if entry[1] != connection.number]
                heapq.heapify(due)
                open_ -= 1
                continue
            connection.got += data
            if _is_whole(connection.got):
                took_s = time.monotonic() - connection.due
                taken_s.append(took_s)
                errors += took_s > _ANSWER_S or not connection.got.startswith(b"HTTP/1.1 200")
                connection.got.clear()
                connection.waiting = False
    errors += sum(each.waiting for each in connections)
    taken_s.sort()
    return Kept(
        len(taken_s), errors, late, 1000 * percentile(taken_s, 50), 1000 * percentile(taken_s, 99), 1000 * taken_s[-1]
    )


def _is_whole(answer: bytearray) -> bool:
    head, found, body = bytes(answer).partition(b"\r\n\r\n")
    if not found:
        return False
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(body) >= int(value)
    return True
