"""A booted machine for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.systemd.machine import Machine, NoMachine, debian, install
from tests.wheel import build_wheel


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Debian with systemd and our package; nothing of ours runs yet."""
    try:
        tree = debian()
        machine = Machine(tree, tmp_path_factory.mktemp("machine"))
        try:
            machine.mount()
            install(machine.root, build_wheel(tmp_path_factory.mktemp("wheel")))
            machine.boot()
            yield machine
        finally:
            machine.close()
    except NoMachine as reason:
        pytest.skip(str(reason))
