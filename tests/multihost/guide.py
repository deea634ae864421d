"""Reads docs/multihost.md: its commands, where they run, and what they print."""

from __future__ import annotations

import re

from attrs import frozen

from tests.multihost.box import REPOSITORY

PAGE = REPOSITORY / "docs/multihost.md"
_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{2,3} (.*)$", re.MULTILINE)
ANYTHING = "…"


@frozen
class Block:
    """A block of the page.

    Args:
        section: the heading above it.
        info: `sh herd` and the like: commands, and where they run; `text`: what is printed.
    """

    section: str
    info: str
    text: str


def blocks() -> list[Block]:
    """All of the page, in its order."""
    page = PAGE.read_text()
    headings = [(match.start(), match[1]) for match in _HEADING.finditer(page)]
    return [
        Block([title for at, title in headings if at < match.start()][-1], match["info"], match["text"])
        for match in _FENCE.finditer(page)
    ]


def missing(expected: str, printed: str) -> list[str]:
    """The lines of `expected` that are nowhere in `printed`, where `…` stands for anything."""
    return [
        line
        for line in expected.splitlines()
        if not re.search(".*".join(map(re.escape, line.strip().split(ANYTHING))), printed)
    ]
