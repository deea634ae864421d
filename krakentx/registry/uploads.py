"""Uploads: in one piece, in chunks, or as a stream of unknown length.

What a request does to a session runs to its end even when the client goes away, so that no byte of a lost connection is
written after those of the next one. Meanwhile the session takes no other request.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput
from krakentx.core.imagename import check_repository
from krakentx.registry.interfaces import IPush
from krakentx.registry.paths import blob_path, upload_path
from krakentx.storage.interfaces import IUpload
from krakentx.storage.threads import shielded
from krakentx.web.bodies import body_chunks
from krakentx.web.errors import HttpError
from krakentx.web.params import query_value
from krakentx.web.ranges import Range, parse_chunk_range
from krakentx.web.replies import reply

T = TypeVar("T")


class UploadRoutes:
    """Takes blobs from clients."""

    def __init__(self, push: IPush) -> None:
        self._push = push
        self._busy: set[str] = set()

    async def post(self, request: Any, repo: str, _name: str) -> bytes:
        """Begin: with `mount` perhaps end at once, with `digest` take the whole blob from this very request.

        Raises:
            InvalidInput, Busy, OutOfSpace, Unavailable.
        """
        mount = query_value(request, "mount")
        if mount is not None:
            digest = Digest.parse(mount)
            source = query_value(request, "from")
            if await self._push.mount(repo, digest, None if source is None else check_repository(source)):
                return _created(request, repo, digest)
        whole = query_value(request, "digest")
        wanted = None if whole is None or mount is not None else Digest.parse(whole)
        upload = await self._push.begin(repo)
        if wanted is None:
            return _accepted(request, repo, upload)
        return await self._alone(upload.id, self._take_whole(request, repo, upload, wanted))

    async def _take_whole(self, request: Any, repo: str, upload: IUpload, digest: Digest) -> bytes:
        """The client never learns the id of this session, so it must not outlive a failure."""
        try:
            await _append(request, upload, None)
            await self._push.finish(repo, upload, digest)
        except BaseException:
            await upload.abort()
            raise
        return _created(request, repo, digest)

    async def patch(self, request: Any, repo: str, upload_id: str) -> bytes:
        """Append the body.

        Raises:
            InvalidInput, NotFound, OutOfSpace. HttpError: 416 when the chunk does not start at the end of what is here,
            409 when the session is at work for another request.
        """
        return await self._alone(upload_id, self._patch(request, repo, upload_id))

    async def _patch(self, request: Any, repo: str, upload_id: str) -> bytes:
        upload = await self._push.resume(repo, upload_id)
        await _append(request, upload, _chunk(request, repo, upload))
        return _accepted(request, repo, upload)

    async def put(self, request: Any, repo: str, upload_id: str) -> bytes:
        """End, after appending the body when there is one. Raises as `patch`; also Unavailable."""
        text = query_value(request, "digest")
        if text is None:
            raise InvalidInput("digest", "the closing PUT needs ?digest=")
        return await self._alone(upload_id, self._put(request, repo, upload_id, Digest.parse(text)))

    async def _put(self, request: Any, repo: str, upload_id: str, digest: Digest) -> bytes:
        upload = await self._push.resume(repo, upload_id)
        await _append(request, upload, _chunk(request, repo, upload))
        await self._push.finish(repo, upload, digest)
        return _created(request, repo, digest)

    async def get(self, request: Any, repo: str, upload_id: str) -> bytes:
        """Tell how much is here. Raises: NotFound."""
        upload = await self._push.resume(repo, upload_id)
        return reply(request, 204, headers=_where(repo, upload))

    async def delete(self, request: Any, repo: str, upload_id: str) -> bytes:
        """Cancel. Raises: NotFound. HttpError: 409 as in `patch`."""
        return await self._alone(upload_id, self._delete(request, repo, upload_id))

    async def _delete(self, request: Any, repo: str, upload_id: str) -> bytes:
        upload = await self._push.resume(repo, upload_id)
        await upload.abort()
        return reply(request, 204)

    def _alone(self, upload_id: str, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Do something to a session as the only one, to its end."""
        if upload_id in self._busy:
            work.close()
            raise HttpError(409, "this upload is at work for another request", "BLOB_UPLOAD_INVALID")
        self._busy.add(upload_id)
        return shielded(self._release(upload_id, work))

    async def _release(self, upload_id: str, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        finally:
            self._busy.discard(upload_id)


async def _append(request: Any, upload: IUpload, chunk: Range | None) -> None:
    """Write the body as it comes; each run waits for the disk, and the client with it.

    Raises:
        InvalidInput: (`size`) the body is not as long as its Content-Range. OutOfSpace, ClientGone.
    """
    left = None if chunk is None else len(chunk)
    async for data in body_chunks(request):
        if left is not None and len(data) > left:
            raise InvalidInput("size", f"the body is longer than its Content-Range of {len(chunk or ())} bytes")
        await upload.write(data)
        left = None if left is None else left - len(data)
    if left:
        raise InvalidInput("size", f"the body is {left} bytes shorter than its Content-Range")


def _chunk(request: Any, repo: str, upload: IUpload) -> Range | None:
    """Where the client says the body belongs, when it says so.

    Raises:
        InvalidInput: (`upload`) malformed, or (`size`) not as long as Content-Length. HttpError: 416 in any other place
            than the end of what is here.
    """
    header = request.getHeader("content-range")
    if header is None:
        return None
    chunk = parse_chunk_range(header)
    if chunk.start != upload.offset:
        message = f"the chunk starts at {chunk.start}, but {upload.offset} bytes are here"
        raise HttpError(416, message, "BLOB_UPLOAD_INVALID", _where(repo, upload))
    length = request.getHeader("content-length")
    if length is not None and int(length) != len(chunk):
        raise InvalidInput("size", f"Content-Range has {len(chunk)} bytes, Content-Length {length}")
    return chunk


def _where(repo: str, upload: IUpload) -> dict[str, str]:
    """Where to go on. docker takes an answer without `Range` for a broken connection, even when nothing is here."""
    return {
        "Location": upload_path(repo, upload.id),
        "Range": f"0-{max(0, upload.offset - 1)}",
        "Docker-Upload-UUID": upload.id,
    }


def _accepted(request: Any, repo: str, upload: IUpload) -> bytes:
    return reply(request, 202, headers=_where(repo, upload))


def _created(request: Any, repo: str, digest: Digest) -> bytes:
    headers = {"Location": blob_path(repo, digest), "Docker-Content-Digest": str(digest)}
    return reply(request, 201, headers=headers)
