"""`backends` in the configuration: a list, of which the first entry whose regex is found in the namespace counts."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
from attrs import frozen

from krakentx.backend.paths import PathKind
from krakentx.core.errors import InvalidInput


@frozen
class TestfsConfig:
    """`testfs`: the file server that stands in for real storage."""

    __test__ = False  # not a test class

    addr: str = "127.0.0.1:14000"
    root: str = ""
    name_path: PathKind = "identity"


@frozen
class FileConfig:
    """`file`: a folder, on this host or mounted."""

    path: Path = Path()
    root: str = ""
    name_path: PathKind = "identity"


@frozen
class BackendChoice:
    """Exactly one of them."""

    testfs: TestfsConfig | None = None
    file: FileConfig | None = attrs.field(default=None)

    @file.validator
    def _one(self, _attribute: object, _value: object) -> None:
        if (self.testfs is None) == (self.file is None):
            names = ", ".join(field.name for field in attrs.fields(type(self)))
            raise InvalidInput("parameter", f"name exactly one backend of {names}")


@frozen
class BackendConfig:
    """One entry."""

    backend: BackendChoice = attrs.field()
    namespace: str = attrs.field(default=".*")

    UNUSED = frozenset({"bandwidth", "must_ready"})

    @namespace.validator
    def _regex(self, _attribute: object, value: str) -> None:
        try:
            re.compile(value)
        except re.error as error:
            raise InvalidInput("parameter", f"namespace {value!r} is not a regular expression: {error}") from error
