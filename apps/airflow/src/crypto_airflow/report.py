"""The DAG comparison_report: how late both engines' rows of a day were, as one HTML page that needs nothing else.

Latency is what docs/contract.md says: commit time of the row - produced_at, by PostgreSQL's view event_latency.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from crypto_airflow import charts

PERCENTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
# Where the distribution is drawn; denser towards its end, which is what differs.
SHARES = (*(number / 50 for number in range(1, 45)), *(0.88 + number / 200 for number in range(1, 24)), 0.999)
Connection = Any


@dataclass(frozen=True)
class Latency:
    """Latencies of one engine, or of one symbol in it, in milliseconds."""

    events: int
    negative: int
    percentiles_ms: Sequence[float]
    max_ms: float


@dataclass
class Day:
    """What is known of a day: each field is engine => figures."""

    from_time: dt.datetime
    until_time: dt.datetime
    engines: dict[str, Latency] = field(default_factory=dict)
    symbols: dict[str, dict[str, Latency]] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """(ms, share of the events that were not later)"""
    hours: dict[str, list[tuple[dt.datetime, float, float]]] = field(default_factory=dict)
    """(hour, median in ms, 95th percentile in ms)"""


INSIDE = "FROM event_latency WHERE produced_at >= %s AND produced_at < %s AND latency_ms IS NOT NULL"
FIGURES = (
    "count(*), count(*) FILTER (WHERE latency_ms < 0),"
    " percentile_cont(%s::double precision[]) WITHIN GROUP (ORDER BY latency_ms), max(latency_ms)"
)


def collect(connection: Connection, from_time: dt.datetime, until_time: dt.datetime) -> Day:
    """Measure a day; all figures are of one moment."""
    day = Day(from_time, until_time)
    between = tuple(round(at.timestamp() * 1e6) for at in (from_time, until_time))
    connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
    with connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT engine, {FIGURES} {INSIDE} GROUP BY engine", (list(PERCENTILES), *between))
        for engine, *figures in cursor.fetchall():
            day.engines[engine] = _latency(figures)
        cursor.execute(
            f"SELECT engine, symbol, {FIGURES} {INSIDE} GROUP BY engine, symbol ORDER BY symbol",
            (list(PERCENTILES), *between),
        )
        for engine, symbol, *figures in cursor.fetchall():
            day.symbols.setdefault(symbol, {})[engine] = _latency(figures)
        cursor.execute(
            f"SELECT engine, percentile_cont(%s::double precision[]) WITHIN GROUP (ORDER BY latency_ms) {INSIDE}"
            " GROUP BY engine",
            (list(SHARES), *between),
        )
        for engine, times in cursor.fetchall():
            day.curves[engine] = list(zip(map(float, times), SHARES, strict=True))
        cursor.execute(
            "SELECT engine, date_trunc('hour', to_timestamp(produced_at / 1e6)) AS hour,"
            " percentile_cont(0.5) WITHIN GROUP (ORDER BY latency_ms), percentile_cont(0.95) WITHIN GROUP"
            f" (ORDER BY latency_ms) {INSIDE} GROUP BY engine, hour ORDER BY hour",
            between,
        )
        for engine, hour, median, late in cursor.fetchall():
            day.hours.setdefault(engine, []).append((hour, float(median), float(late)))
    return day


def _latency(figures: Sequence[Any]) -> Latency:
    events, negative, percentiles, highest = figures
    return Latency(events, negative, [float(value) for value in percentiles], float(highest))


def render(day: Day, generated: dt.datetime) -> str:
    """Return the page."""
    hours = (day.until_time - day.from_time).total_seconds() / 3600
    over_time = {
        engine: [((day.until_time - hour).total_seconds() / 3600, late) for hour, _, late in found]
        for engine, found in day.hours.items()
    }
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page.filters["ms"] = milliseconds
    return page.get_template("report.html.j2").render(
        day=day, generated=generated, percentiles=[f"p{share * 100:g}" for share in PERCENTILES],
        engines=sorted(day.engines, reverse=True),
        distribution=charts.distribution("Share of events by latency", day.curves),
        over_time=charts.by_hour("95th percentile of the latency, hour by hour", over_time, hours),
    )  # fmt: skip


def milliseconds(value: float) -> str:
    """Return milliseconds with three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(page: str, folder: Path, name: str, keep: int) -> Path:
    """Write a page, let the link latest.html lead to it, and remove all but the newest pages; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"comparison-{name}.html"
    partial = path.with_suffix(".partial")
    partial.write_text(page)
    partial.replace(path)
    link = folder / ".latest"
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    link.replace(folder / "latest.html")
    for old in oldest(folder.glob("comparison-*.html"), keep):
        old.unlink()
    return path


def oldest(pages: Iterable[Path], keep: int) -> list[Path]:
    """Return the pages that are more than `keep`; their names begin with their dates."""
    return sorted(pages)[:-keep]
