"""How a log line looks: plain text or JSON, and every line names its component.

Text: `2026-08-16T10:00:00.123+0000 INFO  [tracker] announce of ...`; each line of a traceback carries the same head, so
that `grep tracker` finds all of it. JSON: one object per event with the event's own fields beside the text.

Which component an event belongs to: its own `component` field; else the HTTP endpoint it is about; else the package
that logs it (`krakentx.tracker.logic`); else, for packages which several components share, the one that uses it here.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
from collections.abc import Mapping
from typing import IO, Any, cast

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    eventAsText,
    globalLogBeginner,
)
from twisted.python.logfile import LogFile
from zope.interface import provider

COMPONENTS = {
    "agent": "agent",
    "buildindex": "build-index",
    "herd": "herd",
    "origin": "origin",
    "proxy": "proxy",
    "testfs": "testfs",
    "tracker": "tracker",
}
_NAMES = frozenset(COMPONENTS.values())
# In a herd these shared packages serve one component only; in any other process they serve that process's component.
_IN_HERD = {"peer": "origin", "registry": "proxy"}
# Twisted calls every logged failure critical; to an operator it is an error like others.
_LEVELS = {LogLevel.debug: "DEBUG", LogLevel.info: "INFO", LogLevel.warn: "WARN"}
_ROTATE_BYTES = 64 << 20
_ROTATED_FILES = 5


def component_of(event: LogEvent, process: str) -> str:
    """The component that `event` belongs to, in a process that runs `process`."""
    if event.get("component"):
        return str(event["component"])
    endpoint = str(event.get("name") or "").partition(" ")[0]  # HTTP endpoints are named like `proxy registry`
    if endpoint in _NAMES:
        return endpoint
    root, _, rest = str(event.get("log_namespace") or "").partition(".")
    package = rest.partition(".")[0]
    if root != "krakentx":
        return process
    if package in COMPONENTS:
        return COMPONENTS[package]
    return _IN_HERD.get(package, process) if process == "herd" else process


def observer(out: IO[str], component: str, *, as_json: bool, level: LogLevel | None = None) -> ILogObserver:
    """An observer that writes to `out`; of Twisted's own chatter only what matters."""

    def render(event: LogEvent) -> str:
        return _json_line(event, component) if as_json else _text_lines(event, component)

    levels = LogLevelFilterPredicate(defaultLogLevel=level or LogLevel.info)
    filtering: ILogObserver = FilteringLogObserver(FileLogObserver(out, render), [_no_chatter, levels])
    return filtering


@provider(ILogFilterPredicate)
def _no_chatter(event: LogEvent) -> Any:
    """Drop what Twisted tells of every port and factory: our own services say what listens where."""
    text = str(event.get("log_text") or event.get("log_format") or "")
    legacy_listening = event.get("log_namespace") == "log_legacy" and " starting on " in text
    if legacy_listening or text.startswith(("Starting factory", "Stopping factory")):
        return PredicateResult.no
    return PredicateResult.maybe


def log_file(path: str) -> IO[str]:
    """A file that starts anew each 64 MiB and keeps the last five.

    Raises:
        OSError: it cannot be written.
    """
    directory, name = os.path.split(os.path.abspath(path))
    file = LogFile(name, directory, _ROTATE_BYTES, maxRotatedFiles=_ROTATED_FILES)
    return cast("IO[str]", file)


def json_wanted(env: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment asks for JSON lines."""
    return env.get("KRAKEN_LOG_FORMAT", "").lower() == "json"


def start_logging(component: str, as_json: bool = False, out: IO[str] | None = None) -> None:
    """Begin to log to `out` (stderr by default) in a program that is not run by twistd."""
    observers = [observer(out or sys.stderr, component, as_json=as_json)]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False)


def _text_lines(event: LogEvent, process: str) -> str:
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    if not text:
        return ""
    level = _LEVELS.get(event.get("log_level", LogLevel.info), "ERROR")
    head = f"{_time(event)} {level:<5} [{component_of(event, process)}] "
    return "".join(f"{head}{line}\n" for line in text.splitlines())


def _json_line(event: LogEvent, process: str) -> str:
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    if not text:
        return ""
    own = {name: value for name, value in event.items() if not name.startswith(("log_", "isError", "_"))}
    line: dict[str, Any] = {
        **own,
        "time": _time(event),
        "level": _LEVELS.get(event.get("log_level", LogLevel.info), "ERROR").lower(),
        "component": component_of(event, process),
        "namespace": event.get("log_namespace", ""),
        "message": text,
    }
    return json.dumps(line, default=str, ensure_ascii=False) + "\n"


def _time(event: LogEvent) -> str:
    at = datetime.datetime.fromtimestamp(event.get("log_time") or 0.0).astimezone()
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}" + at.strftime("%z")
