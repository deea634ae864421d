"""Uploads to an origin: chunks in order, under an id that belongs to one digest."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from attrs import frozen

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput, NotFound, RangeNotSatisfiable
from krakentx.core.metainfo import MetaInfo
from krakentx.storage.interfaces import IUpload, IUploadStore

_CONTENT_RANGE = re.compile(r"(\d{1,18})-(\d{1,18})")
_MARK = 16


def parse_content_range(text: str | None) -> tuple[int, int]:
    """Read `start-end`, half-open.

    Raises:
        InvalidInput: (`range`) it is missing or malformed.
    """
    match = _CONTENT_RANGE.fullmatch((text or "").strip())
    if match is None or int(match[2]) < int(match[1]):
        raise InvalidInput(
            "range", f"Content-Range {text!r}: write <start>-<end>, where end is the first byte left out"
        )
    return int(match[1]), int(match[2])


@frozen
class Uploads:
    """Sessions by an id which carries the beginning of its digest: it fits no other blob, after a restart too."""

    sessions: IUploadStore

    async def start(self, digest: Digest) -> str:
        """Begin. Raises: OutOfSpace, Busy."""
        upload = await self.sessions.create()
        return f"{upload.id}.{digest.hex[:_MARK]}"

    async def _find(self, digest: Digest, uid: str) -> IUpload:
        session, dot, mark = uid.rpartition(".")
        if not dot or mark != digest.hex[:_MARK]:
            raise NotFound("upload", uid[:120])
        return await self.sessions.get(session)

    async def patch(self, digest: Digest, uid: str, start: int, end: int, chunks: AsyncIterator[bytes]) -> None:
        """Append bytes [start, end). What is there already is skipped, so a chunk may be sent again.

        An earlier request for the same chunk may still be at work, when its client gave it up and we do not know yet:
        so what counts is what was accepted, and nothing is awaited between looking and appending.

        Raises:
            NotFound: unknown, or of another digest. RangeNotSatisfiable: `start` is past the end.
            InvalidInput: (`size`) fewer bytes came; those that came are kept. OutOfSpace.
        """
        upload = await self._find(digest, uid)
        if start > upload.accepted:
            raise RangeNotSatisfiable(upload.accepted, f"the upload has {upload.accepted} bytes; go on from there")
        at = start
        async for data in chunks:
            data = data[: end - at]
            fresh = data[max(0, upload.accepted - at) :]
            at += len(data)
            if fresh:
                await upload.write(fresh)
            if at >= end:
                break
        if at < end:
            raise InvalidInput("size", f"{at - start} bytes came of the {end - start} of Content-Range")

    async def finish(self, digest: Digest, uid: str) -> MetaInfo:
        """Check the hash and keep the blob.

        Raises:
            NotFound: unknown, or of another digest. InvalidInput: (`digest`) it hashes to something else. OutOfSpace.
        """
        return await (await self._find(digest, uid)).finish(digest)

    async def drop(self, digest: Digest, uid: str) -> None:
        """End it without keeping anything; an unknown one is no error."""
        try:
            upload = await self._find(digest, uid)
        except NotFound:
            return
        await upload.abort()
