"""One class per message of the peer wire (docs/wire.md).

Values here are already plausible: indices and lengths are not negative, ids have their length. Whether an index
exists in the torrent is for the Engine to say, which knows the metainfo.
"""

from __future__ import annotations

from krakentx.core.bitfield import Bitfield
from krakentx.core.digest import Digest
from krakentx.core.peer import InfoHash, PeerID
from krakentx.core.value import value

CANCEL = "cancel"
"""Feature: a peer that drops a queued upload when it gets CANCEL_PIECE."""
CHUNKS = "chunks"
"""Feature: a peer that takes messages between the chunks of a piece."""


@value
class Handshake:
    """BITFIELD: the first message in either direction, and legal nowhere else.

    `namespace` is set by the dialer only. `neighbours` are the peers that the sender is connected to for this torrent.
    `features` and `zone`, where the sender stands, are KrakenTX extensions (unknown protobuf fields >= 100), empty from
    the reference.
    """

    peer_id: PeerID
    digest: Digest
    info_hash: InfoHash
    bitfield: Bitfield
    namespace: str = ""
    neighbours: frozenset[PeerID] = frozenset()
    features: frozenset[str] = frozenset()
    zone: str = ""


@value
class PieceRequest:
    """Asks for one whole piece: offset 0, length of that very piece."""

    index: int
    offset: int
    length: int


@value
class PiecePayload:
    """Header of a piece of `length` raw bytes.

    They follow it on the wire all at once, or the first `chunk` of them when that is not 0.
    """

    index: int
    offset: int
    length: int
    chunk: int = 0


@value
class PieceChunk:
    """The next `length` raw bytes of the piece under way follow. Only to peers with the feature `chunks`."""

    length: int


@value
class AnnouncePiece:
    """The sender now has this piece."""

    index: int


@value
class CancelPiece:
    """The sender no longer wants this piece. The reference ignores it; our own peers drop a queued upload."""

    index: int


@value
class PieceError:
    """ERROR code 0: the request for this piece failed."""

    index: int
    error: str


@value
class Complete:
    """The sender has all pieces."""


@value
class Unknown:
    """A type that we do not know: logged, and the connection lives on."""

    type: int


Message = (
    Handshake | PieceRequest | PiecePayload | PieceChunk | AnnouncePiece | CancelPiece | PieceError | Complete | Unknown
)
