"""What the Engine wants done, in order. The executor (`peer.Scheduler`, or a model) decides nothing of its own."""

from __future__ import annotations

from krakentx.core.bitfield import Bitfield
from krakentx.core.peer import InfoHash, PeerID, PeerInfo
from krakentx.core.value import value
from krakentx.swarm.events import ConnID
from krakentx.wire.messages import (
    AnnouncePiece,
    CancelPiece,
    Complete,
    Handshake,
    PieceError,
    PieceRequest,
)


@value
class Announce:
    """Tell the tracker of this torrent and ask for peers; answer with `PeersOffered` or `AnnounceFailed`."""

    torrent: InfoHash
    complete: bool


@value
class Dial:
    """Open a connection; answer with `DialSucceeded` or `PeerLost` within `timeout_s`."""

    conn: ConnID
    torrent: InfoHash
    peer: PeerInfo
    timeout_s: float


@value
class Send:
    """Write one message."""

    conn: ConnID
    message: Handshake | PieceRequest | AnnouncePiece | CancelPiece | PieceError | Complete


@value
class SendPiece:
    """Queue the header and the bytes of one piece, straight from the file."""

    conn: ConnID
    torrent: InfoHash
    index: int


@value
class ReceivePiece:
    """Write the payload that was offered to its place in the partial blob; answer with `PieceArrived`.

    A piece has one writer at a time: it is never granted to two connections, nor to one while a fetch holds it.
    """

    conn: ConnID
    torrent: InfoHash
    index: int


@value
class SkipPayload:
    """Read the payload that was offered and drop it; no answer."""

    conn: ConnID


@value
class Close:
    """Close the connection; `PeerLost` with `Lost.LOCAL` follows.

    Nothing more is written to the partial blob for it, and no other event of it is delivered.
    """

    conn: ConnID
    reason: str


@value
class Ban:
    """For the log and the blacklist endpoint: the Engine will not use this peer for the torrent until then."""

    torrent: InfoHash
    peer: PeerID
    until: float
    reason: str


@value
class FetchFromOrigin:
    """Get these pieces (ascending) by HTTP Range from the fallback sources.

    Answer with `PieceFetched` for each that came, then one `FetchEnded` with the same tuple. While pieces come the
    Engine waits; the executor ends a fetch in which no byte came for `stall_s`.
    """

    torrent: InfoHash
    pieces: tuple[int, ...]
    stall_s: float


@value
class StopFetch:
    """Peers give again: end a `FetchFromOrigin` of these pieces. What has come of it stays; `FetchEnded` follows."""

    torrent: InfoHash
    pieces: tuple[int, ...]


@value
class VerifyBlob:
    """Every piece is there: hash the whole, move it into the cache.

    Answer with `BlobVerified`, `BlobCorrupt` (`DropPieces` follows) or `StorageFailed`.
    """

    torrent: InfoHash


@value
class DropPieces:
    """The blob was corrupt: these pieces count as missing again, on disk too; the others are believed."""

    torrent: InfoHash
    pieces: Bitfield


@value
class PieceReady:
    """A piece may be read by streaming readers and is to be remembered as verified on disk."""

    torrent: InfoHash
    index: int
    source: str  # "peer", "origin" or "http": for counters and the completion line


@value
class Finished:
    """The blob is complete and verified. Seeding goes on."""

    torrent: InfoHash


@value
class Failed:
    """The download cannot go on, or made no progress for too long; readers get an error.

    The Engine has forgotten the torrent: its files are closed, what is on disk stays. It may be added again.
    """

    torrent: InfoHash
    reason: str


@value
class Forget:
    """Nothing has happened to the torrent for a long time: close its files. It may be added again at any time."""

    torrent: InfoHash


@value
class WakeAt:
    """Send a `Tick` at this time. Replaces an earlier wish; at most one at the end of a list of effects."""

    when: float


Effect = (
    Announce
    | Dial
    | Send
    | SendPiece
    | ReceivePiece
    | SkipPayload
    | Close
    | Ban
    | FetchFromOrigin
    | StopFetch
    | VerifyBlob
    | DropPieces
    | PieceReady
    | Finished
    | Failed
    | Forget
    | WakeAt
)
