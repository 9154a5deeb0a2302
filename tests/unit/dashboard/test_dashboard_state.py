"""What the page says of a lab, from what was read of it."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from crypto_dashboard.config import Config
from crypto_dashboard.readings import EngineRows, Metrics, Quote, Rows
from crypto_dashboard.state import Found, Source, agreement, build, duration, lag, topic_end
from fake_lab import STATES, FakeDatabase, FakePrometheus, config

NOW_S = 1_790_000_000.0
NOW_MS = NOW_S * 1000
ANSWERS = Source(answers=True)


@pytest.fixture
def settings() -> Config:
    return config(Path("uplot.jar"))


def found(state: str) -> Found:
    """Return what is read of the fake lab in a state."""
    database, prometheus = FakeDatabase(state, NOW_S), FakePrometheus(state, NOW_S)
    kept = Found(prometheus=Source(configured=state != "no_prometheus"))
    if state not in {"prometheus_away", "no_prometheus"}:
        kept = dataclasses.replace(kept, metrics=asyncio.run(prometheus.metrics()), prometheus=ANSWERS)
    if state != "database_away":
        kept = dataclasses.replace(
            kept, rows=database.rows(), candles=database.candles(), history=database.history(), database=ANSWERS
        )
    return kept


def rows(engine: EngineRows, other: EngineRows | None = None) -> Rows:
    return Rows(NOW_MS, {"spark": engine, "flink": other or engine})


def written(age_s: float, produced_age_s: float | None = None, offset: int = 9) -> EngineRows:
    """Return an engine that wrote its newest row some seconds ago."""
    produced_ms = NOW_MS - (age_s if produced_age_s is None else produced_age_s) * 1000
    return EngineRows(
        rows=1, p50_ms=5.0, p95_ms=6.0, p99_ms=7.0, committed_ms=NOW_MS - age_s * 1000, offsets={0: offset},
        quotes={"BTC-USD": Quote(1.0, "replay", int(produced_ms), produced_ms)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "headline", "text"),
    [
        ("healthy", "ok", "Both engines write."),
        ("empty", "idle", "The lab is empty: no rows yet."),
        ("flink_down", "down", "Flink is down, Spark goes on."),
        ("spark_down", "down", "Spark is down, Flink goes on."),
        ("prometheus_away", "ok", "Both engines write."),
        ("no_prometheus", "ok", "Both engines write."),
        ("database_away", "down", "PostgreSQL does not answer: there are no figures."),
    ],
)
def test_headline(settings: Config, state: str, headline: str, text: str) -> None:
    assert build(settings, found(state))["headline"] == {"state": headline, "text": text}


@pytest.mark.parametrize("state", STATES)
def test_every_part_has_words_in_every_state(settings: Config, state: str) -> None:
    made = build(settings, found(state))
    for part in [*made["path"].values(), *made["engines"].values()]:
        assert part["state"] in {"ok", "idle", "warn", "down", "unknown"}
        assert part["text"]
    assert made["alerts"]["text"]
    assert [entry["symbol"] for entry in made["symbols"]] == settings.symbols


def test_figures_that_are_not_known_are_none(settings: Config) -> None:
    made = build(settings, Found())
    for engine in made["engines"].values():
        assert {engine[name] for name in ("p50_ms", "rows", "rows_per_s", "lag", "cpu_cores", "memory_bytes")} == {None}
    assert made["symbols"][0]["quotes"] == {"spark": None, "flink": None}
    assert made["now_ms"] is None


def test_last_figures_stay_when_the_database_goes(settings: Config) -> None:
    gone = dataclasses.replace(found("healthy"), database=Source(answers=False, text="PostgreSQL does not answer: x"))
    made = build(settings, gone)
    assert made["headline"]["text"] == "PostgreSQL does not answer: the figures are the last ones known."
    assert made["engines"]["flink"]["p50_ms"] > 0
    assert made["path"]["tables"]["state"] == "down"


@pytest.mark.parametrize(
    ("engine", "other", "state", "text"),
    [
        (EngineRows(), EngineRows(), "idle", "no rows yet"),
        (EngineRows(), written(1), "warn", "no rows yet, 10 events wait"),
        (written(5), written(1), "ok", "writes"),
        (written(200, offset=4), written(1), "down", "has written nothing for 3 min, 5 events wait"),
        (written(200), written(200), "idle", "nothing to write for 3 min"),
        (written(1, produced_age_s=400, offset=4), written(1), "warn", "writes, but is 6 min behind"),
    ],
)
def test_engine_by_its_table_alone(
    settings: Config, engine: EngineRows, other: EngineRows, state: str, text: str
) -> None:
    made = build(settings, Found(rows=rows(engine, other), database=ANSWERS))
    assert made["path"]["spark"] == {"state": state, "text": text}


def test_job_that_does_not_run_is_said_at_once(settings: Config) -> None:
    metrics = Metrics({"spark_job": {"": 0.0}}, [])
    made = build(settings, Found(rows=rows(written(5)), metrics=metrics, database=ANSWERS, prometheus=ANSWERS))
    assert made["path"]["spark"] == {"state": "down", "text": "its job does not run, last row 5 s ago"}
    assert made["path"]["flink"]["state"] == "ok"


@pytest.mark.parametrize(
    ("values", "state", "text"),
    [
        ({"kafka_connected": 1, "source_connected": 1, "produced_per_s": 4.6}, "ok", "4.6 events/s"),
        ({"kafka_connected": 1, "source_connected": 1, "produced_per_s": 0}, "idle", "sends nothing at the moment"),
        ({"producer_up": 0}, "down", "does not run"),
        ({"kafka_connected": 1, "source_connected": 0}, "down", "its source of prices does not answer"),
        ({"kafka_connected": 0, "producer_pending": 7}, "down",
         "Kafka does not take its events, 7 events wait in its spool"),
        ({}, "ok", "newest event 5 s ago"),
    ],
)  # fmt: skip
def test_producer(settings: Config, values: dict[str, float], state: str, text: str) -> None:
    metrics = Metrics({name: {"": value} for name, value in values.items()}, [])
    made = build(settings, Found(rows=rows(written(5)), metrics=metrics, database=ANSWERS, prometheus=ANSWERS))
    assert made["path"]["producer"] == {"state": state, "text": text}


@pytest.mark.parametrize(
    ("values", "state", "text"),
    [
        ({"brokers": 3, "brokers_up": 3}, "ok", "3 of 3 brokers up"),
        ({"brokers": 3, "brokers_up": 2, "under_replicated": 4}, "warn", "2 of 3 brokers up, 4 partitions lack a copy"),
        ({"brokers": 1, "brokers_up": 0}, "down", "0 of 1 broker up"),
        ({"brokers": 3, "brokers_up": 2, "offline_partitions": 1}, "down",
         "2 of 3 brokers up, partitions without a leader"),
        ({}, "ok", "events pass through, no metrics"),
    ],
)  # fmt: skip
def test_kafka(settings: Config, values: dict[str, float], state: str, text: str) -> None:
    metrics = Metrics({name: {"": value} for name, value in values.items()}, [])
    made = build(settings, Found(rows=rows(written(5)), metrics=metrics, database=ANSWERS, prometheus=ANSWERS))
    assert made["path"]["kafka"] == {"state": state, "text": text}


def test_end_of_the_topic_is_the_furthest_that_anybody_knows() -> None:
    """Prometheus looks every 15 s: a fast engine has stored what it does not know of yet."""
    metrics = Metrics({"topic_end": {"0": 8, "1": 30}}, [])
    end = topic_end(rows(EngineRows(offsets={0: 9, 1: 4}), EngineRows(offsets={0: 2})), metrics)
    assert end == {0: 10, 1: 30}
    assert lag(EngineRows(offsets={0: 9, 1: 4}), end) == 25
    assert lag(EngineRows(offsets={0: 2}), end) == 7 + 30
    assert lag(EngineRows(), end) == 40


def test_lag_says_to_what_it_is(settings: Config) -> None:
    made = build(settings, Found(rows=rows(written(1, offset=4), written(1)), database=ANSWERS))
    assert (made["engines"]["spark"]["lag"], made["engines"]["spark"]["lag_of"]) == (5, "other engine")
    metrics = Metrics({"topic_end": {"0": 100}}, [])
    made = build(settings, Found(rows=rows(written(1)), metrics=metrics, database=ANSWERS, prometheus=ANSWERS))
    assert (made["engines"]["spark"]["lag"], made["engines"]["spark"]["lag_of"]) == (90, "topic")


def test_candles_are_compared_where_both_have_one() -> None:
    spark = [(0, 1.0, 2.0, 0.5, 1.5), (60, 1.5, 2.0, 1.0, 1.2), (120, 1.2, 1.2, 1.2, 1.2)]
    flink = [(60, 1.5, 2.0, 1.0, 1.2), (120, 1.2, 1.3, 1.2, 1.2), (180, 1.0, 1.0, 1.0, 1.0)]
    assert agreement(spark, flink) == (2, 1)


def test_candles_that_differ_are_said(settings: Config) -> None:
    candles = {"spark": {"BTC-USD": [(0, 1.0, 2.0, 0.5, 1.5)]}, "flink": {"BTC-USD": [(0, 1.0, 2.5, 0.5, 1.5)]}}
    made = build(settings, Found(rows=rows(written(1)), candles=candles, database=ANSWERS))
    assert made["path"]["tables"] == {"state": "warn", "text": "1 of 1 candles differ"}
    assert made["headline"]["state"] == "warn"


@pytest.mark.parametrize(
    ("nodes", "note"),
    [
        ({"spark": ["lab-1"], "flink": ["lab-1"]}, "not told apart on a shared node"),
        ({"spark": [], "flink": ["b"]}, "no nodes configured"),
        ({"spark": ["a"], "flink": ["b"]}, ""),
    ],
)
def test_cost_says_why_there_is_none(settings: Config, nodes: dict[str, list[str]], note: str) -> None:
    engines = {
        name: getattr(settings.engines, name).model_copy(update={"nodes": found}) for name, found in nodes.items()
    }
    changed = settings.model_copy(update={"engines": settings.engines.model_copy(update=engines)})
    spark: dict[str, Any] = build(changed, found("healthy"))["engines"]["spark"]
    assert spark["note"] == note
    assert (spark["cpu_cores"] is not None) == (nodes["spark"] != nodes["flink"])


def test_cost_without_prometheus(settings: Config) -> None:
    for state, note in (("prometheus_away", "Prometheus is away"), ("no_prometheus", "no Prometheus in this lab")):
        assert build(settings, found(state))["engines"]["flink"]["note"] == note


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (119, "119 s"), (120, "2 min"), (7_199, "119 min"), (7_200, "2 h"), (200_000, "2 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
