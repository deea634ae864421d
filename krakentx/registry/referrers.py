"""What is attached to a manifest: signatures, lists of contents, and the like, which name it as their `subject`.

They are kept the way the distribution specification tells clients to do it themselves where a registry has no referrers
API: as an index under a tag made of the subject's digest. So they need no store of their own, go wherever tags go, are
found through agents too, and lists that such clients pushed show up in the API.

Two proxies that take referrers of one subject at the same instant may lose one of them: the tag store has no
compare-and-set.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.defer import DeferredLock

from krakentx.core.digest import Digest
from krakentx.core.errors import NotFound
from krakentx.registry.interfaces import IBlobs, IPush, ITags
from krakentx.registry.media import MAX_MANIFEST, OCI_INDEX, Manifest
from krakentx.web.bodies import read_blob
from krakentx.web.params import query_value
from krakentx.web.replies import reply

Descriptor = dict[str, Any]


def referrers_tag(subject: Digest) -> str:
    """The tag under which the referrers of a manifest are listed, cut to what a tag may hold."""
    return f"{subject.algorithm[:32]}-{subject.hex[:64]}"


class Referrers:
    """Keeps and tells what is attached to what."""

    def __init__(self, blobs: IBlobs, tags: ITags) -> None:
        self._blobs = blobs
        self._tags = tags
        self._locks: dict[tuple[str, Digest], DeferredLock] = {}

    async def get(self, request: Any, repo: str, name: str) -> bytes:
        """`GET referrers/<digest>`: an index, which is empty for what nobody knows.

        Raises:
            InvalidInput, Unavailable.
        """
        found = await self._list(repo, Digest.parse(name))
        wanted = query_value(request, "artifactType")
        if wanted is not None:
            found = [entry for entry in found if entry.get("artifactType") == wanted]
            request.setHeader("OCI-Filters-Applied", "artifactType")
        return reply(request, 200, _index(found), OCI_INDEX)

    async def add(self, push: IPush, repo: str, manifest: Manifest, digest: Digest, size: int) -> None:
        """Remember a manifest that has just been kept, when it has a subject.

        Raises:
            Unavailable.
        """
        if manifest.subject is None:
            return
        async with self._alone(repo, manifest.subject):
            found = await self._list(repo, manifest.subject)
            if any(entry.get("digest") == str(digest) for entry in found):
                return
            entry = {"mediaType": manifest.media_type, "digest": str(digest), "size": size, **manifest.described_by}
            data = _index([*found, entry])
            index = Digest.of(data)
            await push.put(repo, index, data)
            await self._tags.put(repo, referrers_tag(manifest.subject), index)

    @asynccontextmanager
    async def _alone(self, repo: str, subject: Digest) -> AsyncIterator[None]:
        """One change of a list at a time."""
        key = (repo, subject)
        lock = self._locks.setdefault(key, DeferredLock())
        await lock.acquire()
        try:
            yield
        finally:
            if not lock.waiting:
                del self._locks[key]
            lock.release()

    async def _list(self, repo: str, subject: Digest) -> list[Descriptor]:
        try:
            index = await self._tags.get(repo, referrers_tag(subject))
            data = await read_blob(await self._blobs.open(repo, index), MAX_MANIFEST)
            entries = json.loads(data)["manifests"]
        except NotFound:
            return []
        except (ValueError, TypeError, KeyError, RecursionError):  # somebody gave the tag to something else
            return []
        return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _index(entries: list[Descriptor]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
