"""The sha256 of a blob, which the agent computes while the blob arrives."""

from __future__ import annotations

from collections.abc import Container

from attrs import define

from krakentx.core.metainfo import MetaInfo


@define
class PrefixHash:
    """Hashes from the first piece on, as far as pieces are there without a gap: so what is left at the end hangs on
    where the last gap was.

    Args:
        rate: bytes per second.
    """

    rate: float
    _next: int = 0
    _done_at: float = 0.0

    def extend(self, pieces: Container[int], meta: MetaInfo, now: float) -> None:
        """These pieces are there now."""
        while self._next in pieces:
            self._done_at = max(self._done_at, now) + meta.piece_size(self._next) / self.rate
            self._next += 1

    def left_s(self, now: float) -> float:
        """How long until all is hashed that could be."""
        return max(0.0, self._done_at - now)
