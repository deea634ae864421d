"""Manifests: by tag or digest, byte for byte as they were pushed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, FirstError, gatherResults

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput, NotFound, TooLarge
from krakentx.core.imagename import parse_reference
from krakentx.registry.interfaces import IBlobs, IPush, ITags
from krakentx.registry.media import MAX_MANIFEST, UnsupportedMediaType, media_type_of, parse_manifest
from krakentx.registry.paths import manifest_path
from krakentx.registry.referrers import Referrers
from krakentx.web.bodies import read_blob, read_body
from krakentx.web.errors import HttpError
from krakentx.web.replies import reply

_STATS_AT_ONCE = 16


class ManifestRoutes:
    """Reads and takes manifests."""

    def __init__(self, blobs: IBlobs, tags: ITags, referrers: Referrers) -> None:
        self._blobs = blobs
        self._tags = tags
        self._referrers = referrers

    async def get(self, request: Any, repo: str, name: str) -> bytes:
        """GET and HEAD: always what is stored, whatever `Accept` says.

        Raises:
            InvalidInput, NotFound, Unavailable.
        """
        reference = parse_reference(name)
        digest = reference if isinstance(reference, Digest) else await self._tags.get(repo, reference)
        headers = {"Docker-Content-Digest": str(digest), "ETag": f'"{digest}"'}
        if _matches(request.getHeader("if-none-match"), str(digest)):
            return reply(request, 304, headers=headers)
        try:
            data = await read_blob(await self._blobs.open(repo, digest), MAX_MANIFEST)
            media_type = media_type_of(data)
        except TooLarge:
            media_type = None  # a layer, asked for as if it were a manifest
        except NotFound as error:
            raise NotFound("manifest", name) from error
        if media_type is None:
            raise NotFound("manifest", name)
        return reply(request, 200, data, media_type, headers)

    async def put(self, push: IPush, request: Any, repo: str, name: str) -> bytes:
        """PUT: check the manifest, keep it, then point the tag at it.

        Raises:
            InvalidInput, TooLarge, HttpError, Unavailable, OutOfSpace.
        """
        reference = parse_reference(name)
        data = await read_body(request, MAX_MANIFEST, "manifest")
        try:
            manifest = parse_manifest(data, request.getHeader("content-type"))
        except UnsupportedMediaType as error:
            raise HttpError(415, str(error), "MANIFEST_INVALID") from error
        digest = Digest.of(data, reference.algorithm if isinstance(reference, Digest) else "sha256")
        if isinstance(reference, Digest) and digest != reference:
            raise InvalidInput("digest", f"the manifest hashes to {digest}, not {reference}")
        await self._check_present(repo, sorted(set(manifest.references)))
        await push.put(repo, digest, data)
        await self._referrers.add(push, repo, manifest, digest, len(data))
        if not isinstance(reference, Digest):
            await self._tags.put(repo, reference, digest)
        headers = {"Location": manifest_path(repo, digest), "Docker-Content-Digest": str(digest)}
        if manifest.subject is not None:
            headers["OCI-Subject"] = str(manifest.subject)
        return reply(request, 201, headers=headers)

    async def _check_present(self, repo: str, digests: list[Digest]) -> None:
        """Raises: HttpError (MANIFEST_BLOB_UNKNOWN) when one is known to be absent; Unavailable."""

        async def look(digest: Digest) -> None:
            try:
                await self._blobs.stat(repo, digest)
            except NotFound as error:
                message = f"the manifest refers to {digest}, which was not pushed"
                raise HttpError(400, message, "MANIFEST_BLOB_UNKNOWN") from error

        for at in range(0, len(digests), _STATS_AT_ONCE):
            calls = [Deferred.fromCoroutine(look(digest)) for digest in digests[at : at + _STATS_AT_ONCE]]
            try:
                await gatherResults(calls, consumeErrors=True)
            except FirstError as first:
                first.subFailure.raiseException()


def _matches(header: str | None, digest: str) -> bool:
    """Whether `If-None-Match` names this manifest."""
    names = [part.strip().removeprefix("W/").strip('"') for part in (header or "").split(",")]
    return digest in names or "*" in names
