"""Quiet: lines about strangers, few of each kind a minute, so that nobody can fill a log from outside."""

from __future__ import annotations

from typing import Any

from attrs import define
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel

WINDOW_S = 60.0
MOST_ABOUTS = 256


@define
class _Told:
    since: float
    lines: int = 0


class Quiet:
    """Tells so many lines about something in a minute; the rest is `debug`, and one line says so.

    Args:
        most: lines a minute about one thing.
    """

    def __init__(self, clock: IReactorTime, most: int) -> None:
        self._clock = clock
        self._most = most
        self._told: dict[str, _Told] = {}

    def emit(self, about: str, log: Logger, level: Any, text: str, **fields: Any) -> None:
        """Log a line, if there is room for it.

        Args:
            about: whose line it is: the address of a host, say. With too many of them in a minute the newest share.
        """
        now = self._clock.seconds()
        if about not in self._told and len(self._told) >= MOST_ABOUTS:
            self._told = {key: each for key, each in self._told.items() if now - each.since < WINDOW_S}
            if len(self._told) >= MOST_ABOUTS:
                about = "others"
        told = self._told.setdefault(about, _Told(now))
        if now - told.since >= WINDOW_S:
            told.since, told.lines = now, 0
        told.lines += 1
        log.emit(level if told.lines <= self._most else LogLevel.debug, text, **fields)
        if told.lines == self._most:
            log.emit(level, "more like this about {about} is told at --log-level debug for a minute", about=about)
