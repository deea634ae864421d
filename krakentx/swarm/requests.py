"""What was asked of whom: the in-flight table of one torrent."""

from __future__ import annotations

from collections.abc import Mapping

from krakentx.swarm.events import ConnID

_NONE: Mapping[int, float] = {}


class Requests:
    """Pieces asked of connections; a piece may be asked of more than one.

    `asked` holds every piece with at least one request, `movable` those asked of a peer that honours CANCEL.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.movable = 0
        self._by_piece: dict[int, list[ConnID]] = {}
        self._by_conn: dict[ConnID, dict[int, float]] = {}

    def __len__(self) -> int:
        return sum(len(holders) for holders in self._by_piece.values())

    def of(self, conn: ConnID) -> Mapping[int, float]:
        """Pieces asked of a connection, and when; oldest first."""
        return self._by_conn.get(conn, _NONE)

    def holders(self, piece: int) -> tuple[ConnID, ...]:
        """The connections that were asked for a piece."""
        return tuple(self._by_piece.get(piece, ()))

    def add(self, conn: ConnID, piece: int, now: float, *, movable: bool) -> None:
        """Remember a request."""
        self._by_conn.setdefault(conn, {})[piece] = now
        self._by_piece.setdefault(piece, []).append(conn)
        self.asked |= 1 << piece
        if movable:
            self.movable |= 1 << piece

    def drop(self, conn: ConnID, piece: int) -> bool:
        """Forget one request. False when there was none."""
        mine = self._by_conn.get(conn)
        if mine is None or piece not in mine:
            return False
        del mine[piece]
        if not mine:
            del self._by_conn[conn]
        holders = self._by_piece[piece]
        holders.remove(conn)
        if not holders:
            del self._by_piece[piece]
            self.asked ^= 1 << piece
            self.movable &= ~(1 << piece)
        return True

    def release(self, conn: ConnID) -> list[int]:
        """Forget all requests of a connection; returns their pieces."""
        pieces = list(self.of(conn))
        for piece in pieces:
            self.drop(conn, piece)
        return pieces
