"""What `test_kill.py` runs and kills: commits uploads and downloads without end, and tells what was acknowledged."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from krakentx.core.digest import Digest
from krakentx.core.metainfo import PieceLengths, SumBuilder
from krakentx.storage.files import BlobStore
from krakentx.storage.pieces import PartialStore
from krakentx.storage.uploads import UploadStore

LENGTHS = PieceLengths(((0, 4096),))
reactor: Any = any_reactor


def stores(root: Path, pool: ThreadPool) -> tuple[BlobStore, PartialStore, UploadStore]:
    cache = BlobStore(root / "cache", reactor=reactor, pool=pool)
    partials = PartialStore(root / "download", cache, reactor=reactor, pool=pool)
    uploads = UploadStore(
        root / "uploads", cache, LENGTHS, reactor=reactor, pool=pool, idle_s=3600.0, limit=1000, persist=True
    )
    return cache, partials, uploads


def content(kind: str, number: int) -> bytes:
    return random.Random(f"{kind} {number}").randbytes(20_000 + number % 7 * 9000)


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def upload(uploads: UploadStore, number: int) -> None:
    data = content("upload", number)
    session = await uploads.create()
    for at in range(0, len(data), 7000):
        await session.write(data[at : at + 7000])
        say("offset", number, session.id, session.offset)
    await session.finish(Digest.of(data))
    say("finished", number)


async def download(partials: PartialStore, number: int) -> None:
    data = content("download", number)
    sums = SumBuilder(LENGTHS)
    sums.update(data)
    partial = await partials.open(sums.finish(Digest.of(data)))
    for piece in range(partial.meta.piece_count):
        start = partial.meta.offset(piece)
        os.pwrite(partial.fileno(), data[start : start + 4096], start)
        partial.mark(piece)
        say("piece", number, piece)
    await partial.commit()
    partial.close()
    say("downloaded", number)


async def main(root: Path, first: int) -> None:
    pool = ThreadPool(1, 4)
    pool.start()
    _cache, partials, uploads = stores(root, pool)
    say("begin")

    async def forever(work: Any, store: Any, start: int) -> None:
        for number in range(start, 1 << 30, 2):
            await work(store, number)

    for start in (first, first + 1):
        for work, store in ((upload, uploads), (download, partials)):
            Deferred.fromCoroutine(forever(work, store, start)).addErrback(fail)


def fail(failure: Failure) -> None:
    failure.printTraceback()
    os._exit(1)


if __name__ == "__main__":
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main(Path(sys.argv[1]), int(sys.argv[2]))).addErrback(fail))
    reactor.run()
