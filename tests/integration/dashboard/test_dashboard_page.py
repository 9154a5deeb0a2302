"""The page in a real browser, over a fake lab in each of its states."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import NoBrowserError, dashboard, find_chromium, look
from services import artifact_tree

DARK = "--blink-settings=preferredColorScheme=0"


@pytest.fixture(scope="module")
def uplot() -> Path:
    try:
        find_chromium()
    except NoBrowserError as error:
        pytest.skip(str(error))
    return artifact_tree("dashboard", "jars")


@pytest.mark.parametrize(
    ("state", "headline", "parts", "texts"),
    [
        ("healthy", "Both engines write.", {"spark": "ok", "flink": "ok", "kafka": "ok", "tables": "ok"},
         {"alerts": "No alerts."}),
        ("empty", "The lab is empty: no rows yet.", {"spark": "idle", "flink": "idle", "tables": "ok"},
         {"latency": "No rows in the last quarter of an hour", "symbols": "No candles yet"}),
        ("flink_down", "Flink is down, Spark goes on.", {"spark": "ok", "flink": "down"},
         {"alerts": "FlinkNoRows"}),
        ("prometheus_away", "Both engines write.", {"spark": "ok", "flink": "ok", "producer": "ok"},
         {"alerts": "Prometheus does not answer: alerts are not known.", "spark": "Prometheus is away"}),
        ("no_prometheus", "Both engines write.", {"spark": "ok", "flink": "ok"},
         {"alerts": "There is no Prometheus in this lab, and so no alerts."}),
        ("database_away", "PostgreSQL does not answer: there are no figures.", {"tables": "down", "kafka": "ok"},
         {"latency": "PostgreSQL does not answer", "database": "Connection refused"}),
    ],
)  # fmt: skip
def test_state_is_said_in_words(
    uplot: Path, state: str, headline: str, parts: dict[str, str], texts: dict[str, str]
) -> None:
    with dashboard(uplot, f"--state={state}") as (url, _):
        found = look(url)
    assert found.by_id["headline"] == headline
    assert {part: found.states[part] for part in parts} == parts
    for part, text in texts.items():
        assert text in found.by_id[part]
    assert found.probe("faults") == ""
    assert found.probe("unnamed") == "0"


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1280, 900), (700, 900), (400, 850)])
def test_fits_its_window_and_nothing_moves(uplot: Path, width: int, height: int) -> None:
    with dashboard(uplot, "--state=flink_down", "--lab=a-lab-with-a-long-name") as (url, _):
        found = look(url, width, height)
    assert found.probe("overflow") == "0", "the page scrolls sideways"
    assert found.probe("cut") == "", "texts that do not fit"
    # 0.1 is what counts as good; symbols' cards are added by the first answer, below everything that was there.
    assert float(found.probe("shift")) <= 0.02, found.probe("moved")
    assert found.probe("charts") == "12"
    assert found.probe("faults") == ""


def test_figures(uplot: Path) -> None:
    with dashboard(uplot) as (url, _):
        found = look(url)
    assert found.by_field["flink", "p50_ms"].endswith(" ms")
    assert found.by_field["spark", "p50_ms"].endswith(" s")
    assert found.by_field["spark", "memory"] == "2.43 GiB"
    assert found.by_field["spark", "lag_name"] == "Lag to the topic's end"
    assert float(found.by_field["flink", "rows_per_s"]) > 0
    assert "37 candles, all equal" in found.by_id["symbols"]
    # What a screen reader says of the charts.
    assert any(text.startswith("Latency of the last quarter of an hour. Newest, at ") for text in found.labels)
    assert sum("one-minute candles by Spark: " in text for text in found.labels) == 5


def test_dark_page_works_alike(uplot: Path) -> None:
    with dashboard(uplot) as (url, _):
        found = look(url, 1280, 900, DARK)
    assert found.by_id["headline"] == "Both engines write."
    assert found.probe("charts") == "12"
    assert found.probe("faults") == ""
