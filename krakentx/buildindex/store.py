"""Tags on disk: `<root>/<repository>/<tag>`, each a file with a digest, both names escaped to one part of a path."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from urllib.parse import quote, unquote

from krakentx.core.digest import Digest
from krakentx.core.errors import NotFound
from krakentx.core.imagename import parse_tag
from krakentx.storage import disk
from krakentx.storage.threads import Threads

_TEMPORARY = ".tmp"


def _part(text: str) -> str:
    return quote(text, safe="")


class TagStore:
    """What this build-index was told; a `tag` is always `repo:tag`.

    Once `put` has returned a tag survives a loss of power, and whoever looks sees the old digest or the new one.
    """

    def __init__(self, root: Path, threads: Threads) -> None:
        self._root = root
        self._threads = threads
        self._temporary = root / _TEMPORARY
        disk.remove_tree(self._temporary)
        self._temporary.mkdir(parents=True)

    def path(self, tag: str) -> Path:
        """The file of a tag. Raises: InvalidInput: it is no `repo:tag`."""
        repo, name = parse_tag(tag)
        return self._root / _part(repo) / _part(name)

    def get(self, tag: str) -> Digest:
        """What a tag points at.

        Raises:
            NotFound: nobody told this build-index of such a tag. InvalidInput: it is no `repo:tag`.
        """
        data = disk.read_or_none(self.path(tag))
        if data is None:
            raise NotFound("tag", tag)
        return Digest.parse(data.decode().strip())

    async def put(self, tag: str, digest: Digest) -> None:
        """Point a tag at a digest, durably. Raises: InvalidInput, OutOfSpace."""
        await self._threads.run(self._put, self.path(tag), digest)

    def _put(self, path: Path, digest: Digest) -> None:
        with disk.space(self._root):
            fresh = not path.parent.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            disk.replace(path, str(digest).encode(), self._temporary / uuid.uuid4().hex)
            if fresh:
                disk.sync_folder(self._root)

    async def tags(self, repo: str) -> list[str]:
        """The tags of one repository, in no order."""
        return await self._threads.run(self._tags, repo)

    def _tags(self, repo: str) -> list[str]:
        try:
            return [unquote(name) for name in os.listdir(self._root / _part(repo))]
        except (FileNotFoundError, NotADirectoryError):
            return []

    async def names(self, prefix: str) -> list[str]:
        """All `repo:tag` whose repository is `prefix` or below it, in no order; all when it is empty."""
        return await self._threads.run(self._names, prefix)

    def _names(self, prefix: str) -> list[str]:
        found = []
        for part in os.listdir(self._root):
            repo = unquote(part)
            if part != _TEMPORARY and (not prefix or repo == prefix or repo.startswith(f"{prefix}/")):
                found += [f"{repo}:{tag}" for tag in self._tags(repo)]
        return found
