"""The page of a day: figures, charts, and the folder that it is kept in."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pytest
from crypto_airflow import charts, report

UNTIL = dt.datetime(2026, 11, 25, 0, 10, tzinfo=dt.UTC)


def day() -> report.Day:
    spark = report.Latency(1000, 0, [7000.0, 12000.0, 14000.0, 15000.0, 15500.0], 16000.0)
    flink = report.Latency(1001, 2, [9.0, 12.5, 20.0, 40.0, 90.0], 250.0)
    return report.Day(
        UNTIL - dt.timedelta(hours=24), UNTIL,
        engines={"spark": spark, "flink": flink}, symbols={"BTC-USD": {"spark": spark, "flink": flink}},
        curves={"spark": [(7000.0, 0.5), (15000.0, 0.99)], "flink": [(-1.0, 0.5), (40.0, 0.99)]},
        hours={"flink": [(UNTIL - dt.timedelta(hours=hours), 9.0, 20.0) for hours in (5, 4)]},
    )  # fmt: skip


def test_every_engine_has_its_lines() -> None:
    html = report.render(day(), UNTIL)
    assert html.count("<polyline") == 3


def test_lines_lie_inside_the_chart() -> None:
    places = re.findall(r"([\d.-]+),([\d.-]+)", " ".join(re.findall('points="([^"]+)"', report.render(day(), UNTIL))))
    assert len(places) == 6
    assert all(charts.LEFT <= float(x) <= charts.WIDTH - charts.RIGHT for x, _ in places)
    assert all(charts.TOP <= float(y) <= charts.HEIGHT - charts.BOTTOM for _, y in places)


def test_hour_that_began_before_what_is_looked_at_is_at_the_edge() -> None:
    # Of one hour until ten past the clock gives two, and the first began 70 minutes ago.
    places = re.search(r'points="([\d.]+),', charts.by_hour("x", {"spark": [(70 / 60, 5.0), (10 / 60, 5.0)]}, 1))
    assert places is not None
    assert float(places[1]) == charts.LEFT


def test_page_says_what_was_measured_and_needs_nothing_else() -> None:
    html = report.render(day(), UNTIL)
    for text in ("2026-11-24 00:10", "2026-11-25 00:10", "12,000", "12.5", "1,001", "BTC-USD", "p99.9"):
        assert text in html, text
    assert not re.search(r"<script|https?://|src=|@import", html)


def test_page_without_rows() -> None:
    html = report.render(report.Day(UNTIL - dt.timedelta(hours=24), UNTIL), UNTIL)
    assert "No engine has written a row" in html
    assert "<svg" not in html


@pytest.mark.parametrize(("value", "text"), [(5.0, "5 ms"), (0.1, "0.1 ms"), (1000.0, "1 s"), (100_000.0, "100 s")])
def test_labels(value: float, text: str) -> None:
    assert charts.label_ms(value) == text


def test_axis_covers_its_values() -> None:
    assert charts.decades(9, 250) == [1, 10, 100, 1000]
    assert charts.decades(10, 10) == [10, 100]
    every = charts.distribution("x", {"spark": [(5, 0.5)], "flink": []})
    assert every.count("<polyline") == 1
    assert charts.distribution("x", {}) == charts.by_hour("x", {}, 24) == ""


def test_names_are_escaped() -> None:
    assert "<b>" not in charts.by_hour('"<b>', {"spark": [(1, 5)]}, 24)


def test_newest_pages_are_kept_and_linked(tmp_path: Path) -> None:
    for number in range(5):
        path = report.write(f"page {number}", tmp_path / "reports", f"2026-11-2{number}T0010Z", keep=3)
    names = sorted(entry.name for entry in path.parent.iterdir())
    assert names == [
        *(f"comparison-2026-11-2{number}T0010Z.html" for number in (2, 3, 4)), "latest.html",
    ]  # fmt: skip
    assert (path.parent / "latest.html").read_text() == "page 4"
