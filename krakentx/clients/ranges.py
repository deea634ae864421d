"""Bytes [start, stop) of a blob from any HTTP server, whether or not it understands Range."""

from __future__ import annotations

import re
from collections.abc import Awaitable

from attrs import define, field

from krakentx.core.digest import Digest
from krakentx.core.errors import NotFound, Pending, Unavailable
from krakentx.web.client import HttpClient, Receive, Response

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)


class Enough(Exception):
    """Not an error: everything that was asked for has come, so the rest of the answer is cut off."""


@define
class _Window:
    """Passes on the wanted part of what comes."""

    host: str
    start: int
    stop: int | None
    receive: Receive
    at: int = field(default=0, init=False)  # offset in the blob of the next byte that comes
    got: int = field(init=False)  # offset in the blob of the next byte to pass on

    def __attrs_post_init__(self) -> None:
        self.got = self.start

    def began(self, response: Response) -> None:
        """Find out at which offset the answer begins."""
        if response.status == 206:
            match = _CONTENT_RANGE.fullmatch((response.header("Content-Range") or "").strip())
            if match is None:
                raise Unavailable(self.host, "sent a part without saying which")
            self.at = int(match[1])
            if self.at > self.got:
                raise Unavailable(self.host, f"sent bytes from {self.at}, asked for {self.got}")

    def add(self, data: bytes) -> Awaitable[None] | None:
        """Take what comes next. Raises: Enough: nothing more is wanted."""
        if self.stop is not None and self.got >= self.stop:
            raise Enough
        first = max(0, self.got - self.at)
        last = len(data) if self.stop is None else min(len(data), self.stop - self.at)
        self.at += len(data)
        if last <= first:
            return None
        self.got += last - first
        return self.receive(data[first:last] if last - first < len(data) else data)


async def download_range(
    http: HttpClient,
    host: str,
    url: str,
    digest: Digest,
    start: int,
    stop: int | None,
    receive: Receive,
    stall_s: float,
    headers: dict[str, str] | None = None,
) -> None:
    """Hand on bytes [start, stop) in order; `stop` None means to the end.

    Args:
        receive: may return an awaitable: no more is read until that is done.
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
        await http.download(url, window.add, headers=sent, stall_s=stall_s, ok=(200, 206), began=window.began)
    except Enough:
        return
    except Unavailable as error:
        if error.status == 404:
            raise NotFound("blob", digest) from error
        if error.status == 202:
            raise Pending(f"{host} is fetching {digest}") from error
        raise
    if stop is not None and window.got < stop:
        raise Unavailable(host, f"the answer ended at byte {window.got} of {stop}")
