"""Peers in redis, shared by several trackers, ours and the reference's alike (docs/wire.md, "Peer store").

Key `peerset:<infohash>:<window>`, a set of members `<peer id>:<ip>:<port>:<0|1>`; the last part says whether the peer
is complete. A window begins every hour, and the last five count. The port of a peer that speaks TLS is written with a
zero before it, which reads as the same number everywhere.

Every peer is kept in memory too. So redis may be down without anybody noticing more than fewer peers, and what this
tracker knows of a peer (gone, out of reach) counts for the members that redis names, which nobody ever removes.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import txredisapi
from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred, FirstError, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from krakentx.core.errors import InvalidInput
from krakentx.core.peer import InfoHash, PeerID, PeerInfo, parse_address
from krakentx.tracker.config import RedisConfig
from krakentx.tracker.interfaces import Announcement
from krakentx.tracker.stores import LocalStore

_ANSWER_S = 1.0
"""An announce does not wait longer for redis, however patient `read_timeout` is."""

T = TypeVar("T")

_REDIS_PORT = 6379
_SENTINEL_PORT = 26379
_FAILURES = (txredisapi.RedisError, OSError, TimeoutError)


def encode_member(peer: PeerInfo) -> str:
    """A peer as a member of its set."""
    return f"{peer.peer_id}:{peer.ip}:{'0' if peer.tls else ''}{peer.port}:{int(peer.complete)}"


@lru_cache(maxsize=1 << 16)
def decode_member(text: str) -> PeerInfo:
    """Read a member; the address may be IPv6. Kept, since the same members come back in one answer after the other.

    Raises:
        InvalidInput: it is none.
    """
    peer_id, _, rest = text.partition(":")
    parts = rest.rsplit(":", 2)
    if len(parts) != 3 or not parts[0] or parts[2] not in ("0", "1") or not parts[1].isdecimal():
        raise InvalidInput("peer", f"{text[:140]!r} is no member of a peer set")
    port = parts[1]
    return PeerInfo(PeerID.parse(peer_id), parts[0], int(port), complete=parts[2] == "1", tls=port.startswith("0"))


class RedisStore:
    """An `IPeerStore` in redis.

    Args:
        local: the memory beside it.
        connection: a txredisapi handler; its `disconnect` ends it.
        clock: seconds since the epoch, as those of a reactor.
    """

    log = Logger()

    def __init__(self, local: LocalStore, connection: Any, config: RedisConfig, clock: IReactorTime) -> None:
        self._local = local
        self._redis = connection
        self._config = config
        self._clock = clock
        self._mending: Deferred[None] | None = None  # while redis is down
        self._size = max(1, int(config.peer_set_window_size_s))

    def start(self) -> None:
        """Begin to forget silent peers."""
        self._local.start()

    async def stop(self) -> None:
        """Close the connections."""
        if self._mending is not None:
            self._mending.cancel()
        await self._local.stop()
        await self._redis.disconnect()

    async def exchange(self, announcement: Announcement, limit: int) -> list[PeerInfo]:
        """Record the peer, and name at most `limit` random others of its torrent."""
        known = await self._local.exchange(announcement, limit)
        found = await self._shared(lambda now: self._exchange(announcement, limit, now))
        return known if found is None else self._merge(announcement, known, found, limit)

    async def record(self, announcements: Sequence[Announcement]) -> None:
        """Only record peers, and what they say of others."""
        await self._local.record(announcements)
        await self._shared(lambda now: self._record_all(announcements, now))

    async def _record_all(self, announcements: Sequence[Announcement], now: int) -> None:
        """In two round trips: over several connections an expiry would overtake the set that it is for."""
        commands = [command for announcement in announcements for command in self._record(announcement, now)]
        await self._all(*(command for command in commands if command[0] != "EXPIREAT"))
        await self._all(*(command for command in commands if command[0] == "EXPIREAT"))

    async def _shared(self, ask: Callable[[int], Coroutine[Any, Any, T]]) -> T | None:
        """What redis answers; None when it is down, and for what has no answer."""
        if self._mending is not None:
            return None
        shared = Deferred.fromCoroutine(ask(int(self._clock.seconds())))
        try:
            return await shared.addTimeout(_ANSWER_S, self._clock)
        except _FAILURES as error:
            self._went_down(error)
            return None

    def _went_down(self, error: Exception) -> None:
        if self._mending is not None:  # another announce, sent before, has told
            return
        self.log.warn(
            "redis at {addr} does not answer ({error}); going on from memory",
            addr=self._config.where,
            error=str(error) or type(error).__name__,
        )
        self._mending = Deferred.fromCoroutine(self._mend())
        self._mending.addErrback(self._mending_failed)

    async def _mend(self) -> None:
        """Try redis now and then, so that announces need not: each would wait in vain."""
        began = self._clock.seconds()
        while True:
            await deferLater(self._clock, self._config.retry_s)
            ping: Deferred[Any] = self._redis.execute_command("PING")
            try:
                await ping.addTimeout(_ANSWER_S, self._clock)
            except _FAILURES:
                continue
            break
        self._mending = None
        self.log.info(
            "redis at {addr} answers again after {elapsed_s:.0f} s",
            addr=self._config.where,
            elapsed_s=self._clock.seconds() - began,
        )

    def _mending_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("redis is no longer tried; peers stay in memory", failure=failure)

    def _windows(self, now: int) -> list[int]:
        current = now - now % self._size
        return [current - self._size * back for back in range(max(1, self._config.max_peer_set_windows))]

    def _record(self, announcement: Announcement, now: int) -> list[tuple[Any, ...]]:
        """The commands that record a peer, or that it has stopped."""
        windows = self._windows(now)
        info_hash, peer = announcement.info_hash, announcement.peer
        if announcement.stopped:
            spellings = _spellings(peer, False) + _spellings(peer, True)
            return [("SREM", _key(info_hash, window), *spellings) for window in windows]
        key, expires = _key(info_hash, windows[0]), windows[0] + self._size * len(windows)
        record: list[tuple[Any, ...]] = [("SADD", key, encode_member(peer)), ("EXPIREAT", key, expires)]
        if peer.tls:  # what it was called before it spoke TLS would send others to the plain wire
            record.append(("SREM", key, *_spellings(peer, False)))
        return record

    async def _exchange(self, announcement: Announcement, limit: int, now: int) -> list[str]:
        record = self._record(announcement, now)
        if announcement.stopped or not limit:
            await self._all(*record)
            return []
        key, *older_keys = (_key(announcement.info_hash, window) for window in self._windows(now))
        members: list[str] = (await self._all(*record, ("SRANDMEMBER", key, limit + 1)))[-1]
        if len(members) <= limit:
            older = await self._all(*(("SRANDMEMBER", name, limit) for name in older_keys))
            members = [*members, *(member for window in older for member in window)]
        return members

    async def _all(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send all at once, wait for all: one round trip."""
        asked = [self._redis.execute_command(*command) for command in commands]
        try:
            return list(await gatherResults(asked, consumeErrors=True))
        except FirstError as error:
            error.subFailure.raiseException()

    def _merge(
        self, announcement: Announcement, known: list[PeerInfo], members: list[str], limit: int
    ) -> list[PeerInfo]:
        """Both sources as one list: what this tracker knows itself has the last word."""
        now, memory = self._clock.seconds(), self._local.memory
        found = {peer.peer_id: peer for peer in known}
        others: dict[PeerID, PeerInfo] = {}
        suspect: dict[PeerID, PeerInfo] = {}
        for member in members:
            try:
                peer = decode_member(member)
            except InvalidInput:
                self.log.debug("skipping {member} in redis", member=member)
                continue
            if peer.peer_id in found or peer.peer_id == announcement.peer.peer_id:
                continue
            state = memory.known(announcement.info_hash, peer.peer_id, now)
            if state.gone:
                continue
            into = suspect if state.suspect else others
            earlier = into.setdefault(peer.peer_id, peer)  # of the same window, or a newer one
            if peer.complete and not earlier.complete:
                into[peer.peer_id] = evolve(earlier, complete=True)
        return [*found.values(), *others.values(), *suspect.values()][:limit]


