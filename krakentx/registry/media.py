"""What the bytes of a manifest say of themselves. Pure."""

from __future__ import annotations

import json
from typing import Any

from attrs import field, frozen

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_DOCKER_1 = "application/vnd.docker.distribution.manifest.v1+"

MAX_MANIFEST = 4 << 20
"""Bytes of a manifest that may be pushed, and so of one that may be pulled."""

_IMAGES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
_INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
_UNTYPED = frozenset({"application/json", "application/octet-stream", "text/plain"})
"""What clients send that do not know the type, or whose HTTP library chose one."""


class UnsupportedMediaType(InvalidInput):
    """A kind of manifest that is not kept."""

    def __init__(self, media_type: str, why: str) -> None:
        self.media_type = media_type
        super().__init__("manifest", f"media type {media_type[:200]!r}: {why}")


@frozen
class Manifest:
    """What a registry needs to know of a manifest; the bytes are kept as they came.

    Args:
        references: blobs and manifests without which it cannot be pulled.
        subject: the manifest that it is attached to; may be absent from the registry.
        described_by: `artifactType` and `annotations`, as a list of the subject's referrers shows them.
    """

    media_type: str
    references: tuple[Digest, ...] = ()
    subject: Digest | None = None
    described_by: dict[str, Any] = field(factory=dict)


def media_type_of(data: bytes) -> str | None:
    """The type of stored bytes: what they say, else by what they hold; None when they are no manifest."""
    value = _object(data)
    return None if value is None else _media_type(value)


def parse_manifest(data: bytes, content_type: str | None) -> Manifest:
    """Check a manifest that is pushed.

    The type is not stored beside the bytes but read from them again, so what the client calls them must be what they
    are. Types that nobody here knows are kept too; what they refer to is then unknown and not checked.

    Args:
        content_type: as sent by the client.

    Raises:
        InvalidInput: (`manifest`) not JSON, or not in the form of its type.
        UnsupportedMediaType: of a type we do not keep, or another one than `content_type`.
    """
    value = _object(data)
    if value is None:
        raise InvalidInput("manifest", "not a JSON object")
    media_type = _media_type(value)
    sent = (content_type or "").partition(";")[0].strip().lower()
    if sent and sent not in _UNTYPED and sent != media_type.lower():
        raise UnsupportedMediaType(sent, f"the manifest itself is a {media_type}")
    if media_type.startswith(_DOCKER_1) or (value.get("schemaVersion") == 1 and media_type in _IMAGES | _INDEXES):
        raise UnsupportedMediaType(media_type, "docker schema 1 is not supported, push with a client of this decade")
    if media_type in _IMAGES | _INDEXES and value.get("schemaVersion") != 2:
        raise InvalidInput("manifest", f"schemaVersion {value.get('schemaVersion')!r} is not 2")
    subject = value.get("subject")
    return Manifest(
        media_type,
        tuple(_references(value, media_type)),
        None if subject is None else _digest(subject, "subject"),
        _described_by(value, media_type),
    )


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _media_type(value: dict[str, Any]) -> str:
    named = value.get("mediaType")
    if isinstance(named, str) and _printable(named):
        return named
    return OCI_INDEX if isinstance(value.get("manifests"), list) else OCI_MANIFEST


def _printable(text: str) -> bool:
    """Fit for a header."""
    return 0 < len(text) <= 255 and text.isascii() and text.isprintable()


def _references(value: dict[str, Any], media_type: str) -> list[Digest]:
    if media_type in _INDEXES:
        children = _list(value, "manifests")
        return [_digest(child, "manifests") for child in children if not _elsewhere(child)]
    if media_type in _IMAGES:
        parts = [value.get("config"), *_list(value, "layers")]
        return [_digest(part, "config or layers") for part in parts if not _elsewhere(part)]
    return []


def _described_by(value: dict[str, Any], media_type: str) -> dict[str, Any]:
    """An image without an artifactType has that of its config; an index has none.

    What is not in the form of the specification is left out: it goes into a list that many share, where a value nested
    deeply enough would make the whole unreadable.
    """
    config = value.get("config")
    kind = value.get("artifactType")
    if not kind and media_type in _IMAGES and isinstance(config, dict):
        kind = config.get("mediaType")
    notes = value.get("annotations")
    found: dict[str, Any] = {}
    if kind and isinstance(kind, str):
        found["artifactType"] = kind
    if notes and isinstance(notes, dict) and all(isinstance(text, str) for text in notes.values()):
        found["annotations"] = notes
    return found


def _list(value: dict[str, Any], key: str) -> list[Any]:
    found = value.get(key)
    if not isinstance(found, list):
        raise InvalidInput("manifest", f"{key} must be a list")
    return found


def _elsewhere(descriptor: Any) -> bool:
    """Its bytes are to be had at other addresses, and need not be pushed."""
    return isinstance(descriptor, dict) and bool(descriptor.get("urls"))


def _digest(descriptor: Any, where: str) -> Digest:
    if not isinstance(descriptor, dict) or not isinstance(descriptor.get("digest"), str):
        raise InvalidInput("manifest", f"{where}: a descriptor needs a digest")
    size = descriptor.get("size")
    if type(size) is not int or size < 0:
        raise InvalidInput("manifest", f"{where}: a descriptor needs a size")
    try:
        return Digest.parse(descriptor["digest"])
    except InvalidInput as error:
        raise InvalidInput("manifest", f"{where}: {error.message}") from error
