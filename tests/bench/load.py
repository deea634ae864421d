"""A load generator: keep-alive connections that ask, wait for the answer and ask again, in a process of its own.

Raw sockets and epoll, since a client library would cost more than the server under test. At most `in_flight` of the
connections have a question open at a time, and take turns, so that thousands of open connections can be measured
without thousands of questions in the queue.
"""

from __future__ import annotations

import resource
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from typing import Any

from attrs import astuple, define, frozen

from tests.bench import procs

_ANSWER_S = 30.0
_READ = 1 << 18


class LoadFailed(Exception):
    """The server answered something else than 200, or nothing."""


@frozen
class Load:
    """Args:
    requests: what is sent, one after the other and round again.
    connections: opened before the clock starts, and all kept open to the end.
    in_flight: questions open at a time.
    seconds: how long is measured, after `warm_s` that does not count.
    server_pid: whose CPU time is taken.
    """

    port: int
    server_pid: int
    requests: Sequence[bytes]
    connections: int
    in_flight: int
    seconds: float
    warm_s: float = 0.5


@frozen
class Answered:
    """What came of it. `cpu_us_each`: the server's, for one answer."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us_each: float


@define(eq=False)
class _Connection:
    sock: socket.socket
    asked: float = 0.0
    got: bytes = b""


def run(load: Load) -> Answered:
    """Put that load on, from another process.

    Raises:
        LoadFailed
    """
    context = get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(load, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(load.seconds + load.warm_s + 2 * _ANSWER_S):
            raise LoadFailed("the load generator does not end")
        result = ours.recv()
    except EOFError as error:
        raise LoadFailed("the load generator died") from error
    finally:
        process.kill()
        process.join()
    if isinstance(result, str):
        raise LoadFailed(result)
    return Answered(*result)


def _child(load: Load, results: Any) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        answer = _generate(load, time.perf_counter)
        results.send(astuple(answer))
    except (LoadFailed, OSError) as error:
        results.send(str(error))


def _generate(load: Load, clock: Callable[[], float]) -> Answered:
    epoll = select.epoll()
    waiting: deque[_Connection] = deque()
    by_fd: dict[int, _Connection] = {}
    for _ in range(load.connections):
        sock = socket.create_connection(("127.0.0.1", load.port), timeout=_ANSWER_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        by_fd[sock.fileno()] = _Connection(sock)
        epoll.register(sock, select.EPOLLIN)
    waiting.extend(by_fd.values())
    number, taken_s = 0, []

    def ask() -> None:
        nonlocal number
        connection = waiting.popleft()
        connection.asked = clock()
        connection.sock.sendall(load.requests[number % len(load.requests)])
        number += 1

    for _ in range(min(load.in_flight, load.connections)):
        ask()
    began, cpu_s = clock() + load.warm_s, 0.0
    end, now = began + load.seconds, clock()
    while now < end:
        if not cpu_s and now > began:
            cpu_s, began = procs.cpu_s([load.server_pid]), now
        events = epoll.poll(_ANSWER_S)
        if not events:
            raise LoadFailed(f"no answer for {_ANSWER_S:.0f} s")
        for fd, _ in events:
            connection = by_fd[fd]
            data = connection.sock.recv(_READ)
            if not data:
                raise LoadFailed("the server hung up")
            connection.got += data
            if _is_whole(connection.got):
                now = clock()
                if cpu_s:
                    taken_s.append(now - connection.asked)
                connection.got = b""
                waiting.append(connection)
                ask()
    if not taken_s:
        raise LoadFailed("not one answer")
    taken_s.sort()
    return Answered(
        per_s=len(taken_s) / (now - began),
        p50_ms=1000 * percentile(taken_s, 50),
        p99_ms=1000 * percentile(taken_s, 99),
        cpu_us_each=1e6 * (procs.cpu_s([load.server_pid]) - cpu_s) / len(taken_s),
    )


def _is_whole(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    if not head.startswith(b"HTTP/1.1 200"):
        raise LoadFailed(f"answered {answer[:200]!r}")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(body) >= int(value)
    raise LoadFailed("an answer without Content-Length")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of values in ascending order, by the nearest rank."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
