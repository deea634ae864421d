"""`krakentx VERB ...`: each verb is a module of this package with `add(verbs)`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from krakentx import __version__
from krakentx.cli import devcluster, sim
from krakentx.cli.twistd import run_plain

VERBS = (devcluster, sim)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and exit with its code; what the operator can mend is one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="krakentx", description="Tools around the KrakenTX daemons.")
    parser.add_argument("--version", action="version", version=f"krakentx {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb in VERBS:
        verb.add(verbs)
    args = parser.parse_args(argv)
    raise SystemExit(run_plain(lambda: args.run(args)))


if __name__ == "__main__":
    main()
