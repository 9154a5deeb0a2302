"""What the checks make of what was measured, and the trade ids of the topic."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from crypto_airflow import quality, settings
from crypto_airflow.topic import Reading, Trade, fields, missing_trades, trade_of

NOW_MS = 1_800_000_000_000
ENGINES = {
    "spark": {"prices": "crypto_prices_realtime", "candles": "candles_1m_spark"},
    "flink": {"prices": "crypto_prices_flink", "candles": "candles_1m_flink"},
}
SETTINGS = settings.Settings.model_validate({
    "bootstrap_servers": ["kafka-1:9092"], "symbols": ["BTC-USD", "ETH-USD"], "engines": ENGINES,
})  # fmt: skip


def trades(*found: tuple[int, int], symbol: str = "BTC-USD") -> list[Trade]:
    return [Trade("coinbase", symbol, number, at) for number, at in found]


def test_window_ends_where_everything_is_settled() -> None:
    assert quality.window(NOW_MS, 3600, 180) == quality.Window(NOW_MS - 3_780_000, NOW_MS - 180_000, NOW_MS)


@pytest.mark.parametrize(
    ("oldest_ms", "expected"),
    [(None, True), (NOW_MS - 10_000, True), (NOW_MS - 180_000, True), (NOW_MS - 180_001, False)],
)
def test_new_topic_owes_nothing(oldest_ms: int | None, expected: bool) -> None:
    assert quality.nothing_was_sent(oldest_ms, quality.window(NOW_MS, 3600, 180)) is expected


EVENT = {
    "symbol": "BTC-USD", "price": 1.5, "timestamp": NOW_MS - 600_000, "produced_at": (NOW_MS - 599_000) * 1000,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True), ({"price": 2}, True), ({"symbol": "XRP-USD"}, False), ({"symbol": ["BTC-USD"]}, False),
        ({"price": "1.5"}, False), ({"price": None}, False), ({"timestamp": None}, False), ({"timestamp": True}, False),
        ({"timestamp": NOW_MS - 3_780_000}, True), ({"timestamp": NOW_MS - 3_780_001}, False),
        ({"timestamp": NOW_MS - 180_000}, False), ({"produced_at": None}, False),
        ({"produced_at": (NOW_MS - 180_000) * 1000}, False),
    ],
)  # fmt: skip
def test_which_messages_both_engines_owe_a_row(changed: dict[str, object], expected: bool) -> None:
    looked_at = quality.window(NOW_MS, 3600, 180)
    assert quality.owed({**EVENT, **changed}, SETTINGS.symbols, looked_at) is expected


def test_freshness_is_the_newest_symbols() -> None:
    newest = {
        "spark": {"BTC-USD": NOW_MS - 5_000, "ETH-USD": NOW_MS - 300_000},
        "flink": {"BTC-USD": NOW_MS - 121_000, "ETH-USD": None},
    }
    spark, flink = quality.freshness(newest, NOW_MS, 120)
    assert (spark.value, spark.passed) == (5, True)
    assert (flink.value, flink.passed) == (121, False)
    assert "ETH-USD no row" in flink.detail


def test_freshness_of_an_empty_table_is_no_number_and_fails() -> None:
    (found,) = quality.freshness({"spark": {"BTC-USD": None}}, NOW_MS, 120)
    assert (found.value, found.passed) == (None, False)


def test_candles_are_compared_where_the_slowest_watermark_has_passed() -> None:
    newest = {"spark": {"BTC-USD": NOW_MS, "ETH-USD": NOW_MS - 60_000}, "flink": {"BTC-USD": NOW_MS, "ETH-USD": None}}
    assert quality.closed_before_ms(newest, 180, SETTINGS) == NOW_MS - 60_000 - 360_000
    assert quality.closed_before_ms({"spark": {"BTC-USD": None}}, 180, SETTINGS) is None


def test_holes_in_trade_ids() -> None:
    found = trades((10, 1_000), (11, 1_100), (14, 1_200), (15, 1_300), (17, 1_400))
    assert missing_trades(found, 0, 9_000) == {"coinbase BTC-USD": [(12, 13), (16, 16)]}


def test_sources_and_symbols_have_ids_of_their_own() -> None:
    found = [*trades((1, 10), (2, 20)), *trades((7, 15), (9, 30), symbol="ETH-USD"), Trade("replay", "BTC-USD", 5, 12)]
    assert missing_trades(found, 0, 9_000) == {"coinbase ETH-USD": [(8, 8)]}


def test_what_came_late_fills_a_hole() -> None:
    # After the window's end, by the producer that has fetched it again.
    assert missing_trades(trades((1, 100), (3, 200), (2, 9_500)), 0, 9_000) == {}
    # And an id that came late as the window's first makes none, for what follows it came before.
    assert missing_trades(trades((6, 50), (5, 120), (7, 200)), 100, 9_000) == {}


def test_ids_beyond_the_window_make_no_hole() -> None:
    assert missing_trades(trades((1, 50), (5, 150), (6, 250), (9, 950)), 100, 900) == {}


@pytest.mark.parametrize(
    "value",
    [None, b"", b"no json", b"[1]", b"\xff", b'{"symbol": "BTC-USD", "user": "replay"}',
     b'{"symbol": "BTC-USD", "user": "replay", "trade_id": "7"}', b'{"symbol": 1, "user": "replay", "trade_id": 7}',
     b'{"symbol": "BTC-USD", "user": "replay", "trade_id": true}', b"[" * 100_000],
)  # fmt: skip
def test_messages_without_a_trade_id(value: bytes | None) -> None:
    found = fields(value)
    assert found is None or trade_of(found, 1) is None


def test_message_with_a_trade_id() -> None:
    found = fields(b'{"symbol": "GAP-USD", "user": "synthetic", "trade_id": 7}')
    assert found is not None
    assert trade_of(found, 5) == Trade("synthetic", "GAP-USD", 7, 5)


def test_an_hour_of_a_busy_topic_fits_beside_airflow() -> None:
    value = json.dumps({"symbol": "BTC-USD", "user": "coinbase", "trade_id": 1_000_000_000}).encode()
    tracemalloc.start()
    found = [trade_of(fields(value) or {}, 1_800_000_000_000 + number) for number in range(10_000)]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / len(found) < 180


def test_gaps_are_named() -> None:
    looked_at = quality.Window(0, 9_000, 9_000)
    found = quality.gaps(Reading(0, trades((1, 10), (4, 20), (6, 30)), 3), looked_at)
    assert (found.value, found.passed) == (3, False)
    assert "coinbase BTC-USD: 2-3, 5" in found.detail
    assert quality.gaps(Reading(0, [], 0), looked_at).passed
    assert "no trade ids" in quality.gaps(Reading(0, [], 0), looked_at).detail


def test_complaint_names_check_value_and_limit() -> None:
    good = quality.at_most("duplicates", "spark", 0, 0, "rows")
    assert quality.complaint([good]) is None
    bad = quality.at_least("rows", "flink", 0, 1, "rows in the window")
    said = quality.complaint([good, bad, quality.at_most("freshness_s", "spark", None, 120, "BTC-USD no row")])
    assert said is not None
    assert said.startswith("2 of 3 checks failed:")
    assert "rows of flink: 0, limit 1" in said
    assert "freshness_s of spark: nothing, limit 120" in said
    assert "duplicates" not in said


def test_findings_survive_the_way_from_task_to_task() -> None:
    findings = [quality.at_most("a", "spark", 1.5, 2, "x"), quality.at_most("b", "topic", None, 0, "y")]
    assert quality.from_json(json.loads(json.dumps(quality.to_json(findings)))) == findings
