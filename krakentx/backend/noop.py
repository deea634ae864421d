"""The backend of the reserved namespace `__noop__`: it keeps nothing and has nothing."""

from __future__ import annotations

from pathlib import Path

from krakentx.backend.interfaces import Sink
from krakentx.core.errors import NotFound

NAMESPACE = "__noop__"


class NoopBackend:
    """See `IBackend`."""

    async def stat(self, namespace: str, name: str) -> int:
        """Nothing is there."""
        raise NotFound("file", name)

    async def download(self, namespace: str, name: str, sink: Sink) -> None:
        """Nothing is there."""
        raise NotFound("file", name)

    async def upload(self, namespace: str, name: str, path: Path) -> None:
        """Succeeds and forgets."""

    async def list(self, prefix: str) -> list[str]:
        """Nothing is there."""
        return []
