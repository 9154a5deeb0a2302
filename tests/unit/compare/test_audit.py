"""The audit: its own reading of the contract against the shared fixture, and every kind of difference."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY / "apps" / "compare" / "src"))

from compare import audit as audit_module  # noqa: E402 - found on the path set above
from compare.audit import Settings, Topic, audit, candles, closed_windows, compare_candles, compare_engine  # noqa: E402 - found on the path set above
from compare.event import Event, classify  # noqa: E402 - found on the path set above

FIXTURE = json.loads((REPOSITORY / "tests" / "fixtures" / "events.json").read_text())
SYMBOLS = ["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"]


def value_of(record: dict[str, Any]) -> bytes | None:
    if "value_repeat" in record:
        parts = record["value_repeat"]
        return (parts["prefix"] + parts["fill"] * parts["count"] + parts["suffix"]).encode()
    return None if record["value_base64"] is None else base64.b64decode(record["value_base64"])


@pytest.fixture
def topic() -> Topic:
    found = Topic({0: 10_000, 1: 10_000, 2: 10_000})
    for record in FIXTURE["records"]:
        found.add(record["partition"], record["offset"], classify(value_of(record), SYMBOLS, 65536))
    return found


def rows_of_fixture() -> list[tuple[str, int, int]]:
    return [(row["event_id"].lower(), row["kafka_partition"], row["kafka_offset"]) for row in FIXTURE["rows"]]


def rejects_of_fixture() -> list[tuple[int, int, str]]:
    return [(row["kafka_partition"], row["kafka_offset"], row["reason"]) for row in FIXTURE["rejected"]]


def test_classification_is_the_fixtures(topic: Topic) -> None:
    assert topic.rejects == {(partition, offset): reason for partition, offset, reason in rejects_of_fixture()}
    assert topic.events.keys() == {row["event_id"].lower() for row in FIXTURE["rows"]}
    assert topic.duplicates == 1


def test_candles_are_the_fixtures(topic: Topic) -> None:
    assert candles(topic, 60) == {
        (row["symbol"], row["window_start"]): (row["open"], row["high"], row["low"], row["close"], row["event_count"])
        for row in FIXTURE["candles"]
    }


def test_equal_tables_have_no_findings(topic: Topic) -> None:
    report = compare_engine(topic, rows_of_fixture(), rejects_of_fixture())
    assert report["rows"] == 19
    assert report["rejected"] == 59
    assert not any(report[key] for key in report if key not in {"rows", "rejected"})


def test_every_difference_is_counted(topic: Topic) -> None:
    rows = rows_of_fixture()
    lost, doubled = rows.pop(), rows[0]
    stranger = ("00000000-0000-0000-0000-000000000000", 0, 5)
    later = ("11111111-1111-1111-1111-111111111111", 0, 10_000)
    rejects = rejects_of_fixture()
    partition, offset, _ = rejects.pop()
    rejects[0] = (rejects[0][0], rejects[0][1], "another reason")
    report = compare_engine(topic, [*rows, doubled, stranger, later], rejects)
    assert report["missing"] == 1
    assert report["missing_examples"] == [lost[0]]
    assert report["duplicates"] == 1
    assert report["unexpected"] == 1
    assert report["rejects_missing"] == 1
    assert (partition, offset) in topic.rejects
    assert report["rejects_different"] == 1


def test_candles_of_one_engine_only_are_not_different_yet() -> None:
    one, other = (1.0, 2.0, 0.5, 1.5, 3), (1.0, 2.0, 0.5, 1.5, 4)
    tables = {
        "spark": {("BTC-USD", 0): one, ("BTC-USD", 60_000): one},
        "flink": {("BTC-USD", 0): other, ("BTC-USD", 120_000): one},
    }
    assert compare_candles(tables, {("BTC-USD", 0): other}, set()) == {
        "compared": 1, "different": 1, "missing": 0, "unlike_topic": 1,
    }  # fmt: skip


def test_a_closed_window_that_an_engine_lacks_is_missing() -> None:
    one = (1.0, 2.0, 0.5, 1.5, 3)
    found = Topic({0: 10_000})
    for number, timestamp_ms in enumerate((0, 60_000, 300_000)):
        found.add(0, number, Event(str(number), "BTC-USD", 1.0, timestamp_ms))
    closed = closed_windows(found, candles(found, 60), 240)
    assert closed == {("BTC-USD", 0), ("BTC-USD", 60_000)}
    tables = {"spark": {("BTC-USD", 0): one, ("BTC-USD", 60_000): one}, "flink": {("BTC-USD", 0): one}}
    assert compare_candles(tables, {}, closed)["missing"] == 1
    # The last one is still open.
    assert compare_candles({**tables, "flink": tables["spark"]}, {}, closed)["missing"] == 0


@pytest.mark.parametrize(("settle_s", "looks", "ok"), [(0, 1, False), (60, 3, True), (7, 3, True), (4, 2, False)])
def test_engines_have_time_to_catch_up(
    monkeypatch: pytest.MonkeyPatch, settle_s: float, looks: int, *, ok: bool
) -> None:
    """The topic is read once; the tables are looked at until they have what it held then, or the time is over."""
    read: list[str] = []
    now = [0.0]

    def read_topic(_: Settings) -> Topic:
        read.append("topic")
        return Topic({0: 0})

    def compare_tables(_: Settings, topic: Topic) -> dict[str, Any]:
        assert topic.end == {0: 0}
        read.append("tables")
        return {"ok": read.count("tables") == 3}

    monkeypatch.setattr(audit_module, "read_topic", read_topic)
    monkeypatch.setattr(audit_module, "compare_tables", compare_tables)
    monkeypatch.setattr(audit_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(audit_module.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    assert audit(Settings.model_construct(), settle_s) == {"ok": ok}
    assert read == ["topic", *["tables"] * looks]


def test_python_leniency_is_not_the_contracts() -> None:
    event = {"event_id": "5f0c8a0e-3c3f-5f0e-9d7b-6d1f0b6f3a11", "symbol": "BTC-USD", "user": "x",
             "timestamp": 1783465020000, "produced_at": 1}  # fmt: skip
    good = json.dumps({**event, "price": 1.5})
    assert classify(good.encode(), SYMBOLS, 65536) == Event(event["event_id"], "BTC-USD", 1.5, 1783465020000)
    assert classify(good.replace("1.5", "NaN").encode(), SYMBOLS, 65536) == "not_json"
    assert classify(("[" * 50_000).encode(), SYMBOLS, 65536) == "not_json"


@pytest.mark.parametrize(("depth", "reason"), [(499, None), (500, "not_json")])
def test_nesting_has_a_limit(depth: int, reason: str | None) -> None:
    event = {"event_id": "5f0c8a0e-3c3f-5f0e-9d7b-6d1f0b6f3a11", "symbol": "BTC-USD", "user": '[[" }{',
             "timestamp": 1783465020000, "produced_at": 1, "price": 1.5}  # fmt: skip
    text = json.dumps(event)[:-1] + ', "x": ' + "[" * depth + "]" * depth + "}"
    found = classify(text.encode(), SYMBOLS, 65536)
    assert (found if isinstance(found, str) else None) == reason


def test_number_of_thousands_of_digits_is_no_timestamp() -> None:
    event = {"event_id": "5f0c8a0e-3c3f-5f0e-9d7b-6d1f0b6f3a11", "symbol": "BTC-USD", "user": "x",
             "timestamp": 7, "produced_at": 1, "price": 1.5}  # fmt: skip
    text = json.dumps(event).replace('"timestamp": 7', '"timestamp": ' + "7" * 5000)
    assert classify(text.encode(), SYMBOLS, 65536) == "wrong_type:timestamp"
