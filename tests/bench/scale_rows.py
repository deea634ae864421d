"""The runs of `make scale`: each row of the table that a swarm must hold, and its smaller sister for every night."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import Factory, frozen

_SMALL = "--hosts 260 --origins 5 --blobs 2 --blob-size 300MB --rate 300MB"
_FULL = "--hosts 2600 --origins 5 --blobs 2 --blob-size 1536MB --rate 300MB"
_LONG = "--origins 5 --blobs 1 --rate 1250000000 --piece-length 64MB"
_PULL = "--origins 1 --blobs 1 --blob-size 10MB --rate 300MB --piece-length 256KB"


@frozen
class Row:
    """One run of `krakentx sim`.

    Args:
        options: its command line, without `krakentx sim`.
        target: figure in its JSON -> what it should be at most. Missing a target is told; it is no failure.
    """

    name: str
    options: str
    target: Mapping[str, float] = Factory(dict)


def _within(p50: float, p99: float, p999: float, **more: float) -> dict[str, float]:
    """Multiples of the ideal."""
    return {"p50_x": p50, "p99_x": p99, "p999_x": p999, **more}


_BEST = _within(1.05, 1.12, 1.15, origin_copies=4.0)
_SPREAD = _within(1.06, 1.15, 1.20)
_FAULTY = _within(1.10, 1.20, 1.25)
_FAR = {"p999_x": 1.25}
_RACKS = _within(1.10, 1.20, 1.25, max_copies_into_rack=3.0)
_QUICK = {"p50_s": 0.1, "max_s": 0.3, "origin_copies": 6.0}
_EIGHTY_PERCENT = {"p99_x": 1.25}


def _common(base: str, racks: int) -> tuple[Row, ...]:
    """What both sizes have."""
    lies = "--lie 0.2"
    return (
        *(Row(f"seed {seed}", f"{base} --seed {seed}", _BEST) for seed in (1, 2, 3)),
        Row("reference", f"{base} --policy reference"),
        *(Row(f"arrivals {span}", f"{base} --arrival {span}", _SPREAD) for span in ("1s", "10s", "60s")),
        Row("5 % die", f"{base} --host-death 0.05", _FAULTY),
        Row("2 % liars, caught by CRC", f"{base} --liar 0.02 {lies}", _FAULTY),
        Row("2 % forgers", f"{base} --forger 0.02 {lies}", _FAULTY),
        Row("2 % forgers, CRC only", f"{base} --forger 0.02 {lies} --strong-sums late", _FAULTY),
        *(Row(f"latency {span}", f"{base} --latency {span}", _FAR) for span in ("2ms", "5ms")),
        Row(f"{racks} racks", f"{base} --racks {racks} --uplink 0.2", _RACKS),
    )


SMALL = (
    *_common(_SMALL, racks=10),
    Row("1,000 hosts, 10 MB", f"--hosts 1000 {_PULL}", _QUICK),
    Row("long blob, 100 hosts, 10 GB", f"--hosts 100 --blob-size 10000000000 {_LONG}", _EIGHTY_PERCENT),
)

FULL = (
    *_common(_FULL, racks=40),
    *(
        Row(
            f"long blob, {hosts:,} hosts, {gb} GB",
            f"--hosts {hosts} --blob-size {gb}000000000 {_LONG}",
            _EIGHTY_PERCENT,
        )
        for hosts, gb in ((1000, 10), (2500, 25), (5000, 50), (10000, 100))
    ),
)
