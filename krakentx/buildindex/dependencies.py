"""What must be with the origins before a tag may point at a manifest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, FirstError, gatherResults

from krakentx.buildindex.config import TagTypeConfig
from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput, NotFound, TooLarge
from krakentx.registry.media import DOCKER_LIST, OCI_INDEX, parse_manifest

_MAX_MANIFEST = 4 << 20
_MAX_DEPTH = 4
_MAX_DEPENDENCIES = 20_000
_AT_ONCE = 16


class IOriginBlobs(Protocol):
    """The origins, as far as they are asked here."""

    async def stat(self, namespace: str, digest: Digest) -> int:
        """Size in bytes. Raises: NotFound, Unavailable."""

    async def read(self, namespace: str, digest: Digest, limit_bytes: int) -> bytes:
        """A small blob. Raises: NotFound, Unavailable, TooLarge."""


@frozen
class Dependencies:
    """Finds and checks them, down to the layers of every child of an index."""

    origins: IOriginBlobs
    types: Sequence[TagTypeConfig]

    def _type(self, tag: str) -> str:
        for each in self.types:
            if re.search(each.namespace, tag):
                return each.type
        raise InvalidInput("tag", f"{tag}: no namespace of tag_types matches it")

    async def resolve(self, tag: str, digest: Digest) -> list[Digest]:
        """All of them, what is referred to before what refers to it, `digest` last.

        Raises:
            InvalidInput: (`manifest`) it, or a manifest below it, is absent or cannot be read; (`tag`) no type fits.
            Unavailable.
        """
        found: dict[Digest, None] = {}
        if self._type(tag) == "docker":
            await self._descend(tag, digest, found, _MAX_DEPTH)
        found[digest] = None
        return list(found)

    async def _descend(self, tag: str, digest: Digest, found: dict[Digest, None], depth: int) -> None:
        if depth == 0 or len(found) > _MAX_DEPENDENCIES:
            raise InvalidInput("manifest", f"{tag} refers to too much")
        try:
            manifest = parse_manifest(await self.origins.read(tag, digest, _MAX_MANIFEST), None)
        except NotFound as error:
            raise InvalidInput("manifest", f"cannot upload tag, missing dependency {digest}") from error
        except TooLarge as error:
            raise InvalidInput("manifest", f"{digest} is no manifest: {error}") from error
        for reference in manifest.references:
            if manifest.media_type in (OCI_INDEX, DOCKER_LIST) and reference not in found:
                await self._descend(tag, reference, found, depth - 1)
            found[reference] = None

    async def check(self, tag: str, digests: Sequence[Digest]) -> None:
        """See that the origins have all of these.

        Raises:
            InvalidInput: (`manifest`) one is known to be absent. Unavailable: nobody could tell.
        """
        for at in range(0, len(digests), _AT_ONCE):
            some = [Deferred.fromCoroutine(self._one(tag, digest)) for digest in digests[at : at + _AT_ONCE]]
            try:
                await gatherResults(some, consumeErrors=True)
            except FirstError as first:
                first.subFailure.raiseException()

    async def _one(self, tag: str, digest: Digest) -> None:
        try:
            await self.origins.stat(tag, digest)
        except NotFound as error:
            raise InvalidInput("manifest", f"cannot upload tag, missing dependency {digest}") from error
