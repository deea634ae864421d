"""The `Range` header of a GET, and the `Content-Range` of an upload's chunk."""

from __future__ import annotations

import re

from attrs import frozen

from krakentx.core.errors import InvalidInput, RangeNotSatisfiable
from krakentx.core.metainfo import MAX_LENGTH

_ONE = re.compile(r"\s*bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.ASCII)
_CHUNK = re.compile(r"\s*(?:bytes\s+)?(\d{1,19})-(\d{1,19})(?:/(?:\d{1,19}|\*))?\s*", re.ASCII)


@frozen
class Range:
    """Bytes [start, stop) of something."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def parse_range(header: str | None, size: int) -> Range | None:
    """Which bytes of a blob of `size` bytes a `Range` header asks for; None when the whole is to be sent.

    The whole is sent for a missing or malformed header, another unit, and several ranges at once, all of which HTTP
    lets a server ignore. An end past the last byte is cut.

    Raises:
        RangeNotSatisfiable: it starts past the end, or ends before it starts (the distribution API wants that refused).
    """
    match = _ONE.fullmatch(header or "")
    if not match or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
    if start >= stop:
        raise RangeNotSatisfiable(size, f"range {header!r} is outside of the {size} bytes")
    return Range(start, stop)


def parse_chunk_range(header: str) -> Range:
    """Where a chunk of an upload belongs: `a-b` with an inclusive end, as the distribution API writes it.

    The form of HTTP, `bytes a-b/size`, is taken too.

    Raises:
        InvalidInput: (`upload`) anything else.
    """
    match = _CHUNK.fullmatch(header)
    if not match or not int(match[1]) <= int(match[2]) < MAX_LENGTH:
        raise InvalidInput("upload", f"Content-Range {header[:80]!r} is not of the form first-last")
    return Range(int(match[1]), int(match[2]) + 1)
