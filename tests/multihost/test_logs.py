"""The words of docs/logs.md, looked for by grep in the logs of real pushes and pulls."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.clients.tools import wait_for
from tests.multihost.box import REPOSITORY
from tests.multihost.conftest import Site, answers

# The first test of a run also waits for the hosts and for the first deployments.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

PUSHES = 3
PARTS = {"herd": {"herd", "testfs", "origin", "tracker", "build-index", "proxy"}, "agent": {"agent"}}
_ROW = re.compile(r"^\| `(.+?)` \| (herd|agent) \|", re.MULTILINE)
_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4} (?:DEBUG|INFO|WARN|ERROR)\s+\[([a-z-]+)\] .+")
ROWS = [
    (pattern.replace("\\|", "|"), where) for pattern, where in _ROW.findall((REPOSITORY / "docs/logs.md").read_text())
]
ON_TROUBLE = {"connection refused, addr", "the tracker says"}


def grep(pattern: str, text: str) -> list[str]:
    done = subprocess.run(["grep", "-E", pattern], input=text, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def logs(site: Site) -> Iterator[dict[str, str]]:
    """What the herd and an agent wrote of a start, and of so many pushes and pulls."""
    site.ready()
    boxes = {"herd": site.herd, "agent": site.agent}
    before = {name: len(box.log(name)) for name, box in boxes.items()}
    site.deploy_herd()
    pushed = [(f"logs/app:v{n}", site.push(f"logs/app:v{n}")) for n in range(PUSHES)]
    for name, digests in pushed:
        site.pull(site.agent, name, digests[0])
    wait_for("the last blob", lambda: f"Torrent complete: {pushed[-1][1][2]}" in site.agent.log("agent"))
    yield {name: box.log(name)[before[name] :] for name, box in boxes.items()}


@pytest.fixture(scope="module")
def trouble(site: Site, logs: dict[str, str]) -> str:
    """What an agent wrote of a pull from a herd that announces an address of no use."""
    before = len(site.agent.log("agent"))
    site.deploy_herd("localhost")
    [manifest, *_] = site.push("logs/trouble:v1")
    assert answers(site.agent, f"http://localhost:16000/v2/logs/trouble/manifests/{manifest}")
    site.deploy_herd()
    return site.agent.log("agent")[before:]


@pytest.mark.parametrize(("pattern", "where"), ROWS)
def test_pattern(logs: dict[str, str], trouble: str, pattern: str, where: str) -> None:
    found = grep(pattern, trouble if pattern in ON_TROUBLE else logs[where])
    assert found
    print(f"{len(found)} lines, for instance: {found[0]}")


def test_the_words_of_the_guide_are_in_the_table() -> None:
    words = {pattern for pattern, _ in ROWS}
    assert {"push", "Torrent complete", "Added new torrent", "Added pending conn", "tracker"} <= words
    assert {"Moved conn from pending to active", "torrent|conn|peer", "downloaded|speed|rate"} <= words


def test_each_push_is_one_line(logs: dict[str, str]) -> None:
    lines = grep("push", logs["herd"])
    assert [re.sub(r"^.*\] ", "", line)[: len("push of logs/app:v0 complete")] for line in lines] == [
        f"push of logs/app:v{n} complete" for n in range(PUSHES)
    ]


def test_each_blob_is_completed_in_one_line_that_says_how(logs: dict[str, str]) -> None:
    lines = grep("Torrent complete", logs["agent"])
    assert len(lines) == 3 * PUSHES
    told = r"sha256:[0-9a-f]{64} downloaded \d+ bytes in \d+\.\d\d s, speed [\d.]+ MiB/s, 100% from peers, "
    assert all(re.search(told + r"0% from fallback \(0 bytes\)$", line) for line in lines)


def test_the_trackers_word_finds_its_lines_and_no_other(logs: dict[str, str]) -> None:
    lines = grep("tracker", logs["herd"])
    assert all("[tracker]" in line for line in lines)
    assert len(grep(r"\[tracker\] told 10\.0\.1\.101 the metainfo", logs["herd"])) == 3 * PUSHES


def test_a_dial_that_fails_names_the_address(trouble: str) -> None:
    assert grep(r"\[agent\] dial of [0-9a-f]{40} failed: connection refused, addr 127\.0\.0\.1:15001$", trouble)


@pytest.mark.parametrize("where", PARTS)
def test_every_line_names_its_component(logs: dict[str, str], where: str) -> None:
    named = set()
    for line in logs[where].splitlines():
        match = _LINE.fullmatch(line)
        assert match, line
        named.add(match[1])
    assert named == PARTS[where]


def test_no_program_was_missed(logs: dict[str, str]) -> None:
    assert grep("not found|No such file|cannot|Traceback", logs["herd"] + logs["agent"]) == []


def test_json_on_request(site: Site) -> None:
    before = len(site.agent.log("agent"))
    site.deploy_agent(site.agent, env={"KRAKEN_LOG_FORMAT": "json"})
    [manifest, *_] = site.push("logs/json:v1")
    site.pull(site.agent, "logs/json:v1", manifest)
    wait_for("the last blob", lambda: site.agent.log("agent")[before:].count("Torrent complete") == 3)
    lines = [line for line in site.agent.log("agent")[before:].splitlines() if line.startswith("{")]
    events = [json.loads(line) for line in lines]
    assert {event["component"] for event in events} == {"agent"}
    complete = [event for event in events if event["message"].startswith("Torrent complete")]
    assert all({"digest", "size_bytes", "elapsed_s", "rate", "fallback_bytes"} <= event.keys() for event in complete)
