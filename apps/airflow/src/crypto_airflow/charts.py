"""Two small charts as SVG, in the page's own colours.

Not those of apps/compare: they need matplotlib and numpy, 100 MB more on a node of little memory, for two charts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 34, 12, 44
Points = Sequence[tuple[float, float]]


def scale(value: float, low: float, high: float, start: float, end: float) -> float:
    """Map a value between two others to a place between two others."""
    return start if high == low else start + (value - low) / (high - low) * (end - start)


def decades(low: float, high: float) -> list[float]:
    """Return the powers of ten around two positive values, at least one decade."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def label_ms(value: float) -> str:
    """Return milliseconds as people say them: 5 ms, 2.5 s."""
    return f"{value / 1000:g} s" if value >= 1000 else f"{value:g} ms"


def _frame(name: str, body: str, x_ticks: Points, y_ticks: Sequence[tuple[float, str]], x_labels: Sequence[str]) -> str:
    bottom = HEIGHT - BOTTOM
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>'
        for y, text in y_ticks
    ]
    parts += [
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>'
        f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{escape(text)}</text>'
        for (x, _), text in zip(x_ticks, x_labels, strict=True)
    ]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name, quote=True)}">'
        f"{''.join(parts)}{body}</svg>"
    )


def _line(series: str, places: Points) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline class="{escape(series, quote=True)}" points="{path}"/>'


def distribution(name: str, series: Mapping[str, Points]) -> str:
    """Return the share of events (0 to 1) that were not later than a time (ms, on a logarithmic axis)."""
    # Of a clock that was set back; on this axis there is no place for it.
    shown = {key: [(max(at, 0.1), share) for at, share in points] for key, points in series.items() if points}
    if not shown:
        return ""
    every = [at for points in shown.values() for at, _ in points]
    ticks = decades(min(every), max(every))
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])
    bottom = HEIGHT - BOTTOM

    def x(at: float) -> float:
        return scale(math.log10(at), low, high, LEFT, WIDTH - RIGHT)

    body = "".join(
        _line(key, [(x(at), scale(share, 0, 1, bottom, TOP)) for at, share in points]) for key, points in shown.items()
    )
    return _frame(
        name, body, [(x(tick), 0) for tick in ticks],
        [(scale(share, 0, 1, bottom, TOP), f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)],
        [label_ms(tick) for tick in ticks],
    )  # fmt: skip


def by_hour(name: str, series: Mapping[str, Points], hours: float) -> str:
    """Return latencies (ms, logarithmic) over time; x is hours before the end of the day that is looked at."""
    shown = {key: [(ago, max(value, 0.1)) for ago, value in points] for key, points in series.items() if points}
    if not shown:
        return ""
    every = [value for points in shown.values() for _, value in points]
    ticks = decades(min(every), max(every))
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])
    bottom = HEIGHT - BOTTOM

    def x(ago: float) -> float:
        # The first hour may have begun before what is looked at.
        return scale(-min(ago, hours), -hours, 0, LEFT, WIDTH - RIGHT)

    def y(value: float) -> float:
        return scale(math.log10(value), low, high, bottom, TOP)

    body = "".join(
        _line(key, [(x(ago), y(value)) for ago, value in points])
        + "".join(
            f'<circle class="{escape(key, quote=True)}" cx="{x(ago):.1f}" cy="{y(value):.1f}" r="3"/>'
            for ago, value in points
        )
        for key, points in shown.items()
    )
    steps = [hours * part / 4 for part in (4, 3, 2, 1, 0)]
    return _frame(
        name, body, [(x(ago), 0) for ago in steps], [(y(tick), label_ms(tick)) for tick in ticks],
        [f"-{ago:g} h" if ago else "end" for ago in steps],
    )  # fmt: skip
