"""Messages <-> frames: the protobuf of the peer wire (docs/wire.md, "Messages").

The schema is a table here, built into message classes at import by the protobuf library, so that no generated file and
no compiler is needed. Fields which we do not know are ignored; everything that we do read is checked here once, so that
the rest of the house sees only plausible values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from krakentx.core.bitfield import Bitfield
from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput, LocalProtocolError, RemoteProtocolError
from krakentx.core.metainfo import MAX_PIECES
from krakentx.core.peer import InfoHash, PeerID, check_zone
from krakentx.wire.framing import MAX_FRAME
from krakentx.wire.messages import (
    AnnouncePiece,
    CancelPiece,
    Complete,
    Handshake,
    Message,
    PieceChunk,
    PieceError,
    PiecePayload,
    PieceRequest,
    Unknown,
)

_BITFIELD, _REQUEST, _PAYLOAD, _ANNOUNCE, _CANCEL, _ERROR, _COMPLETE = range(7)
_CONTINUE = 100

# Name of the field: its number and kind; `*` marks a repeated one. Numbers from 100 on are ours, the reference skips
# them. A map is on the wire what a repeated entry is, and as such we say in which order its entries go.
_SCHEMA = {
    "Message": {
        "type": (2, "int32"),
        "bitfield": (3, "Bitfield"),
        "request": (4, "Chunk"),
        "payload": (5, "Chunk"),
        "announce": (6, "Index"),
        "cancel": (7, "Index"),
        "error": (8, "Error"),
        "next": (100, "Next"),
    },
    "Bitfield": {
        "info_hash": (2, "string"),
        "name": (3, "string"),
        "peer_id": (4, "string"),
        "bits": (5, "bytes"),
        "namespace": (6, "string"),
        "neighbours": (7, "*Neighbour"),
        "features": (100, "*string"),
        "zone": (101, "string"),
    },
    "Neighbour": {"peer_id": (1, "string"), "bits": (2, "bytes")},
    "Chunk": {"index": (2, "int32"), "offset": (3, "int32"), "length": (4, "int32"), "now": (100, "int32")},
    "Next": {"length": (1, "int32")},
    "Index": {"index": (2, "int32")},
    "Error": {"text": (2, "string"), "index": (3, "int32"), "code": (4, "int32")},
}


def _build() -> dict[str, Any]:
    """Message classes by name, in a pool of their own."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="krakentx/wire.proto", package="krakentx", syntax="proto3")
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            label = field.LABEL_REPEATED if kind.startswith("*") else field.LABEL_OPTIONAL
            kind = kind.lstrip("*")
            if kind in _SCHEMA:
                message.field.add(
                    name=field_name,
                    number=number,
                    label=label,
                    type=field.TYPE_MESSAGE,
                    type_name=f".krakentx.{kind}",
                )
            else:
                scalar = field.Type.Value(f"TYPE_{kind.upper()}")
                message.field.add(name=field_name, number=number, label=label, type=scalar)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"krakentx.{name}")) for name in _SCHEMA}


# The classes are made at run time: their fields are out of a type checker's sight.
_classes = _build()
_Message, _Bitfield, _Neighbour = _classes["Message"], _classes["Bitfield"], _classes["Neighbour"]
_Chunk, _Index, _Error, _Next = _classes["Chunk"], _classes["Index"], _classes["Error"], _classes["Next"]

_NO_BITS = Bitfield(0).to_wire()


def encode(message: Message) -> bytes:
    """The frame of a message, its length in front; the raw bytes of a `PiecePayload` are the caller's to append.

    Neighbours are a hint: those that would make a handshake too long for a frame are left out, the greatest ids first.

    Raises:
        LocalProtocolError: it cannot be written: `Unknown`, a number out of range, or longer than a frame may be.
    """
    write = _WRITERS.get(type(message))
    if write is None:
        raise LocalProtocolError(f"{message} is not for sending")
    try:
        body: bytes = write(message).SerializeToString()
    except ValueError as error:  # a number or a text that protobuf cannot hold
        raise LocalProtocolError(f"{message} cannot be written: {error}") from error
    if len(body) > MAX_FRAME:
        raise LocalProtocolError(f"{type(message).__name__} of {len(body)} bytes, at most {MAX_FRAME} allowed")
    return len(body).to_bytes(4, "big") + body


def decode(frame: bytes) -> Message:
    """The message of a frame (without its length).

    Raises:
        RemoteProtocolError: not protobuf, a body that its type needs is missing, or a value that cannot be.
    """
    try:
        raw = _Message.FromString(frame)
    except DecodeError as error:
        raise RemoteProtocolError(f"frame of {len(frame)} bytes is no message of the peer wire") from error
    read = _READERS.get(raw.type)
    if read is None:
        return Unknown(raw.type)
    try:
        return read(raw)
    except InvalidInput as error:
        raise RemoteProtocolError(str(error)) from error


