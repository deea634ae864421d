"""What the Engine is told. Every event is handled at one instant, `now` in monotonic seconds.

A connection is named by a `ConnID` which the Engine hands out (`Engine.new_conn()` for incoming ones, in `Dial` for
outgoing ones); it is never used again. One connection carries one torrent.
"""

from __future__ import annotations

from enum import Enum
from typing import NewType

from krakentx.core.bitfield import Bitfield
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import InfoHash, PeerInfo
from krakentx.core.value import value
from krakentx.wire.messages import (
    AnnouncePiece,
    CancelPiece,
    Complete,
    Handshake,
    PieceError,
    PiecePayload,
    PieceRequest,
)

ConnID = NewType("ConnID", int)
ReaderID = NewType("ReaderID", int)


class Lost(Enum):
    """Why a connection ended."""

    CLEAN = "closed by the remote"
    RESET = "connection reset"
    REFUSED = "connection refused"
    UNREACHABLE = "no route or name"
    TIMEOUT = "no answer in time"
    PROTOCOL = "broke the protocol"
    LOCAL = "closed by us"


class FetchProblem(Enum):
    """Why pieces did not come over HTTP."""

    UNAVAILABLE = "the source is down, refuses, or timed out"
    CORRUPT = "the bytes do not match the piece sum"
    NOT_FOUND = "the source does not have the blob"


@value
class TorrentAdded:
    """A blob to download (`wanted`), to seed, or to hold in part for others.

    With every piece there, `wanted` tells a partial blob that was never hashed as a whole (`VerifyBlob` follows; also
    for a blob of zero pieces) from one that lies in the cache. Adding a torrent that is there already only raises
    `wanted`, except that a complete one whose file has gone (`have` is not full) begins anew.
    """

    meta: MetaInfo
    have: Bitfield
    namespace: str
    wanted: bool


@value
class TorrentRemoved:
    """Forget it: connections are closed, nothing more is asked. `Failed` follows when it was wanted and incomplete."""

    torrent: InfoHash
    reason: str = "torrent manually removed"


@value
class PeersOffered:
    """The tracker's answer. Itself may be among the peers."""

    torrent: InfoHash
    peers: tuple[PeerInfo, ...]
    interval_s: float


@value
class AnnounceFailed:
    """No tracker answered, or none knows anybody."""

    torrent: InfoHash


@value
class DialSucceeded:
    """TCP is up for a `Dial`; the Engine answers with its handshake."""

    conn: ConnID


@value
class HandshakeReceived:
    """The first message came: a reply on an outgoing connection, or a request on an incoming one.

    For an incoming one the executor has looked for the torrent on disk first and added it, if it is there.
    """

    conn: ConnID
    handshake: Handshake


@value
class MessageReceived:
    """Any later message without a payload."""

    conn: ConnID
    message: PieceRequest | AnnouncePiece | CancelPiece | PieceError | Complete


@value
class PayloadOffered:
    """The header of a piece came and its bytes wait in the socket.

    The effects of this very event hold exactly one of `ReceivePiece`, `SkipPayload` and `Close` for this connection.
    """

    conn: ConnID
    payload: PiecePayload


@value
class PieceArrived:
    """A piece granted by `ReceivePiece` is on disk; `good` says whether its sum matches.

    It does not come for a connection that was lost or closed midway: then nothing of the piece counts.
    """

    conn: ConnID
    index: int
    good: bool


@value
class PieceProgress:
    """Some bytes of a granted piece came: the connection is alive. Sent at most a few times a second."""

    conn: ConnID


@value
class StorageFailed:
    """The disk refused a piece of this torrent (full, or an I/O error). The download cannot go on."""

    torrent: InfoHash
    reason: str


@value
class PieceSendBegan:
    """The first byte of a `SendPiece` left; it can no longer be cancelled."""

    conn: ConnID
    index: int


@value
class PieceSent:
    """The last byte of a `SendPiece` was handed to the kernel."""

    conn: ConnID
    index: int


@value
class PeerLost:
    """The connection is gone, or a dial failed. Comes once for every connection, also after `Close`."""

    conn: ConnID
    reason: Lost


@value
class ReaderWants:
    """A reader of the streamed blob stands before piece `start` and will want up to `stop` (exclusive).

    Sent anew whenever the reader moves on.
    """

    torrent: InfoHash
    reader: ReaderID
    start: int
    stop: int


@value
class ReaderGone:
    """The reader has all it wanted, or hung up."""

    torrent: InfoHash
    reader: ReaderID


@value
class PieceFetched:
    """One piece of a `FetchFromOrigin` is on disk and its sum matches.

    A piece that is not part of the fetch must not be written: a connection may be writing it.
    """

    torrent: InfoHash
    index: int


@value
class FetchEnded:
    """A `FetchFromOrigin` is over; pieces not reported by `PieceFetched` did not come. None = no problem."""

    torrent: InfoHash
    pieces: tuple[int, ...]
    problem: FetchProblem | None = None


@value
class BlobVerified:
    """`VerifyBlob`: the whole blob hashes to its name and is in the cache."""

    torrent: InfoHash


@value
class BlobCorrupt:
    """`VerifyBlob`: every piece sum matched, yet the blob does not hash to its name.

    Args:
        bad: the pieces that do not match their strong sums; None when nobody knows those, or when all do match.
    """

    torrent: InfoHash
    bad: Bitfield | None = None


@value
class Tick:
    """The time asked for by `WakeAt` has come. A tick too many does no harm.

    Args:
        sent: bytes of pieces that left over all connections since the process began.
    """

    sent: int


Event = (
    TorrentAdded
    | TorrentRemoved
    | PeersOffered
    | AnnounceFailed
    | DialSucceeded
    | HandshakeReceived
    | MessageReceived
    | PayloadOffered
    | PieceArrived
    | PieceProgress
    | StorageFailed
    | PieceSendBegan
    | PieceSent
    | PeerLost
    | ReaderWants
    | ReaderGone
    | PieceFetched
    | FetchEnded
    | BlobVerified
    | BlobCorrupt
    | Tick
)
