"""The ring of origins as one member sees it."""

# mypy: allow-untyped-calls
# twisted.application has no types.

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from krakentx.clients.config import ActiveConfig, RingConfig
from krakentx.clients.hosts import HostPool
from krakentx.core.digest import Digest
from krakentx.core.errors import ConfigError, KrakenError, Unavailable
from krakentx.core.hashring import locations
from krakentx.web.client import HttpClient


class Ring(Service):
    """Who owns which blob, by the members that answer `/health`.

    A process that is alone (an empty pool) owns everything; what it is called is then for each client to say, which
    reached it by some name.

    Args:
        me: labels by which the ring may name this process.
    """

    log = Logger()

    def __init__(
        self,
        pool: HostPool,
        http: HttpClient,
        *,
        me: tuple[str, ...],
        ring: RingConfig,
        health: ActiveConfig,
        reactor: IReactorTime,
    ) -> None:
        self._pool = pool
        self._http = http
        self._me = me
        self._config = ring
        self._health = health
        self._members: tuple[str, ...] = ()
        self._out: set[str] = set()
        self._streaks: dict[str, int] = {}  # answers in a row that speak against what is believed of a host
        self._refreshing = LoopingCall(self._refresh)
        self._refreshing.clock = reactor

    @property
    def alone(self) -> bool:
        """No ring is configured."""
        return not self._pool

    @property
    def self_label(self) -> str:
        """What the ring calls this process; empty while it does not name it."""
        return next((label for label in self._me if label in self._members), "")

    def check_membership(self, static: tuple[str, ...]) -> None:
        """Refuse a fixed list of members which does not name this process.

        Raises:
            ConfigError
        """
        if static and not set(static) & set(self._me):
            raise ConfigError(
                f"cluster.static names {', '.join(static)}, none of which is this origin; "
                f"add {self._me[0]} there, or say with --blobserver-hostname which one it is"
            )
        self._members = static

    def owners(self, digest: Digest) -> list[str]:
        """The members that own a blob, the most wanted first; empty when it is alone."""
        return locations(digest, self._members, self._config.max_replica, self._is_up)

    def others(self, digest: Digest) -> list[str]:
        """The owners except this process."""
        return [host for host in self.owners(digest) if host != self.self_label]

    def owns(self, digest: Digest) -> bool:
        """Whether this process is an owner."""
        return self.alone or self.self_label in self.owners(digest)

    def _is_up(self, host: str) -> bool:
        return host not in self._out

    def startService(self) -> None:
        """Begin to watch the members."""
        super().startService()
        if not self.alone:
            self._refreshing.start(self._config.refresh_interval_s).addErrback(self._failed)

    def stopService(self) -> None:
        """Watch no more."""
        super().stopService()
        if self._refreshing.running:
            self._refreshing.stop()

    def _failed(self, failure: Failure) -> None:
        self.log.failure("the ring is watched no longer", failure=failure)

    def _refresh(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._look())

    async def _look(self) -> None:
        try:
            self._members = await self._pool.hosts()
        except KrakenError as error:
            self.log.warn("the members of the ring are unknown: {error}", error=str(error))
            return
        if not self.self_label:
            self.log.warn("the ring {members} does not name {me}", members=self._members, me=self._me[0])
        others = [host for host in self._members if host != self.self_label]
        await gatherResults([Deferred.fromCoroutine(self._ask(host)) for host in others])

    async def _ask(self, host: str) -> None:
        problem = ""
        try:
            await self._http.request("GET", f"http://{host}/health", timeout_s=self._health.timeout_s)
        except Unavailable as error:
            problem = error.reason
        out = host in self._out
        turning = not problem if out else bool(problem)
        self._streaks[host] = self._streaks.get(host, 0) + 1 if turning else 0
        if self._streaks[host] < (self._health.passes if out else self._health.fails):
            return
        self._streaks[host] = 0
        if out:
            self._out.discard(host)
            self.log.info("origin {host} is back", host=host)
        else:
            self._out.add(host)
            self.log.warn("origin {host} is out: {problem}", host=host, problem=problem)
