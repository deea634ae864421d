"""What is told of a run: numbers for machines, and a table for people."""

from __future__ import annotations

import json
from typing import Any

import attrs

from krakentx.sim.scenario import Outcome

_SHARES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0))


def figures(outcome: Outcome) -> dict[str, Any]:
    """The figures of a run. They hang on its options and its seed alone: nothing of this machine is in them."""
    scenario = outcome.scenario
    copies = outcome.origin_bytes / scenario.total
    delivered = max(1, sum(outcome.received.values()))
    hosts = scenario.hosts
    values: dict[str, Any] = {}
    for name, share in _SHARES:
        values[f"{name}_x"] = round(outcome.percentile(share) / scenario.ideal_s, 4)
        values[f"{name}_s"] = round(outcome.percentile(share), 4)
    values |= {
        "ideal_s": round(scenario.ideal_s, 4),
        "finished": len(outcome.took),
        "unfinished": outcome.unfinished,
        "origin_copies": round(copies, 3),
        "origin_share": round(outcome.origin_bytes / delivered, 5),
        "duplicate_share": round(outcome.received["skipped"] / delivered, 5),
        "cross_rack_share": round(outcome.across / delivered, 4) if scenario.racks else 0.0,
        "max_copies_into_rack": round(max(outcome.into_racks, default=0.0) / scenario.total, 3),
        "messages_per_host": round(outcome.messages / hosts, 1),
        "connections_per_host": round(outcome.connections / hosts, 2),
        "announces_per_s": {name: round(n / outcome.lasted_s, 2) for name, n in outcome.announces.items()},
        "virtual_s": round(outcome.lasted_s, 4),
        "events": outcome.events,
        "events_per_s": round(outcome.events / outcome.lasted_s, 1),
        "fault_counts": dict(sorted(outcome.faults.items())),
    }
    options = attrs.asdict(scenario)
    faults, bandwidth = options.pop("faults"), options.pop("bandwidth")
    for key in ("egress_bits_per_sec", "ingress_bits_per_sec"):
        options[key] = bandwidth[key] if bandwidth["enable"] else None
    options["strong_sums"] = scenario.strong_sums.value
    return values | options | {f"fault_{name}": value for name, value in faults.items()}


def to_json(outcome: Outcome) -> str:
    """The figures, one key a line, sorted."""
    return json.dumps(figures(outcome), indent=1, sort_keys=True) + "\n"


def table(outcome: Outcome) -> str:
    """The figures for people."""
    values = figures(outcome)
    scenario = outcome.scenario
    lines = [
        f"{values['finished']} hosts finished, {values['unfinished']} did not, "
        f"in {values['virtual_s']} s; the ideal is {values['ideal_s']} s",
        "",
        f"{'':<6}{'seconds':>10}{'of ideal':>10}",
    ]
    lines += [f"{name:<6}{values[f'{name}_s']:>10.3f}{values[f'{name}_x']:>10.3f}" for name, _ in _SHARES]
    rows = [
        ("origin copies", f"{values['origin_copies']:.2f}"),
        ("origin bytes per byte delivered", f"{values['origin_share']:.4f}"),
        ("bytes that came twice", f"{values['duplicate_share']:.2%}"),
        ("connections per host", f"{values['connections_per_host']:.1f}"),
        ("messages per host", f"{values['messages_per_host']:.0f}"),
        ("announces per second", ", ".join(f"{rate:.1f}" for rate in values["announces_per_s"].values())),
        ("events", f"{values['events']} ({values['events_per_s']:.0f} per virtual second)"),
    ]
    if scenario.racks:
        rows.append(("bytes across racks", f"{values['cross_rack_share']:.1%}"))
        rows.append(("most copies into one rack", f"{values['max_copies_into_rack']:.2f}"))
    rows += [(f"fault: {kind}", str(count)) for kind, count in values["fault_counts"].items()]
    return "\n".join([*lines, "", *(f"{name:<34}{value}" for name, value in rows)]) + "\n"
