"""What was asked of whom: the in-flight table of one torrent."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar


class Holder(Protocol):
    """Of whom pieces are asked: a connection.

    Args:
        asked: pieces asked of it, and when; oldest first. Written here only.
        ours: it honours CANCEL.
    """

    asked: dict[int, float]
    ours: bool


H = TypeVar("H", bound=Holder)


class Requests(Generic[H]):
    """Pieces asked of connections; a piece may be asked of more than one.

    `asked` holds every piece with at least one request, `movable` those asked of a peer that honours CANCEL.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.movable = 0
        self._by_piece: dict[int, list[H]] = {}

    def __len__(self) -> int:
        return sum(len(holders) for holders in self._by_piece.values())

    def holders(self, piece: int) -> tuple[H, ...]:
        """The connections that were asked for a piece."""
        return tuple(self._by_piece.get(piece, ()))

    def add(self, holder: H, piece: int, now: float) -> None:
        """Remember a request."""
        holder.asked[piece] = now
        self._by_piece.setdefault(piece, []).append(holder)
        self.asked |= 1 << piece
        if holder.ours:
            self.movable |= 1 << piece

    def drop(self, holder: H, piece: int) -> bool:
        """Forget one request. False when there was none."""
        if holder.asked.pop(piece, None) is None:
            return False
        holders = self._by_piece[piece]
        holders.remove(holder)
        if not holders:
            del self._by_piece[piece]
            self.asked ^= 1 << piece
            self.movable &= ~(1 << piece)
        return True

    def release(self, holder: H) -> list[int]:
        """Forget all requests of a connection; returns their pieces."""
        pieces = list(holder.asked)
        for piece in pieces:
            self.drop(holder, piece)
        return pieces
