"""One target under atheris; the arguments behind its name are those of libFuzzer."""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    name, *argv = sys.argv[1:]
    with atheris.instrument_imports(include=["krakentx.", "json.decoder"]):
        from tests.fuzz.targets import TARGETS
    target, max_len = TARGETS[name]
    atheris.Setup([sys.argv[0], f"-max_len={max_len}", *argv], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