def _spellings(peer: PeerInfo, tls: bool) -> list[str]:
    """A peer as a member, before and after it is complete."""
    return [encode_member(evolve(peer, tls=tls, complete=complete)) for complete in (False, True)]


def _key(info_hash: InfoHash, window: int) -> str:
    return f"peerset:{info_hash}:{window}"


@frozen
class _Sentinels:
    """A handler whose redis is wherever the sentinels say."""

    sentinels: Any
    handler: Any

    def execute_command(self, *command: Any) -> Deferred[Any]:
        """As that of a txredisapi handler."""
        answer: Deferred[Any] = self.handler.execute_command(*command)
        return answer

    async def disconnect(self) -> None:
        """Close the connections to both."""
        await self.handler.disconnect()
        await self.sentinels.disconnect()


def connect(config: RedisConfig) -> Any:
    """Begin to connect, and keep connecting. Commands wait for a connection, so give them a deadline.

    Raises:
        InvalidInput: an address is none.
    """
    if not config.sentinels:
        host, port = parse_address(config.addr, _REDIS_PORT)
        return txredisapi.lazyConnectionPool(
            host,
            port,
            poolsize=config.max_active_conns,
            connectTimeout=config.dial_timeout_s,
            replyTimeout=config.read_timeout_s,
            convertNumbers=False,
        )
    sentinels = txredisapi.Sentinel(
        [parse_address(address, _SENTINEL_PORT) for address in config.sentinels], connectTimeout=config.dial_timeout_s
    )
    sentinels.discovery_timeout = config.dial_timeout_s
    handler = sentinels.master_for(
        config.sentinel_master,
        poolsize=config.max_active_conns,
        replyTimeout=config.read_timeout_s,
        convertNumbers=False,
    )
    return _Sentinels(sentinels, handler)
