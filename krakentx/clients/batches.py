"""Announces of many complete torrents in one request, to trackers of ours.

A host that holds 200 blobs would announce forty times a minute. The Engine lets what is soon due go at the same
moment; here it is gathered for a fifth of a second, by tracker, and sent as one. The reference's tracker knows no
batches: it is told of each torrent singly, and asked again after ten minutes whether it has learnt.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import Factory, define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from krakentx.core.digest import Digest
from krakentx.core.peer import AnnounceAnswer, InfoHash, PeerContext
from krakentx.web.client import HttpClient

MAX_BATCH = 500
"""Torrents of one request; the tracker takes no more."""
_GATHER_S = 0.2
_SINGLY_S = 600.0
_MAX_ANSWER = 64 << 10


@define(eq=False)
class _Batch:
    """Torrents on their way to one tracker, and who waits for its answer."""

    waiting: dict[Deferred[AnnounceAnswer | None], tuple[Digest, InfoHash]] = Factory(dict)
    end: Callable[[], Any] = lambda: None


@define
class Batches:
    """Tells trackers of complete torrents.

    Args:
        again_s: within what time each is announced again.
        decode: reads an answer.
    """

    http: HttpClient
    clock: IReactorTime
    context: PeerContext
    again_s: float
    timeout_s: float
    decode: Callable[[bytes], AnnounceAnswer]
    _open: dict[str, _Batch] = Factory(dict)
    _singly_until: dict[str, float] = Factory(dict)

    async def tell(self, host: str, digest: Digest, info_hash: InfoHash) -> AnnounceAnswer | None:
        """Announce together with others.

        Returns:
            None when it has to be announced singly: there are no others, or the tracker knows no batches.

        Raises:
            Unavailable: the tracker did not answer.
        """
        if self.clock.seconds() < self._singly_until.get(host, 0.0):
            return None
        batch = self._open.get(host)
        if batch is None:
            batch = self._open[host] = _Batch()
            batch.end = self.clock.callLater(_GATHER_S, self._send, host).cancel
        answer: Deferred[AnnounceAnswer | None] = Deferred(lambda gone: self._left(host, batch, gone))
        batch.waiting[answer] = (digest, info_hash)
        if len(batch.waiting) >= MAX_BATCH:
            batch.end()
            self._send(host)
        return await answer

    def _left(self, host: str, batch: _Batch, gone: Deferred[AnnounceAnswer | None]) -> None:
        """One waits no more. Nothing goes on for nobody."""
        batch.waiting.pop(gone, None)
        if not batch.waiting:
            batch.end()
            if self._open.get(host) is batch:
                del self._open[host]

    def _send(self, host: str) -> None:
        batch = self._open.pop(host)
        work = Deferred.fromCoroutine(self._post(host, list(batch.waiting.values())))
        batch.end = work.cancel

        def answered(answer: AnnounceAnswer | None) -> None:
            for each in _taken(batch):
                each.callback(answer)

        def failed(failure: Failure) -> None:
            for each in _taken(batch):
                each.errback(Failure(failure.value))

        work.addCallbacks(answered, failed)

    async def _post(self, host: str, torrents: list[tuple[Digest, InfoHash]]) -> AnnounceAnswer | None:
        if len(torrents) == 1:
            return None
        body = {
            "peer": self.context.as_peer(complete=True).to_json(),
            "again": int(self.again_s * 1_000_000_000),
            "torrents": {str(info_hash): str(digest) for digest, info_hash in torrents},
        }
        response = await self.http.request(
            "POST",
            f"http://{host}/announces",
            body=json.dumps(body, separators=(",", ":")).encode(),
            timeout_s=self.timeout_s,
            ok=(200, 404, 405),
            max_body=_MAX_ANSWER,
        )
        if response.status != 200:
            self._singly_until[host] = self.clock.seconds() + _SINGLY_S
            return None
        return self.decode(response.body)


def _taken(batch: _Batch) -> list[Deferred[AnnounceAnswer | None]]:
    """Those who still wait, and wait no more."""
    waiting, batch.waiting = list(batch.waiting), {}
    return waiting
