"""`krakentx sim`: a swarm of any size in one process, with the Engine of the agent on every host of it."""

from __future__ import annotations

import argparse
import gc
import re
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import attrs

from krakentx.config.fields import parse_duration, parse_size
from krakentx.core.errors import ConfigError, InvalidInput
from krakentx.core.metainfo import DEFAULT_PIECE_LENGTHS
from krakentx.sim import fair, plot, report
from krakentx.sim.faults import Faults, StrongSums
from krakentx.sim.scenario import POLICIES, Scenario, run
from krakentx.swarm.config import BandwidthConfig

_BAR = 30
_REDRAW_S = 0.5
_SHARES = {
    "host_death": "hosts that fall silent for good",
    "origin_death": "origins that fall silent for good",
    "blackout": "hosts whose network is away for a while",
    "restart": "hosts that restart and come back with the pieces they had",
    "stall": "pieces that stop half-way",
    "reset": "pieces under which the connection is reset",
    "mute": "hosts that never answer a request",
    "liar": "hosts that send wrong bytes",
    "lie": "pieces of a liar or forger that are wrong",
    "forger": "hosts that send wrong bytes which fit the CRC-32 of the piece",
    "announce_loss": "announces that fail",
}


def _value(parse: Callable[[object], Any]) -> Callable[[str], Any]:
    """A parser of ours for argparse, which shows the message of an ArgumentTypeError and of nothing else."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except InvalidInput as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def _number(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: give a whole number, at least {least}")
        return int(text)

    return convert


def _bits(text: str) -> int:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kMG]?)bit", text)
    value = round(float(match[1]) * 1000 ** " kMG".index(match[2] or " ")) if match else 0
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r}: write bits per second like 200Mbit or 2.5Gbit")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a share from 0 to 1")
    return value


def _span(text: str) -> tuple[float, float]:
    begin, colon, end = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r}: write two times like 1s:4s")
    return _value(parse_duration)(begin), _value(parse_duration)(end)


def add(verbs: Any) -> None:
    """Add this verb to the parser's `verbs`."""
    parser = verbs.add_parser(
        "sim",
        help="simulate a swarm with the agent's own Engine",
        description="Simulate a swarm: the agent's own Engine on every host, over modelled lines. The same options and "
        "the same seed give the same output to the byte. Sizes and --rate are powers of 1024, like 300MB; a plain "
        "number is bytes. --egress and --ingress are bits, in powers of 1000.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    size, duration = _value(parse_size), _value(parse_duration)
    option = parser.add_argument
    option("--hosts", type=_number(1), default=260, help="hosts that download")
    option("--origins", type=_number(1), default=1, help="hosts that have everything from the start")
    option("--trackers", type=_number(1), default=1, help="trackers that share the blobs")
    option("--blobs", type=_number(1), default=2, help="blobs that every host downloads")
    option("--blob-size", type=size, default="300MB", help="size of each")
    option("--rate", type=size, default="300MB", help="bytes per second of every card, each way")
    option("--egress", type=_bits, help="limit of every host, as egress_bits_per_sec: 200Mbit (default: its card)")
    option("--ingress", type=_bits, help="the same of what it receives, as ingress_bits_per_sec")
    option("--piece-length", type=size, help="piece length (default: as an origin chooses it)")
    option("--racks", type=_number(0), default=0, help="racks among which hosts are spread; 0 = no uplinks")
    option("--uplink", type=_share, default="1", help="of a rack, as a share of the sum of its hosts' rates")
    option("--latency", type=duration, default="500us", help="there and back")
    option("--hash-rate", type=size, default="0", help="bytes per second of sha256 at a host; 0 = no time at all")
    option("--arrival", type=duration, default="200ms", help="hosts arrive by chance within so long")
    option("--seed", type=_number(0), default=1, help="where all chance comes from")
    option("--policy", choices=sorted(POLICIES), default="ours", help="whose rules the hosts follow")
    option(
        "--strong-sums",
        choices=[each.value for each in StrongSums],
        default=StrongSums.ALWAYS.value,
        help="known to agents always; late, from an origin that is asked when a blob is corrupt; or never",
    )
    option("--json", type=Path, metavar="FILE", help="write the figures there, - for standard output")
    option("--plot", type=Path, metavar="FILE", help="draw completion, throughput and origin egress, as SVG")
    option("--record", type=Path, metavar="FILE", help="write a line for every effect of every host")
    faults = parser.add_argument_group("faults", "shares from 0 to 1; deaths, blackouts and restarts fall in --window")
    for name, doc in _SHARES.items():
        default = getattr(Faults(), name)
        faults.add_argument(f"--{name.replace('_', '-')}", type=_share, default=default, metavar="SHARE", help=doc)
    faults.add_argument("--tracker-outage", type=_span, metavar="FROM:TO", help="when no tracker answers")
    faults.add_argument("--blackout-time", type=duration, default="1s", help="how long a blackout lasts")
    faults.add_argument("--restart-time", type=duration, default="1s", help="how long a restart takes")
    faults.add_argument("--window", type=duration, help="when hosts may fail (default: arrivals and the ideal time)")
    parser.set_defaults(run=sim)


def scenario_of(args: argparse.Namespace) -> Scenario:
    """What the options ask for.

    Raises:
        ConfigError: sizes or rates of nothing.
    """
    for name in ("blob_size", "rate"):
        if not getattr(args, name):
            raise ConfigError(f"--{name.replace('_', '-')} must be more than 0")
    if args.racks and not args.uplink:
        raise ConfigError("--uplink must be more than 0")
    piece_length = args.piece_length or DEFAULT_PIECE_LENGTHS.choose(args.blob_size)
    card = 8 * args.rate
    bandwidth = BandwidthConfig(
        enable=bool(args.egress or args.ingress),
        egress_bits_per_sec=args.egress or card,
        ingress_bits_per_sec=args.ingress or card,
    )
    ideal_s = args.blobs * args.blob_size / min(args.rate, bandwidth.ingress_bytes_s or args.rate)
    faults = Faults(
        **{name: getattr(args, name) for name in _SHARES},
        tracker_down_s=args.tracker_outage or (0.0, 0.0),
        window_s=args.window or args.arrival + ideal_s,
        blackout_s=args.blackout_time,
        restart_s=args.restart_time,
    )
    return Scenario(
        hosts=args.hosts,
        origins=args.origins,
        trackers=args.trackers,
        blobs=args.blobs,
        blob_size=args.blob_size,
        rate=args.rate,
        piece_length=piece_length,
        racks=args.racks,
        uplink=args.uplink,
        latency_s=args.latency,
        arrival_s=args.arrival,
        seed=args.seed,
        bandwidth=bandwidth,
        policy=args.policy,
        strong_sums=StrongSums(args.strong_sums),
        faults=faults,
        hash_rate=args.hash_rate,
    )


@attrs.define
class _Bar:
    """Virtual time and the seconds left, on standard error when people look at it."""

    began: float = attrs.Factory(time.monotonic)
    drawn: float = 0.0

    def __call__(self, now: float, share: float) -> None:
        real = time.monotonic()
        if not sys.stderr.isatty() or real - self.drawn < _REDRAW_S:
            return
        self.drawn = real
        filled = int(share * _BAR)
        left = f"{(real - self.began) * (1 - share) / share:.0f} s left" if share > 0.01 else ""
        print(f"\r[{'#' * filled}{'.' * (_BAR - filled)}] {now:8.2f} s  {left:<14}", end="", file=sys.stderr)

    def end(self, events: int) -> None:
        """Say how quick it was: this machine's figure, so beside the output and not in it."""
        took = time.monotonic() - self.began
        blank = "\r\033[K" if sys.stderr.isatty() else ""
        print(f"{blank}{events} events in {took:.1f} s, {events / took:.0f} per second", file=sys.stderr)


def sim(args: argparse.Namespace) -> int:
    """Run, tell, write. Returns 1 when an honest host did not finish."""
    scenario = scenario_of(args)
    if args.plot is not None and args.plot.suffix.lower() != ".svg":
        raise ConfigError("only .svg can be drawn", args.plot)
    if not fair.COMPILED:
        print("numba is not installed; with it (pip install numba) this takes a fraction of the time", file=sys.stderr)
    bar = _Bar()
    with ExitStack() as stack:

        def opened(path: Path | None) -> TextIO | None:
            """Before the run, which may take long: a file that cannot be written is told at once."""
            if path is None:
                return None
            return sys.stdout if str(path) == "-" else stack.enter_context(path.open("w"))

        numbers, picture, lines = opened(args.json), opened(args.plot), opened(args.record)
        # What a run drops goes by counting. To walk over all the rest again and again took a third of a large run.
        gc.disable()
        stack.callback(gc.enable)
        outcome = run(scenario, record=partial(print, file=lines) if lines else None, watch=bar)
        bar.end(outcome.events)
        if numbers is not sys.stdout:
            print(report.table(outcome), end="")
        if numbers:
            print(report.to_json(outcome), end="", file=numbers)
        if picture:
            print(plot.svg(outcome), end="", file=picture)
    return 1 if outcome.unfinished else 0
