"""The hash of the whole, and what of a blob is wrong when it does not fit."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger

from krakentx.core.bitfield import Bitfield
from krakentx.core.errors import Corrupt, KrakenError
from krakentx.peer.interfaces import IMetaInfoSource
from krakentx.peer.torrents import Torrent
from krakentx.swarm import events as ev

STRONG_SUMS_S = 60.0
"""How long an origin may take to make the strong sums of a blob that has none yet."""

_log = Logger()


async def verify_blob(torrent: Torrent, metainfo: IMetaInfoSource | None, reactor: Any) -> ev.Event | None:
    """Hash an arriving blob that has all its pieces, and move it into the cache.

    Args:
        metainfo: where strong sums may be had if the torrent has none, and a piece of it is wrong.

    Returns:
        What the Engine is to be told: nothing of a torrent that was put away meanwhile.
    """
    assert torrent.partial is not None
    torrent.verifying = True
    torrent.hold()
    try:
        await torrent.partial.verify()
        if torrent.closing:
            return None
        torrent.set_verified(reactor.seconds())
        await torrent.commit()
    except Corrupt as error:
        torrent.corrupted(error)
        bad = await _wrong_pieces(torrent, metainfo, reactor)
        _log.error(
            "blob {digest} is corrupt, {wrong} of its {pieces} pieces are wrong: {error}",
            digest=str(torrent.digest),
            wrong="nobody knows which" if bad is None else len(bad),
            pieces=torrent.meta.piece_count,
            error=str(error),
        )
        return ev.BlobCorrupt(torrent.info_hash, bad)
    except (OSError, KrakenError) as error:
        return ev.StorageFailed(torrent.info_hash, torrent.storage_trouble(error))
    finally:
        torrent.verifying = False
        torrent.release()
    return ev.BlobVerified(torrent.info_hash)


async def _wrong_pieces(torrent: Torrent, metainfo: IMetaInfoSource | None, reactor: Any) -> Bitfield | None:
    """The pieces whose strong sums do not match; None when nobody knows those, or all do match."""
    assert torrent.partial is not None
    try:
        if not torrent.meta.strong_sums:
            if metainfo is None:
                return None
            work = Deferred.fromCoroutine(metainfo.strong_sums(torrent.namespace, torrent.digest))
            torrent.learn(await work.addTimeout(STRONG_SUMS_S, reactor))
        return await torrent.partial.misfits() or None
    except (OSError, KrakenError, TimeoutError) as error:
        _log.info(
            "nobody knows which pieces of {digest} are wrong: {why}",
            digest=str(torrent.digest),
            why=str(error) or "no answer in time",
        )
        return None
