"""Bytes [start, stop) of a blob from any HTTP server, whether or not it understands Range."""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import define, field
from twisted.web.http_headers import Headers

from krakentx.core.digest import Digest
from krakentx.core.errors import NotFound, Pending, Unavailable
from krakentx.web.client import HttpClient

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Enough(Exception):
    """Not an error: everything that was asked for has come, so the rest of the answer is cut off."""


@define
class _Window:
    """Passes on the wanted part of what comes."""

    host: str
    start: int
    stop: int | None
    receive: Callable[[bytes], None]
    at: int = field(default=0, init=False)  # offset in the blob of the next byte that comes
    got: int = field(init=False)  # offset in the blob of the next byte to pass on

    def __attrs_post_init__(self) -> None:
        self.got = self.start

    def begin(self, status: int, headers: Headers) -> None:
        """Find out at which offset the answer begins."""
        self.at = 0
        if status == 206:
            match = _CONTENT_RANGE.fullmatch(headers.getRawHeaders("Content-Range", [""])[0].strip())
            if match is None:
                raise Unavailable(self.host, "sent a part without saying which")
            self.at = int(match[1])
            if self.at > self.got:
                raise Unavailable(self.host, f"sent bytes from {self.at}, asked for {self.got}")

    def add(self, data: bytes) -> None:
        """Take what comes next. Raises: Enough: nothing more is wanted."""
        first = max(0, self.got - self.at)
        last = len(data) if self.stop is None else min(len(data), self.stop - self.at)
        self.at += len(data)
        if last > first:
            self.got += last - first
            self.receive(data[first:last] if last - first < len(data) else data)
        if self.stop is not None and self.at >= self.stop and last < len(data):
            raise Enough


async def download_range(
    http: HttpClient,
    host: str,
    url: str,
    digest: Digest,
    start: int,
    stop: int | None,
    receive: Callable[[bytes], None],
    stall_s: float,
    headers: dict[str, str] | None = None,
) -> None:
    """Hand on bytes [start, stop) in order; `stop` None means to the end.

    Args:
        headers: more of the request's headers.

    Raises:
        NotFound, Pending: as the status says.
        Unavailable: anything else; no byte for `stall_s`; the answer ended early.
    """
    if stop is not None and stop <= start:
        return
    window = _Window(host, start, stop, receive)
    sent = dict(headers or {})
    if start or stop is not None:
        sent["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
    try:
        response = await http.download(
            url, window.add, headers=sent, stall_s=stall_s, ok=(200, 202, 206, 404), begin=window.begin
        )
    except Enough:
        return
    if response.status == 404:
        raise NotFound("blob", digest)
    if response.status == 202:
        raise Pending(f"{host} is fetching {digest}")
    if stop is not None and window.got < stop:
        raise Unavailable(host, f"the answer ended at byte {window.got} of {stop}")
