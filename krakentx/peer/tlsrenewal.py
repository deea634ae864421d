"""New certificates without a restart: who renews the files of `tls` need not tell anybody."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import IServiceCollection
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from krakentx.core.errors import ConfigError
from krakentx.peer.tlsconfig import PeerTls, TlsConfig, load_tls
from krakentx.storage.threads import Threads

LOOK_S = 60.0

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Of each file its inode, size and time of change; None for one that is not there."""


def renewed_tls(config: TlsConfig, parent: IServiceCollection, *, reactor: Any, pool: ThreadPool) -> PeerTls | None:
    """`load_tls`, and again whenever its files change while `parent` runs."""
    seen = stamp_of(config.files)
    tls = load_tls(config)
    if tls is not None:
        renewal = TlsRenewal(config, tls, seen, reactor=reactor, pool=pool)
        renewal.setServiceParent(parent)  # type: ignore[no-untyped-call]
    return tls


class TlsRenewal(TimerService):
    """Looks whether the files are others now, and has the next handshakes use those; connections that are up live on.

    Files that do not fit (a certificate that is there before its key, say) are told, and the old ones stay in use until
    something of them changes again.

    Args:
        tls: what was made of the files at the start.
        seen: how they were before that.
    """

    log = Logger()

    def __init__(
        self, config: TlsConfig, tls: PeerTls, seen: Stamp, *, reactor: Any, pool: ThreadPool, every_s: float = LOOK_S
    ) -> None:
        super().__init__(every_s, self._look)  # type: ignore[no-untyped-call]
        self.setName("certificates")  # type: ignore[no-untyped-call]
        self.clock = reactor
        self._config = config
        self._tls = tls
        self._threads = Threads(reactor, pool)
        self._seen = seen

    async def _look(self) -> None:
        stamp = await self._threads.run(stamp_of, self._config.files)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            fresh = await self._threads.run(load_tls, self._config)
        except ConfigError as error:
            self.log.error("tls: the new files are not used, the old ones stay: {error}", error=str(error))
            return
        assert fresh is not None, "nothing looks after a section that is off"
        self._tls.renew(fresh)
        self.log.info("tls: new certificates are in use; the first ends at {end}", end=time.ctime(fresh.expires))


def stamp_of(files: tuple[Path, ...]) -> Stamp:
    """How the files are now."""
    return tuple(map(_of, files))


def _of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