def _write_handshake(message: Handshake) -> Any:
    body = _Bitfield(
        info_hash=str(message.info_hash),
        name=message.digest.hex,
        peer_id=str(message.peer_id),
        bits=message.bitfield.to_wire(),
        namespace=message.namespace,
        features=sorted(message.features),
        zone=message.zone,
    )
    whole = _Message(type=_BITFIELD, bitfield=body)
    # The reference sends the bitfields of its neighbours empty, whatever they have; only the ids tell something.
    entries = [_Neighbour(peer_id=str(peer), bits=_NO_BITS) for peer in sorted(message.neighbours)]
    if entries:
        entry_size = entries[0].ByteSize() + 2  # tag and length
        room = MAX_FRAME - whole.ByteSize() - 2  # the body's own length may grow to three bytes
        whole.bitfield.neighbours.extend(entries[: max(0, room // entry_size)])
    return whole


def _write_payload(message: PiecePayload) -> Any:
    body = _Chunk(index=message.index, offset=message.offset, length=message.length, now=message.chunk)
    return _Message(type=_PAYLOAD, payload=body)


def _write_complete(_message: Complete) -> Any:
    return _Message(type=_COMPLETE)


_WRITERS: dict[type[Message], Callable[[Any], Any]] = {
    Handshake: _write_handshake,
    PieceRequest: lambda m: _Message(type=_REQUEST, request=_Chunk(index=m.index, offset=m.offset, length=m.length)),
    PiecePayload: _write_payload,
    PieceChunk: lambda m: _Message(type=_CONTINUE, next=_Next(length=m.length)),
    AnnouncePiece: lambda m: _Message(type=_ANNOUNCE, announce=_Index(index=m.index)),
    CancelPiece: lambda m: _Message(type=_CANCEL, cancel=_Index(index=m.index)),
    PieceError: lambda m: _Message(type=_ERROR, error=_Error(index=m.index, text=m.error)),
    Complete: _write_complete,
}


def _body(raw: Any, name: str) -> Any:
    """The part of a message that its type asks for."""
    if not raw.HasField(name):
        raise RemoteProtocolError(f"message of type {raw.type} lacks its {name}")
    return getattr(raw, name)


def _natural(value: int, what: str) -> int:
    if value < 0:
        raise RemoteProtocolError(f"{what} is {value}")
    return value


def _read_handshake(raw: Any) -> Message:
    body = _body(raw, "bitfield")
    for entry in body.neighbours:
        Bitfield.from_wire(entry.bits, MAX_PIECES)
    return Handshake(
        peer_id=PeerID.parse(body.peer_id),
        digest=Digest.from_hex(body.name),
        info_hash=InfoHash.parse(body.info_hash),
        bitfield=Bitfield.from_wire(body.bits, MAX_PIECES),
        namespace=body.namespace,
        neighbours=frozenset(PeerID.parse(entry.peer_id) for entry in body.neighbours),
        features=frozenset(body.features),
        zone=check_zone(body.zone),
    )


def _read_chunk(body: Any) -> tuple[int, int, int]:
    return _natural(body.index, "index"), _natural(body.offset, "offset"), _natural(body.length, "length")


def _read_payload(raw: Any) -> Message:
    body = _body(raw, "payload")
    return PiecePayload(*_read_chunk(body), _natural(body.now, "chunk"))


def _read_index(body: Any) -> int:
    return _natural(body.index, "index")


def _read_error(raw: Any) -> Message:
    body = _body(raw, "error")
    # Codes other than 0 mean nothing to the reference either: as good as a type that we do not know.
    return PieceError(_natural(body.index, "index"), body.text) if body.code == 0 else Unknown(_ERROR)


_READERS: dict[int, Callable[[Any], Message]] = {
    _BITFIELD: _read_handshake,
    _REQUEST: lambda raw: PieceRequest(*_read_chunk(_body(raw, "request"))),
    _PAYLOAD: _read_payload,
    _CONTINUE: lambda raw: PieceChunk(_natural(_body(raw, "next").length, "chunk")),
    _ANNOUNCE: lambda raw: AnnouncePiece(_read_index(_body(raw, "announce"))),
    _CANCEL: lambda raw: CancelPiece(_read_index(_body(raw, "cancel"))),
    _ERROR: _read_error,
    _COMPLETE: lambda raw: Complete(),
}
