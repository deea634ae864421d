"""Fetches by HTTP: pieces of a blob one after the other, from one origin, over the same cards as everything else.

An origin serves so many fetches at once, and lets as many more wait in line for a moment as its real likeness
(`krakentx/origin/line.py`). Who is sent away tries the next origin.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import Factory, define

from krakentx.sim.clock import Clock
from krakentx.sim.flows import Flow, Flows
from krakentx.sim.host import Host, Mind
from krakentx.swarm import effects as fx
from krakentx.swarm import events as ev
from krakentx.swarm.events import FetchProblem


@define(eq=False)
class Server:
    """The HTTP side of an origin."""

    host: Host
    clock: Clock
    at_once: int
    wait_s: float
    _active: int = 0
    _waiting: deque[Fetch] = Factory(deque)

    def enter(self, fetch: Fetch) -> None:
        """Serve a fetch, now or when its turn comes; `refused` is called when that would be too late."""
        if self._active < self.at_once:
            self._active += 1
            fetch.next()
        else:
            self._waiting.append(fetch)
            self.clock.at(self.wait_s, self._late, fetch)

    def leave(self, fetch: Fetch) -> None:
        """A fetch is over, or does not wait any longer."""
        if fetch in self._waiting:
            self._waiting.remove(fetch)
            return
        self._active -= 1
        if self._waiting:
            self._active += 1
            self._waiting.popleft().next()

    def _late(self, fetch: Fetch) -> None:
        if fetch in self._waiting:
            self._waiting.remove(fetch)
            fetch.refused()


@define(eq=False)
class Fetch:
    """One fetch of a host. Begin it with `refused`, as if somebody had.

    Args:
        servers: those to try, the first last.
        came: told of bytes that came over.
        over: told when nothing more will come.
    """

    flows: Flows
    host: Host
    engine: Mind
    servers: list[Server]
    effect: fx.FetchFromOrigin
    came: Callable[[Host, Host, int], None]
    over: Callable[[], object]
    _server: Server | None = None
    _done: int = 0
    _flow: Flow | None = None
    _closed: bool = False

    def refused(self) -> None:
        """Go to the next server."""
        self._server = None
        if self._closed:
            return
        if not self.servers:
            self._end(FetchProblem.UNAVAILABLE)
        else:
            self._server = self.servers.pop()
            self._server.enter(self)

    def next(self) -> None:
        """Ask for the next piece, or be done."""
        host, pieces, torrent, server = self.host, self.effect.pieces, self.effect.torrent, self._server
        assert server is not None, "nobody serves this fetch"
        gone = self._closed or not host.alive or host.engine is not self.engine or torrent not in host.loaded
        if gone or not server.host.alive:
            self._end(FetchProblem.UNAVAILABLE)
        elif self._done == len(pieces):
            self._end(None)
        else:
            size = host.wanted[torrent].piece_size(pieces[self._done])
            self._flow = self.flows.start(server.host.path_to(host), size, self._arrived)

    def _arrived(self) -> None:
        host, torrent, piece = self.host, self.effect.torrent, self.effect.pieces[self._done]
        self._flow = None
        self._done += 1
        self._moved(host.wanted[torrent].piece_size(piece))
        if host.alive and host.engine is self.engine:
            host.writing.discard((torrent, piece))
            host.keep(torrent, piece)
            host.tell(ev.PieceFetched(torrent, piece))
        self.next()

    def _moved(self, size: int) -> None:
        if self._server is not None:
            self.came(self.host, self._server.host, size)

    def stop(self) -> None:
        """The host wants no more of it; what was on its way is lost."""
        if self._flow is not None:
            self._moved(round(self.flows.stop(self._flow)))
        self._end(FetchProblem.UNAVAILABLE)

    def _end(self, problem: FetchProblem | None) -> None:
        if self._closed:
            return
        self._closed = True
        if self._server is not None:
            self._server.leave(self)
        self.over()
        if self.host.engine is self.engine and self.effect.torrent in self.host.loaded:
            for piece in self.effect.pieces[self._done :]:
                self.host.writing.discard((self.effect.torrent, piece))
            self.host.tell(ev.FetchEnded(self.effect.torrent, self.effect.pieces, problem))
