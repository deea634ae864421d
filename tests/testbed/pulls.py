"""Pulls by hosts of the testbed, watched while they run."""

from __future__ import annotations

import hashlib
import http.client
import threading
import time
from pathlib import Path

from attrs import frozen

from tests.bench import client
from tests.bench.blobs import Blob, make
from tests.testbed.daemons import PROXY, REGISTRY
from tests.testbed.hosts import Host

NAMESPACE = "team/app"
_READ = 1 << 17
_POLL_S = 0.02


class PullFailed(AssertionError):
    """It ended with another status, too few bytes or wrong ones."""


@frozen
class Pulled:
    """How an answer came; times in seconds since the question.

    Args:
        longest_gap_s: the longest time in which nothing came, the wait for the first byte included.
    """

    status: int
    size: int
    sha256: str
    first_byte_s: float
    longest_gap_s: float
    total_s: float
    head: dict[str, str]
    start_of_body: bytes


class Pull(threading.Thread):
    """One request of a host, at work from the moment it is made.

    Args:
        address: whom it asks; its own agent unless told otherwise.
        silence_s: it fails when nothing comes for so long.
    """

    def __init__(
        self,
        host: Host,
        path: str,
        *,
        method: str = "GET",
        address: str = "127.0.0.1",
        port: int = REGISTRY,
        silence_s: float = 60.0,
    ) -> None:
        super().__init__(daemon=True, name=f"pull by {host.name}")
        self.host = host
        self.received = 0
        self._request = (method, path)
        self._where = (address, port)
        self._silence_s = silence_s
        self._outcome: Pulled | Exception | None = None
        self.start()

    def run(self) -> None:
        """Called by threading."""
        try:
            with self.host.inside():
                self._outcome = self._pull()
        except (OSError, http.client.HTTPException) as error:
            self._outcome = error

    def _pull(self) -> Pulled:
        began = last = time.monotonic()
        longest, first, hasher, start = 0.0, 0.0, hashlib.sha256(), b""
        connection = http.client.HTTPConnection(*self._where, timeout=self._silence_s)
        try:
            connection.request(*self._request)
            answer = connection.getresponse()
            while data := answer.read1(_READ):
                now = time.monotonic()
                longest, last, first = max(longest, now - last), now, first or now - began
                self.received += len(data)
                hasher.update(data)
                start = start or data[:2000]
        finally:
            connection.close()
        now = time.monotonic()
        head = {name.lower(): value for name, value in answer.getheaders()}
        if self._request[0] != "HEAD" and int(head.get("content-length", 0)) != self.received:
            raise http.client.IncompleteRead(b"", int(head["content-length"]) - self.received)
        return Pulled(
            answer.status, self.received, hasher.hexdigest(), first, max(longest, now - last), now - began, head, start
        )

    def reach(self, size: int, limit_s: float = 30.0) -> None:
        """Wait until so many bytes have come."""
        deadline = time.monotonic() + limit_s
        while self.received < size:
            if self._outcome is not None or time.monotonic() > deadline:
                raise PullFailed(f"{self.name}: only {self.received} of {size} bytes came: {self._outcome}")
            time.sleep(_POLL_S)

    def result(self, limit_s: float = 90.0) -> Pulled:
        """Wait for the answer, whatever it says.

        Raises:
            PullFailed: there was none, or not the whole of it.
        """
        self.join(limit_s)
        if not isinstance(self._outcome, Pulled):
            raise PullFailed(f"{self.name}: {self._outcome!r} after {self.received} bytes")
        return self._outcome

    def right(self, blob: Blob, limit_s: float = 90.0) -> Pulled:
        """Wait for the answer, which must be that blob.

        Raises:
            PullFailed
        """
        pulled = self.result(limit_s)
        if (pulled.status, pulled.size, pulled.sha256) != (200, blob.size, blob.hex):
            raise PullFailed(f"{self.name}: status {pulled.status}, {pulled.size} bytes: {pulled.start_of_body!r}")
        return pulled


def blob_path(blob: Blob) -> str:
    """Where a registry has it."""
    return f"/v2/{NAMESPACE}/blobs/{blob.digest}"


def pull(host: Host, blob: Blob) -> Pull:
    """Begin to pull a blob through the host's own agent."""
    return Pull(host, blob_path(blob))


def push(host: Host, folder: Path, size: int) -> Blob:
    """Make a blob and push it to the herd on that host."""
    blob = make(folder / "blob", size)
    with host.inside():
        client.push(PROXY, NAMESPACE, blob.path, blob.digest)
    return blob
