"""Framer: a stream of bytes -> length-prefixed frames and raw payload runs (docs/wire.md, "Frames").

The framer knows lengths only; what a frame means is for `codec` to say. Its owner feeds what came from the socket and
takes frames until there is none. When a frame turns out to announce raw bytes, the owner says how many with
`begin_payload`; from then on no frame comes out until those bytes are gone. They leave by two doors, in this order:
`take_payload_prefix` hands over what was read from the socket together with the header, and `payload_passed` counts
what a transport then read from the socket straight into a file, past the framer. So a piece of any size passes without
being held here, and memory stays bounded by one frame and one read.
"""

from __future__ import annotations

from krakentx.core.errors import LocalProtocolError, RemoteProtocolError

MAX_FRAME = 32768
"""Bytes of the largest frame that the reference reads, without the four bytes of its length."""

MAX_BUFFERED = 1 << 20
"""Bytes that an owner may feed without taking them out again; more is a bug of ours, not of the peer."""

_PREFIX = 4


class Framer:
    """Splits one connection's incoming bytes.

    Args:
        max_frame: bytes; a longer frame is refused on sight of its length.
    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._max_frame = max_frame
        self._buffer = bytearray()
        self._at = 0
        self._payload_left = 0

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not yet taken."""
        return len(self._buffer) - self._at

    @property
    def frame_left(self) -> int:
        """Bytes that are still needed to see the next frame, or its length; 0 = none, or payload has to pass first."""
        if self._payload_left:
            return 0
        missing = _PREFIX - self.buffered
        if missing > 0:
            return missing
        return max(0, self._size() - self.buffered + _PREFIX)

    def _size(self) -> int:
        return int.from_bytes(self._buffer[self._at : self._at + _PREFIX], "big")

    @property
    def payload_left(self) -> int:
        """Raw bytes that must still pass before the next frame; those in the buffer are counted too."""
        return self._payload_left

    def feed(self, data: bytes | memoryview) -> None:
        """Add bytes from the socket.

        Raises:
            LocalProtocolError: frames and payload were not taken out in between.
        """
        if self.buffered + len(data) > MAX_BUFFERED:
            raise LocalProtocolError(f"{self.buffered} bytes were fed to the framer and not taken")
        # What was taken is dropped here, once for each read, and not once for each frame.
        del self._buffer[: self._at]
        self._at = 0
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """The next whole frame without its length; None when more bytes are needed or payload has to pass first.

        Raises:
            RemoteProtocolError: the frame is longer than allowed. The framer stays at this frame for ever.
        """
        if self._payload_left or self.buffered < _PREFIX:
            return None
        start = self._at + _PREFIX
        size = self._size()
        if size > self._max_frame:
            raise RemoteProtocolError(f"frame of {size} bytes, at most {self._max_frame} allowed")
        end = start + size
        if end > len(self._buffer):
            return None
        self._at = end
        return bytes(self._buffer[start:end])

    def begin_payload(self, length: int) -> None:
        """The frame just taken announces `length` raw bytes."""
        if self._payload_left:
            raise LocalProtocolError(f"{self._payload_left} bytes of another payload have not passed yet")
        self._payload_left = length

    def take_payload_prefix(self, limit: int | None = None) -> bytes:
        """The payload's next bytes that are here already, at most `limit` of them; empty when none are."""
        size = min(self._payload_left, self.buffered)
        if limit is not None:
            size = min(size, limit)
        start = self._at
        self._at += size
        self._payload_left -= size
        return bytes(self._buffer[start : self._at])

    def payload_passed(self, count: int) -> None:
        """`count` bytes of the payload were read from the socket past the framer.

        Raises:
            LocalProtocolError: bytes that came earlier still wait in the buffer, or it is more than the payload.
        """
        if self.buffered or count > self._payload_left:
            raise LocalProtocolError(
                f"{count} bytes were read past {self.buffered} buffered ones, {self._payload_left} were due"
            )
        self._payload_left -= count
