"""Client of one origin, route by route."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

from attrs import frozen

from krakentx.clients.ranges import download_range
from krakentx.clients.tracker import MAX_METAINFO, read_metainfo
from krakentx.core.digest import Digest
from krakentx.core.errors import Conflict, InvalidInput, NotFound, Pending, Unavailable
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import PeerContext
from krakentx.web.client import HttpClient, Receive, Response

CHUNK_BYTES = 32 << 20
"""Bytes per PATCH of an upload."""

_NS = 1_000_000_000


@frozen
class OriginTimeouts:
    """Deadlines in seconds. Transfers have none as a whole: they end when nothing moves for `stall_s`."""

    quick_s: float = 5.0
    stat_s: float = 15.0
    stall_s: float = 30.0
    commit_s: float = 30.0
    """For the end of an upload, and a second more for each `commit_bytes_per_s`: the bytes are synced to the disk, and
    origins of the reference copy them to others before they answer."""
    commit_bytes_per_s: float = 16 << 20
    whole_s: float = 900.0
    """For what touches all of a blob whose size is not known here."""

    def commit_of(self, size_bytes: int) -> float:
        """Seconds for the end of such an upload."""
        return self.commit_s + size_bytes / self.commit_bytes_per_s


PIECES_HEADER = "X-Kraken-Pieces"
"""Of a download: an agent fetches pieces which its peers do not give, and may be made to wait for its turn."""


def escape(namespace: str) -> str:
    """A namespace as one path segment."""
    return quote(namespace, safe="")


@frozen
class OriginClient:
    """One origin at `host:port`. Every method raises `Unavailable` when it does not answer properly in time."""

    http: HttpClient
    host: str
    timeouts: OriginTimeouts = OriginTimeouts()

    async def locations(self, digest: Digest) -> list[str]:
        """The origins that own a blob, by this one's view of the ring."""
        response = await self._request("GET", f"/blobs/{digest}/locations")
        header = response.header("Origin-Locations") or ""
        hosts = [host.strip() for host in header.split(",") if host.strip()]
        if not hosts:
            raise Unavailable(self.host, "told no locations")
        return hosts

    async def peer_context(self) -> PeerContext:
        """How to reach it as a peer."""
        response = await self._request("GET", "/internal/peercontext")
        try:
            return PeerContext.from_json(json.loads(response.body))
        except (ValueError, InvalidInput) as error:
            raise Unavailable(self.host, f"peercontext: {error}") from error

    async def readiness(self) -> None:
        """Raises: Unavailable: it is not ready."""
        await self._request("GET", "/readiness")

    async def stat(self, namespace: str, digest: Digest, *, local: bool = False) -> int:
        """Size in bytes, of its cache or (unless `local`) of the backend.

        Raises:
            NotFound: neither has it.
        """
        path = f"/internal/namespace/{escape(namespace)}/blobs/{digest}?local={'true' if local else 'false'}"
        response = await self._request("HEAD", path, ok=(200, 404), timeout_s=self.timeouts.stat_s)
        if response.status == 404:
            raise NotFound("blob", digest)
        if response.length is None:
            raise Unavailable(self.host, "told no size")
        return response.length

    async def metainfo(self, namespace: str, digest: Digest, *, strong: bool = False) -> MetaInfo:
        """How the blob is cut into pieces.

        Args:
            strong: an origin of ours makes strong sums now if it has none of this blob.

        Raises:
            NotFound: the backend does not have it. Pending: it is being fetched from there.
        """
        path = f"/internal/namespace/{escape(namespace)}/blobs/{digest}/metainfo"
        path += "?strong_sums=true" if strong else ""
        response = await self._request("GET", path, ok=(200, 202, 404), timeout_s=self.timeouts.stat_s)
        return read_metainfo(self.host, digest, response.status, response.body)

    async def prefetch(self, namespace: str, digest: Digest) -> None:
        """Have it fetched from the backend.

        Raises:
            NotFound: the backend does not have it. Pending: under way.
        """
        path = f"/namespace/{escape(namespace)}/blobs/{digest}/prefetch"
        response = await self._request("POST", path, ok=(200, 202, 404), timeout_s=self.timeouts.stat_s)
        self._raise_for(response.status, digest)

    async def replicate(self, namespace: str, digest: Digest, remote: str) -> None:
        """Have it send the blob to another cluster of origins.

        Raises:
            NotFound: it has no such blob. Pending: it fetches it from the backend first.
        """
        path = f"/namespace/{escape(namespace)}/blobs/{digest}/remote/{quote(remote, safe='')}"
        response = await self._request("POST", path, ok=(200, 202, 404), timeout_s=self.timeouts.whole_s)
        self._raise_for(response.status, digest)

    async def delete(self, digest: Digest) -> None:
        """Drop its copy. Raises: NotFound."""
        response = await self._request("DELETE", f"/internal/blobs/{digest}", ok=(200, 202, 404))
        if response.status == 404:
            raise NotFound("blob", digest)

    async def set_piece_length(self, digest: Digest, piece_length: int) -> None:
        """Have the metainfo made anew."""
        path = f"/internal/blobs/{digest}/metainfo?piece_length={piece_length}"
        await self._request("POST", path, timeout_s=self.timeouts.whole_s)

    async def download(self, namespace: str, digest: Digest, start: int, stop: int | None, receive: Receive) -> None:
        """Hand on bytes [start, stop) in order; `stop` None means to the end.

        Raises:
            NotFound: the backend does not have it. Pending: it is being fetched from there.
            Unavailable: also when the answer ends early; what was received until then stays received.
        """
        url = f"http://{self.host}/namespace/{escape(namespace)}/blobs/{digest}"
        await download_range(self.http, self.host, url, digest, start, stop, receive, self.timeouts.stall_s)

    async def upload(
        self,
        namespace: str,
        digest: Digest,
        source: Path,
        size_bytes: int,
        *,
        internal: bool = False,
        write_back_delay_s: float | None = None,
    ) -> None:
        """Send a file. A blob that is there already is a success.

        Args:
            internal: only keep it: no copies to other origins, no write to the backend.
            write_back_delay_s: keep it as a copy, and write it to the backend after this time.
        """
        base = (
            f"/internal/blobs/{digest}/uploads"
            if internal
            else f"/namespace/{escape(namespace)}/blobs/{digest}/uploads"
        )
        try:
            response = await self._step("POST", base + (f"?size={size_bytes}" if not internal else ""))
            uid = quote((response.header("Location") or "").rsplit("/", 1)[-1], safe="")
            if not uid:
                raise Unavailable(self.host, "told no upload id")
            for start in range(0, size_bytes, CHUNK_BYTES):
                await self._send(f"{base}/{uid}", source, start, min(start + CHUNK_BYTES, size_bytes))
            if write_back_delay_s is None:
                await self._step("PUT", f"{base}/{uid}", timeout_s=self.timeouts.commit_of(size_bytes))
            else:
                path = f"/internal/duplicate/namespace/{escape(namespace)}/blobs/{digest}/uploads/{uid}"
                body = json.dumps({"Delay": int(write_back_delay_s * _NS)}).encode()
                await self._step("PUT", path, timeout_s=self.timeouts.commit_of(size_bytes), body=body)
        except Conflict:
            return

    async def _send(self, path: str, source: Path, start: int, stop: int) -> None:
        response = await self.http.upload(
            "PATCH",
            f"http://{self.host}{path}",
            source,
            offset=start,
            length=stop - start,
            headers={"Content-Range": f"{start}-{stop}"},
            stall_s=self.timeouts.stall_s,
            answer_s=self.timeouts.stall_s,
            ok=(200, 201, 202, 404, 409),
        )
        self._check_step(response)

    async def _step(
        self, method: str, path: str, *, timeout_s: float | None = None, body: bytes | None = None
    ) -> Response:
        response = await self._request(method, path, ok=(200, 201, 202, 404, 409), timeout_s=timeout_s, body=body)
        self._check_step(response)
        return response

    def _check_step(self, response: Response) -> None:
        if response.status == 409:
            raise Conflict("the blob is there already")
        if response.status == 404:
            raise Unavailable(self.host, "knows the upload no more", status=404)

    def _raise_for(self, status: int, digest: Digest) -> None:
        if status == 404:
            raise NotFound("blob", digest)
        if status == 202:
            raise Pending(f"{self.host} is fetching {digest}")

    async def _request(
        self,
        method: str,
        path: str,
        *,
        ok: tuple[int, ...] = (200,),
        timeout_s: float | None = None,
        body: bytes | None = None,
    ) -> Response:
        return await self.http.request(
            method,
            f"http://{self.host}{path}",
            ok=ok,
            timeout_s=timeout_s or self.timeouts.quick_s,
            body=body,
            max_body=MAX_METAINFO,
        )
