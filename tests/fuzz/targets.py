"""What is fuzzed: readers of what strangers send. Each takes any bytes, and raises nothing but a bug.

A target lets the errors pass that its reader names, and holds what was read against its own writer.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from krakentx.clients.tracker import decode_answer
from krakentx.core.bitfield import Bitfield
from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput, RangeNotSatisfiable, RemoteProtocolError
from krakentx.core.imagename import ImageName, check_repository, parse_reference, parse_tag, spellings
from krakentx.core.metainfo import MAX_PIECES, MetaInfo
from krakentx.core.peer import PeerContext, parse_address
from krakentx.registry.media import media_type_of, parse_manifest
from krakentx.registry.paths import parse_path
from krakentx.tracker.api import encode_hand_out, parse_announce
from krakentx.tracker.logic import HandOut
from krakentx.web.params import json_value
from krakentx.web.ranges import parse_chunk_range, parse_range
from krakentx.wire.codec import decode, encode
from krakentx.wire.framing import MAX_FRAME
from krakentx.wire.messages import Handshake, PiecePayload, Unknown
from krakentx.wire.session import Role, Session, State

_HASH = "3a" * 20


def wire(data: bytes) -> None:
    """Framer, codec and session together. The first byte says who reads and in how large parts."""
    if not data:
        return
    how, stream = data[0], data[1:]
    session = Session(Role.DIALER if how & 1 else Role.ACCEPTOR)
    session.state = (State.AWAITING if how & 1 else State.LISTENING) if how & 2 else State.ACTIVE
    step = (1, 7, 60, 4096)[how >> 3 & 3]
    past = bool(how & 4)  # payload goes past the session, as by `recv_into`
    at = 0
    try:
        while at < len(stream):
            if past and session.payload_left and not session.buffered:
                count = min(step, session.payload_left, len(stream) - at)
                session.payload_passed(count)
            else:
                count = step
                session.feed(stream[at : at + count])
            at += count
            session.take_payload_prefix()
            while (message := session.next_event()) is not None:
                _check(session, message)
                session.take_payload_prefix()
            assert session.buffered <= MAX_FRAME + 4
    except RemoteProtocolError:
        assert session.state is State.CLOSED
        assert session.next_event() is None


def _check(session: Session, message: object) -> None:
    if isinstance(message, PiecePayload):
        assert session.payload_left == message.length
    if isinstance(message, Handshake) and session.state is State.ANSWERING:
        session.send(message)
    if not isinstance(message, Unknown):
        again = decode(encode(message)[4:])
        assert again == message


def frame(data: bytes) -> None:
    """The codec by itself, so that no length has to be guessed."""
    try:
        message = decode(data)
    except RemoteProtocolError:
        return
    if not isinstance(message, Unknown) and len(data) <= MAX_FRAME // 2:
        assert decode(encode(message)[4:]) == message


def bitset(data: bytes) -> None:
    """Sets of pieces."""
    try:
        field = Bitfield.from_wire(data, MAX_PIECES)
    except InvalidInput:
        return
    out = field.to_wire()
    assert data.startswith(out)
    assert Bitfield.from_wire(out, field.size) == field
    assert sum(1 for _ in field) == len(field) <= field.size


def metainfo(data: bytes) -> None:
    """The JSON of metainfo."""
    try:
        meta = MetaInfo.from_json(data)
    except InvalidInput:
        return
    assert MetaInfo.from_json(meta.to_json()) == meta
    assert len(meta.info_hash) == 20
    assert sum(map(meta.piece_size, range(meta.piece_count))) == meta.length


def announce(data: bytes) -> None:
    """What goes to a tracker, in either version, and what a peer tells of itself."""
    for info_hash in (None, _HASH):
        try:
            told = parse_announce(data, info_hash)
        except InvalidInput:
            continue
        answer = decode_answer(encode_hand_out(HandOut((told.peer,), 3.0), "10.0.0.1"))
        assert answer.peers == (told.peer,)
    try:
        context = PeerContext.from_json(json_value(data))
    except InvalidInput:
        return
    assert PeerContext.from_json(context.to_json()) == context


def hand_out(data: bytes) -> None:
    """What comes from a tracker."""
    try:
        answer = decode_answer(data)
    except InvalidInput:
        return
    again = decode_answer(encode_hand_out(HandOut(answer.peers, answer.interval_s, answer.notice), "10.0.0.1"))
    assert again.peers == answer.peers


def names(data: bytes) -> None:
    """Names of images, references, paths of the registry, addresses."""
    text = data.decode("utf-8", "surrogateescape")
    _read(parse_reference, text)
    _read(parse_tag, text)
    _read(parse_address, text)
    name = _read(ImageName.parse, text)
    if name is not None:
        assert _read(ImageName.parse, str(name)) == name
    if _read(check_repository, text) is not None:
        assert spellings(text)[0] == text
    target = parse_path(text)
    assert target is None or text.startswith(target.repo)


def _read(reader: Callable[[str], object], text: str) -> object:
    try:
        return reader(text)
    except InvalidInput as error:
        str(error).encode()  # it goes into an answer
        return None


def manifest(data: bytes) -> None:
    """Manifests that are pushed."""
    media_type_of(data)
    try:
        found = parse_manifest(data, None)
    except InvalidInput as error:
        str(error).encode()
        return
    assert found.media_type.isascii()
    assert all(isinstance(part, Digest) for part in found.references)
    assert json.loads(json.dumps([[found.described_by]])) == [[found.described_by]]


def ranges(data: bytes) -> None:
    """`Range` of a GET and `Content-Range` of a chunk."""
    text = data.decode("latin-1")
    size = len(text)
    try:
        part = parse_range(text, size)
        assert part is None or 0 <= part.start < part.stop <= size
    except RangeNotSatisfiable as error:
        assert error.size_bytes == size
    try:
        assert len(parse_chunk_range(text)) > 0
    except InvalidInput:
        return


TARGETS: dict[str, tuple[Callable[[bytes], None], int]] = {
    # with the most bytes of an input that teach anything
    "wire": (wire, 640),
    "frame": (frame, 2048),
    "bitset": (bitset, 256),
    "metainfo": (metainfo, 1024),
    "announce": (announce, 1024),
    "hand_out": (hand_out, 1024),
    "names": (names, 320),
    "manifest": (manifest, 2048),
    "ranges": (ranges, 128),
}
