"""What a path under `/v2/` means. Pure."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Kind = Literal["manifest", "blob", "uploads", "upload", "tags", "referrers"]

ALLOWED: dict[Kind, tuple[str, ...]] = {
    "manifest": ("GET", "HEAD", "PUT"),
    "blob": ("GET", "HEAD"),
    "uploads": ("POST",),
    "upload": ("GET", "PATCH", "PUT", "DELETE"),
    "tags": ("GET", "HEAD"),
    "referrers": ("GET", "HEAD"),
}
"""Methods of each kind of path."""


@frozen
class Target:
    """One thing of one repository.

    Args:
        repo: as the client wrote it, not yet checked.
        name: the reference, digest or id behind the kind; empty when there is none.
    """

    kind: Kind
    repo: str
    name: str = ""


def parse_path(path: str) -> Target | None:
    """Read what stands behind `/v2/`; None when it is nothing we know.

    A repository may be called `a/blobs/b`, so the last word that can be the kind is the kind.
    """
    parts = path.split("/")
    for at in range(len(parts) - 1, 0, -1):
        kind = _kind(parts[at], parts[at + 1 :])
        if kind is not None:
            name = "" if kind in ("tags", "uploads") else parts[-1]
            return Target(kind, "/".join(parts[:at]), name)
    return None


def _kind(word: str, rest: list[str]) -> Kind | None:
    if word == "blobs" and rest in (["uploads"], ["uploads", ""]):
        return "uploads"
    if word == "blobs" and len(rest) == 2 and rest[0] == "uploads":
        return "upload"
    if word == "tags" and rest == ["list"]:
        return "tags"
    if len(rest) != 1 or not rest[0]:
        return None
    return {"manifests": "manifest", "blobs": "blob", "referrers": "referrers"}.get(word)  # type: ignore[return-value]


def blob_path(repo: str, digest: object) -> str:
    """Where a blob is. Locations have no host: the client knows best how it reached us."""
    return f"/v2/{repo}/blobs/{digest}"


def manifest_path(repo: str, reference: object) -> str:
    """Where a manifest is."""
    return f"/v2/{repo}/manifests/{reference}"


def upload_path(repo: str, upload_id: str) -> str:
    """Where an upload goes on."""
    return f"/v2/{repo}/blobs/uploads/{upload_id}"
