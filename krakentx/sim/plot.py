"""A picture of a run, as SVG: who is done, what the swarm moves, what the origins give; all over time."""

from __future__ import annotations

from collections.abc import Sequence

from krakentx.sim.scenario import Outcome

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 720, 150, 70, 30, 60

Point = tuple[float, float]


def _panel(number: int, title: str, unit: str, points: Sequence[Point], last: float) -> str:
    """One curve with its axes."""
    top = _TOP + number * (_HEIGHT + _GAP)
    bottom = top + _HEIGHT
    most = max((y for _, y in points), default=0.0) or 1.0
    corners = " ".join(f"{_LEFT + _WIDTH * x / last:.1f},{bottom - _HEIGHT * y / most:.1f}" for x, y in points)
    quarters = [(_LEFT + _WIDTH * part / 4, last * part / 4) for part in range(5)]
    marks = "".join(
        f'<text x="{x:.0f}" y="{bottom + 16}" text-anchor="middle">{time:.3g} s</text>' for x, time in quarters
    )
    return (
        f'<text x="{_LEFT}" y="{top - 8}">{title}</text>'
        f'<text x="{_LEFT - 6}" y="{top + 10}" text-anchor="end">{most:.3g} {unit}</text>'
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">0</text>'
        f'<path d="M{_LEFT} {top}V{bottom}H{_LEFT + _WIDTH}" fill="none" stroke="#888"/>{marks}'
        f'<polyline points="{corners}" fill="none" stroke="#1f6fb4" stroke-width="1.5"/>'
    )


def svg(outcome: Outcome) -> str:
    """Completion, throughput of the swarm, and egress of the origins."""
    scenario, series = outcome.scenario, outcome.series
    last = max(outcome.lasted_s, series.step_s)
    steps = range(int(last / series.step_s) + 1)

    def rate(counts: dict[int, int], whole: float) -> list[Point]:
        return [((step + 0.5) * series.step_s, counts.get(step, 0) / series.step_s / whole) for step in steps]

    done = [(0.0, 0.0)]
    for count, end in enumerate(outcome.ends):
        done += [(end, count), (end, count + 1)]
    done.append((last, len(outcome.ends)))
    title = (
        f"{scenario.hosts} hosts, {scenario.blobs} x {scenario.blob_size / 1e6:.0f} MB, "
        f"{scenario.rate / 1e6:.0f} MB/s, {scenario.origins} origins, {scenario.policy}, seed {scenario.seed}"
    )
    panels = (
        _panel(0, f"hosts done: {title}", "hosts", done, last),
        _panel(1, "what leaves all hosts, in cards", "cards", rate(series.all_bytes, scenario.rate), last),
        _panel(2, "what leaves the origins, in cards", "cards", rate(series.origin_bytes, scenario.rate), last),
    )
    width, height = _LEFT + _WIDTH + 30, _TOP + 3 * (_HEIGHT + _GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(panels)}</svg>\n"
    )
