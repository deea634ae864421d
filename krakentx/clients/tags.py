"""Tags as a registry wants them, kept by the build-index."""

from __future__ import annotations

from attrs import frozen

from krakentx.clients.buildindex import BuildIndexClient
from krakentx.core.digest import Digest
from krakentx.core.errors import NotFound
from krakentx.core.imagename import spellings


@frozen
class Tags:
    """An `ITags`. Short names of docker.io are found under both of their spellings (see `core.imagename`)."""

    index: BuildIndexClient

    async def get(self, repo: str, tag: str) -> Digest:
        """What a tag points at.

        Raises:
            NotFound: known to be absent under every spelling. Unavailable: nobody could tell.
        """
        for name in spellings(repo):
            try:
                return await self.index.get(f"{name}:{tag}")
            except NotFound:
                continue
        raise NotFound("tag", f"{repo}:{tag}")

    async def put(self, repo: str, tag: str, digest: Digest) -> None:
        """Point the tag at a manifest, here and (where the build-index has remotes) in other clusters.

        Raises:
            InvalidInput: (`manifest`) something that it refers to is not with the origins. Unavailable.
        """
        await self.index.put(f"{repo}:{tag}", digest, replicate=True)

    async def tags(self, repo: str) -> list[str]:
        """All tags, sorted by bytes.

        Raises:
            NotFound: (`name`) no such repository. Unavailable.
        """
        for name in spellings(repo):
            if found := await self.index.tags(name):
                return found
        raise NotFound("name", repo)

    async def repositories(self) -> list[str]:
        """All repository names that have a tag, sorted by bytes. Raises: Unavailable."""
        return sorted({name.rpartition(":")[0] for name in await self.index.list("")})
