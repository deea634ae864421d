"""How lines look, and to whom they belong."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from twisted.logger import Logger, LogLevel, LogPublisher

from krakentx import logs
from krakentx.core.digest import Digest
from krakentx.logs import component_of, json_wanted, log_file, observer


@pytest.mark.parametrize(
    "event, process, component",
    [
        ({"log_namespace": "krakentx.tracker.logic"}, "herd", "tracker"),
        ({"log_namespace": "krakentx.buildindex.api"}, "herd", "build-index"),
        ({"log_namespace": "krakentx.peer.scheduler"}, "herd", "origin"),
        ({"log_namespace": "krakentx.peer.scheduler"}, "agent", "agent"),
        ({"log_namespace": "krakentx.registry.api"}, "herd", "proxy"),
        ({"log_namespace": "krakentx.registry.api", "component": "agent"}, "herd", "agent"),
        ({"log_namespace": "krakentx.web.access", "name": "proxy management"}, "herd", "proxy"),
        ({"log_namespace": "krakentx.web.access", "name": "build-index"}, "herd", "build-index"),
        ({"log_namespace": "krakentx.storage.files", "name": "sha"}, "herd", "herd"),
        ({"log_namespace": "twisted.web.http"}, "origin", "origin"),
        ({}, "testfs", "testfs"),
    ],
)
def test_whose_line_it_is(event: dict[str, object], process: str, component: str) -> None:
    assert component_of(event, process) == component


def lines(as_json: bool, level: LogLevel | None = None) -> tuple[Logger, io.StringIO]:
    out = io.StringIO()
    publisher = LogPublisher(observer(out, "herd", as_json=as_json, level=level))
    return Logger(namespace="krakentx.origin.logic", observer=publisher), out


def test_a_text_line() -> None:
    log, out = lines(as_json=False)
    log.warn("lost {digest}", digest=Digest.of(b""))
    time, level, component, *words = out.getvalue().split()
    assert len(time) == len("2026-08-16T10:00:00.123+0000")
    assert (level, component, words[0]) == ("WARN", "[origin]", "lost")


def test_each_line_of_a_traceback_names_its_component() -> None:
    log, out = lines(as_json=False)
    try:
        raise ValueError("why")
    except ValueError:
        log.failure("it broke")
    text = out.getvalue().splitlines()
    assert len(text) > 3 and all(" ERROR [origin] " in line for line in text)
    assert "it broke" in text[0] and "ValueError: why" in text[-1]


def test_a_json_line_has_the_fields_of_the_event() -> None:
    log, out = lines(as_json=True)
    log.info("got {piece} of {digest}", piece=3, digest=Digest.of(b""))
    event = json.loads(out.getvalue())
    assert event["message"] == f"got 3 of {Digest.of(b'')}"
    assert (event["piece"], event["component"], event["level"]) == (3, "origin", "info")
    assert event["digest"] == str(Digest.of(b""))
    assert event["namespace"] == "krakentx.origin.logic"


def test_levels() -> None:
    log, out = lines(as_json=False)
    log.debug("quiet")
    assert out.getvalue() == ""
    log, out = lines(as_json=False, level=LogLevel.debug)
    log.debug("loud")
    assert "DEBUG [origin] loud" in out.getvalue()


def test_twisted_s_own_chatter_is_dropped() -> None:
    log, out = lines(as_json=False)
    log.info("Starting factory {factory!r}", factory=None)
    assert out.getvalue() == ""


def test_json_is_asked_for_by_the_environment() -> None:
    assert json_wanted({"KRAKEN_LOG_FORMAT": "JSON"})
    assert not json_wanted({"KRAKEN_LOG_FORMAT": "text"}) and not json_wanted({})


def test_a_log_file_is_continued(tmp_path: Path) -> None:
    for text in ("one\n", "two\n"):
        file = log_file(str(tmp_path / "x.log"))
        file.write(text)
        file.close()
    assert (tmp_path / "x.log").read_text() == "one\ntwo\n"


def test_a_log_file_starts_anew_and_keeps_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_ROTATE_BYTES", 4)
    before = os.umask(0o027)
    try:
        file = log_file(str(tmp_path / "x.log"))
        for number in range(8):
            file.write(f"{number}...")
        file.close()
    finally:
        os.umask(before)
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"x.log": "7...", **{f"x.log.{age}": f"{7 - age}..." for age in range(1, 6)}}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
