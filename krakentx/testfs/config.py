"""The configuration of testfs."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen


@frozen
class TestfsConfig:
    """A file server that stands in for real storage."""

    __test__ = False  # pytest takes every class whose name begins with Test for a test

    port: int = 14000
    interface: str = ""
    data_dir: Path | None = None
