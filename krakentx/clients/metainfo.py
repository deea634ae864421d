"""Metainfo from the tracker, or past it when it does not answer soon."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from krakentx.clients.fallback import HttpFallback
from krakentx.clients.tracker import TrackerClient
from krakentx.core.digest import Digest
from krakentx.core.errors import NotFound, Unavailable
from krakentx.core.metainfo import MetaInfo


@frozen
class MetaInfoSources:
    """An `IMetaInfoSource`: the trackers, and the fallback hosts as well when those give no answer soon.

    Whoever answers first wins and the other question is cancelled. A tracker that says the blob is absent is believed.

    Args:
        patience_s: how long the trackers are asked alone.
    """

    trackers: TrackerClient
    fallback: HttpFallback
    clock: IReactorTime
    patience_s: float = 1.0

    async def metainfo(self, namespace: str, digest: Digest) -> MetaInfo:
        """How the blob is cut into pieces.

        Raises:
            NotFound: known to be absent. Unavailable: nobody could tell.
        """
        if not self.fallback.pool:
            return await self.trackers.metainfo(namespace, digest)
        go: Deferred[None] = Deferred()
        timer = self.clock.callLater(self.patience_s, go.callback, None)

        def no_use_waiting(failure: Failure) -> Failure:
            if timer.active():
                timer.cancel()
                if isinstance(failure.value, NotFound):
                    go.errback(failure)
                else:
                    go.callback(None)
            return failure

        async def past_the_tracker() -> MetaInfo:
            await go
            return await self.fallback.metainfo(namespace, digest)

        first = Deferred.fromCoroutine(self.trackers.metainfo(namespace, digest))
        first.addErrback(no_use_waiting)
        second = Deferred.fromCoroutine(past_the_tracker())
        try:
            # A pair (value, index) as soon as one succeeded, else the list of failures.
            outcome: Any = await DeferredList([first, second], fireOnOneCallback=True, consumeErrors=True)
        finally:
            if timer.active():
                timer.cancel()
            first.cancel()
            second.cancel()
        if isinstance(outcome, tuple):
            meta: MetaInfo = outcome[0]
            return meta
        errors: list[BaseException] = [failure.value for _, failure in outcome]
        absent = [error for error in errors if isinstance(error, NotFound)]
        raise (absent or errors)[0]

    async def strong_sums(self, namespace: str, digest: Digest) -> MetaInfo:
        """Metainfo with strong sums, which an origin makes now if it has none yet.

        Raises:
            Unavailable: nobody that was asked knows of such sums, as nobody does among the reference's.
        """
        for source in (self.trackers, self.fallback) if self.fallback.pool else (self.trackers,):
            try:
                meta = await source.metainfo(namespace, digest, strong=True)
            except (NotFound, Unavailable):
                continue
            if meta.strong_sums:
                return meta
        raise Unavailable("every tracker and origin", "knows no strong sums")
