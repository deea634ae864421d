"""Names to paths within a backend, and back. Pure.

The three ways are those of the reference, since a backend may be shared with it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import Literal

from attrs import frozen

from krakentx.core.errors import InvalidInput

PathKind = Literal["docker_tag", "sharded_docker_blob", "identity"]

_ALGORITHM_OF_LENGTH = {128: "sha512"}
_TAG_PATH = re.compile(r"(.+)/_manifests/tags/([^/]+)/current/link")
_BLOB_PATH = re.compile(r"sha(?:256|512)/[^/]{2}/(.+)/data")


@frozen
class NamePaths:
    """One way of naming, below a root folder.

    Args:
        base: the folder below which all files are; prefixes of `list` are relative to it.
    """

    base: str
    _forward: Callable[[str], str]
    _inverse: Callable[[str], str | None]

    def path(self, name: str) -> str:
        """The path of a name.

        Raises:
            InvalidInput: (`name`) it does not fit this way of naming, or leads out of the folder.
        """
        return self._join(self._forward(name), name)

    def folder(self, prefix: str) -> str:
        """The path of a folder to list.

        Raises:
            InvalidInput: (`name`) it leads out of the base.
        """
        prefix = prefix.strip("/")
        return self._join(prefix, prefix) if prefix else self.base

    def name(self, path: str) -> str | None:
        """The name of a path; None for a file that is not named this way."""
        path = "/" + path.lstrip("/")
        base = "/" + self.base.strip("/")
        start = base.rstrip("/") + "/"
        return self._inverse(path[len(start) :]) if path.startswith(start) else None

    def _join(self, below: str, shown: str) -> str:
        if not below or any(part in ("", ".", "..") or "\0" in part for part in below.split("/")):
            raise InvalidInput("name", f"{shown[:140]!r} cannot be the name of a file")
        return posixpath.join(self.base, below)


def name_paths(kind: PathKind, root: str) -> NamePaths:
    """The way of naming `kind` below `root`."""
    root = posixpath.normpath(root) if root else ""
    if kind == "docker_tag":
        return NamePaths(posixpath.join(root, "docker/registry/v2/repositories"), _tag_path, _tag_name)
    if kind == "sharded_docker_blob":
        return NamePaths(posixpath.join(root, "docker/registry/v2/blobs"), _blob_path, _blob_name)
    return NamePaths(root, lambda name: name, lambda path: path or None)


def _tag_path(name: str) -> str:
    repo, colon, tag = name.partition(":")
    if not colon or not repo or not tag or ":" in tag or "/" in tag:
        raise InvalidInput("name", f"{name[:140]!r} is not of the form repo:tag")
    return f"{repo}/_manifests/tags/{tag}/current/link"


def _tag_name(path: str) -> str | None:
    match = _TAG_PATH.fullmatch(path)
    return f"{match[1]}:{match[2]}" if match else None


def _blob_path(name: str) -> str:
    if len(name) <= 2 or "/" in name:
        raise InvalidInput("name", f"{name[:140]!r} is not the name of a blob")
    algorithm = _ALGORITHM_OF_LENGTH.get(len(name), "sha256")
    return f"{algorithm}/{name[:2]}/{name}/data"


def _blob_name(path: str) -> str | None:
    match = _BLOB_PATH.fullmatch(path)
    return match[1] if match else None
