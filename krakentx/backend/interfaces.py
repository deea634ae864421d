"""What is asked of storage elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

Sink = Callable[[bytes], Coroutine[Any, Any, None]]
"""Takes the next bytes; the sender waits for it before it reads more."""


class IBackend(Protocol):
    """A store of files by name, in which blobs (by hex) or tags (`repo:tag`) last.

    A namespace only chose the backend; most backends have no further use for it.
    """

    async def stat(self, namespace: str, name: str) -> int:
        """Size in bytes.

        Raises:
            NotFound: known to be absent. Unavailable: it could not be learnt.
        """

    async def download(self, namespace: str, name: str, sink: Sink) -> None:
        """Hand all bytes to `sink`, in order. What ends early raises; the caller checks the hash.

        Raises:
            NotFound, Unavailable; and what `sink` raises.
        """

    async def upload(self, namespace: str, name: str, path: Path) -> None:
        """Store the bytes of a file under a name, replacing what was there, as a whole or not at all.

        Raises:
            Unavailable, OutOfSpace.
        """

    async def list(self, prefix: str) -> list[str]:
        """The names of all files below a folder of the backend's own layout, sorted; empty when it is not there.

        Raises:
            Unavailable.
        """
