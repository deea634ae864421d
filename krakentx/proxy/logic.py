"""What the registry of the proxy stands on: blobs that are the origins', and pushes that end with them."""

from __future__ import annotations

from collections import Counter

from attrs import define, field, frozen
from twisted.logger import Logger

from krakentx.core.digest import Digest
from krakentx.core.errors import NotFound
from krakentx.core.metainfo import MetaInfo
from krakentx.proxy.interfaces import IOrigins
from krakentx.registry.interfaces import ITags
from krakentx.storage.files import BlobStore
from krakentx.storage.interfaces import IBlobReader, IUpload, IUploadStore
from krakentx.storage.threads import Shared


@frozen
class Blobs:
    """An `IBlobs`: what the origins have.

    What lies here and is not yet with them does not count. A client that is told a layer is there will not send it
    again, so the only honest answer is theirs.
    """

    origins: IOrigins

    async def stat(self, repo: str, digest: Digest) -> int:
        """Size in bytes. Raises: NotFound, Unavailable."""
        return await self.origins.stat(repo, digest)

    async def open(self, repo: str, digest: Digest) -> IBlobReader:
        """Open for reading. Raises: NotFound, Unavailable, Busy."""
        return await self.origins.open(repo, digest)


@define(eq=False)
class Push:
    """An `IPush`: a session's bytes are hashed and written here while they pass, and at its end handed to the origins.

    Until the origins have taken it, a blob is marked as persisted here: so the sweeper leaves it alone, and the next
    start knows what was never acknowledged.

    Args:
        store: into which `uploads` puts what is finished.
        keep: what the origins have taken stays in `store` as a cache; False removes it.
    """

    origins: IOrigins
    store: BlobStore
    uploads: IUploadStore
    keep: bool
    _passing: Counter[Digest] = field(factory=Counter, init=False)
    _handing: dict[tuple[str, Digest], Shared[None]] = field(factory=dict, init=False)

    log = Logger()

    async def begin(self, repo: str) -> IUpload:
        """Begin an upload session. Raises: OutOfSpace, Busy."""
        return await self.uploads.create()

    async def resume(self, repo: str, upload_id: str) -> IUpload:
        """Find a session. Raises: NotFound."""
        return await self.uploads.get(upload_id)

    async def finish(self, repo: str, upload: IUpload, digest: Digest) -> None:
        """End a session.

        Raises:
            InvalidInput: (`digest`) the bytes hash to something else.
            Unavailable: no origin took it; nothing is left here, the client sends it again. OutOfSpace.
        """
        # Others may push the same blob now, and there is one file for all of them: the last one out clears up.
        self._passing[digest] += 1
        taken = False
        try:
            meta = await upload.finish(digest)
            await self._hand_over(repo, meta)
            taken = True
        finally:
            self._passing[digest] -= 1
            if not self._passing[digest]:
                del self._passing[digest]
                await self._settle(digest, keep=taken and self.keep)

    async def put(self, repo: str, digest: Digest, data: bytes) -> None:
        """Keep a manifest. Raises: Unavailable, OutOfSpace, Busy."""
        upload = await self.uploads.create()
        try:
            await upload.write(data)
        except BaseException:
            await upload.abort()
            raise
        await self.finish(repo, upload, digest)

    async def mount(self, repo: str, digest: Digest, source: str | None) -> bool:
        """Whether the origins have it, so that no upload is needed. Raises: Unavailable."""
        try:
            await self.origins.stat(source or repo, digest)
        except NotFound:
            return False
        return True

    def leftovers(self) -> list[Digest]:
        """For the start: what an earlier run took in and never handed over. Reads the disk."""
        return [record.digest for record in self.store.records() if record.persist or not self.keep]

    async def drop(self, leftovers: list[Digest]) -> None:
        """Remove them, except what is being pushed again by now."""
        for digest in leftovers:
            if digest not in self._passing:
                await self._settle(digest, keep=False)

    async def _hand_over(self, repo: str, meta: MetaInfo) -> None:
        key = (repo, meta.digest)
        handing = self._handing.get(key)
        if handing is None or handing.done:
            handing = self._handing[key] = Shared(self.origins.take(repo, meta))
        try:
            await handing.wait()
        finally:
            if handing.done and self._handing.get(key) is handing:
                del self._handing[key]

    async def _settle(self, digest: Digest, *, keep: bool) -> None:
        """Nothing waits any longer for the origins to take this blob."""
        try:
            self.store.set_persist(digest, False)
        except NotFound:
            return
        if not keep:
            await self.store.delete(digest)


@frozen
class PushedTags:
    """An `ITags` that tells the log of each push, in one line, when all of it is safe."""

    inner: ITags

    log = Logger()

    async def get(self, repo: str, tag: str) -> Digest:
        """Raises: NotFound, Unavailable."""
        return await self.inner.get(repo, tag)

    async def put(self, repo: str, tag: str, digest: Digest) -> None:
        """Raises: InvalidInput, Unavailable."""
        await self.inner.put(repo, tag, digest)
        self.log.info("push of {repo}:{tag} complete: {digest}", repo=repo, tag=tag, digest=str(digest))

    async def tags(self, repo: str) -> list[str]:
        """Raises: NotFound, Unavailable."""
        return await self.inner.tags(repo)

    async def repositories(self) -> list[str]:
        """Raises: Unavailable."""
        return await self.inner.repositories()
