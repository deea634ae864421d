"""What goes wrong, and how a piece fares."""

from __future__ import annotations

from enum import Enum, auto

from attrs import frozen

from krakentx.core.peer import InfoHash


@frozen
class Faults:
    """Probabilities (per host, per piece, per announce), and times in seconds.

    Deaths, blackouts and restarts happen at some moment of the first `window_s`.
    """

    host_death: float = 0.0  # a host falls silent for good
    origin_death: float = 0.0  # the same for an origin
    blackout: float = 0.0  # a host's network is away for `blackout_s`; what was sent comes later
    restart: float = 0.0  # a process ends and comes back after `restart_s` with the pieces that it had
    stall: float = 0.0  # a piece stops half-way and the connection says no more
    reset: float = 0.0  # a connection is reset while a piece is under way
    mute: float = 0.0  # a host takes requests and never answers
    liar: float = 0.0  # a host sends wrong bytes in `lie` of its pieces
    lie: float = 0.3
    forger: float = 0.0  # a host sends wrong bytes that fit the piece sum, in `lie` of its pieces
    tracker_down_s: tuple[float, float] = (0.0, 0.0)
    announce_loss: float = 0.0
    http_down: bool = False
    window_s: float = 1.0
    blackout_s: float = 1.0
    restart_s: float = 1.0


class StrongSums(Enum):
    """Who knows the strong sums of pieces."""

    ALWAYS = "always"  # every agent, from the metainfo
    LATE = "late"  # the origins: an agent whose blob turns out corrupt asks one of them
    NEVER = "never"


class Fate(Enum):
    """What becomes of a piece on its way."""

    ARRIVES = auto()
    STALLS = auto()
    RESETS = auto()


@frozen
class Parcel:
    """One piece on its way. The model carries no bytes, only whether they are right.

    Args:
        good: they match the CRC-32 of the piece.
        right: they are those of the blob.
        forged: by who sends them; one that passes on what it believes forges nothing.
    """

    torrent: InfoHash
    piece: int
    size: int
    good: bool
    right: bool
    forged: bool
    fate: Fate
