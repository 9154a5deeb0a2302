# ruff: noqa: ANN401 - fixtures of a conftest have no importable type, and psycopg2 has none at all
"""The transform in batch, on the fixture both engines share and on the JSON corners it does not hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from crypto_spark import transform
from pyspark.sql import DataFrame, SparkSession

SYMBOLS = ["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"]
SCHEMA = "value binary, partition int, offset bigint, timestamp timestamp"
GOOD = {
    "symbol": "BTC-USD",
    "price": 86769.94,
    "user": "replay",
    "timestamp": 1783465021000,
    "event_id": "4cc7761a-e5e7-5c39-8a7b-0807932bd08c",
    "produced_at": 1783465021000500,
    "trade_id": 1,
}
TEXT = json.dumps(GOOD).encode()


def parse(spark: SparkSession, values: list[tuple[bytes | None, int, int, int]]) -> DataFrame:
    rows = [
        (value, partition, offset, datetime.fromtimestamp(timestamp_ms / 1000, UTC))
        for value, partition, offset, timestamp_ms in values
    ]
    return transform.parse(spark.createDataFrame(rows, SCHEMA), symbols=SYMBOLS, max_event_bytes=65536)


@pytest.fixture(scope="module")
def parsed(spark: SparkSession, fixture: Any) -> DataFrame:
    records = [(r.value, r.partition, r.offset, r.timestamp_ms) for r in fixture.records]
    return parse(spark, records).cache()


def test_fixture_rows(parsed: DataFrame, fixture: Any) -> None:
    first: dict[str, dict[str, Any]] = {}
    for row in transform.events(parsed).orderBy("kafka_partition", "kafka_offset").collect():
        first.setdefault(row.event_id, row.asDict())
    assert first == {row["event_id"]: row for row in fixture.rows}


def test_fixture_rejects(parsed: DataFrame, fixture: Any) -> None:
    rows = transform.rejects(parsed).collect()
    got = {(r.kafka_partition, r.kafka_offset, r.kafka_timestamp, r.reason) for r in rows}
    want = {(r["kafka_partition"], r["kafka_offset"], r["kafka_timestamp"], r["reason"]) for r in fixture.rejected}
    assert got == want
    assert {row.engine for row in rows} == {"spark"}
    payloads = {(r.partition, r.offset): r.value for r in fixture.records}
    for row in rows:
        payload = None if row.payload is None else bytes(row.payload)
        assert payload == payloads[row.kafka_partition, row.kafka_offset]


def test_fixture_candles(parsed: DataFrame, fixture: Any) -> None:
    got = transform.candles(transform.events(parsed), window_s=60, watermark_delay_s=120).collect()
    key = ("symbol", "window_start")
    assert sorted((row.asDict() for row in got), key=lambda row: [row[k] for k in key]) == sorted(
        fixture.candles, key=lambda row: [row[k] for k in key]
    )


def with_price(text: bytes) -> bytes:
    return TEXT.replace(b"86769.94", text)


def and_then(text: bytes) -> bytes:
    return TEXT[:-1] + b", " + text + b"}"


CORNERS: list[tuple[str, bytes, str | None]] = [
    ("two documents that would close a wrapping array", TEXT + b"][" + TEXT, "not_json"),
    ("two documents, comma", TEXT + b"," + TEXT, "not_json"),
    ("trailing word", TEXT + b" x", "not_json"),
    ("trailing white space", TEXT + b"\r\n\t ", None),
    ("trailing no-break space", TEXT + "\u00a0".encode(), "not_json"),
    ("trailing vertical tab", TEXT + b"\x0b", "not_json"),
    ("trailing comma", TEXT[:-1] + b",}", "not_json"),
    ("comment", b"/* x */" + TEXT, "not_json"),
    ("single quotes", TEXT.replace(b'"', b"'"), "not_json"),
    ("byte order mark", b"\xef\xbb\xbf" + TEXT, "not_json"),
    ("unclosed string", TEXT[:-1] + b', "a": "b', "not_json"),
    ("string ending in a backslash", b'"a\\', "not_json"),
    ("raw control character", TEXT.replace(b"replay", b"re\x01play"), "not_json"),
    ("closing bracket", b"]", "not_json"),
    ("member without object", b'"a":1', "not_json"),
    ("NaN", with_price(b"NaN"), "not_json"),
    ("leading zero", with_price(b"086769.94"), "not_json"),
    ("plus sign", with_price(b"+5"), "not_json"),
    ("overlong UTF-8", TEXT.replace(b"replay", b"\xc0\xaf"), "not_utf8"),
    ("surrogate in UTF-8", TEXT.replace(b"replay", b"\xed\xa0\x80"), "not_utf8"),
    ("a field twice, the last one counts", and_then(b'"price": 5'), None),
    ("a field twice, the last one of another type", and_then(b'"price": "5"'), "wrong_type:price"),
    ("a field twice, the last one null", and_then(b'"price": null'), "missing_field:price"),
    ("a field twice, a bad one first", b'{"price": "5", ' + TEXT[1:], None),
    ("an unknown field with a field twice", and_then(b'"x": {"a": 1, "a": 2}'), None),
    ("unknown field, infinite", and_then(b'"x": 1e999'), None),
    ("unknown field, 5000 digits", and_then(b'"x": ' + b"9" * 5000), None),
    ("unknown field, deep", and_then(b'"x": ' + b"[" * 499 + b"]" * 499), None),
    ("unknown field, too deep", and_then(b'"x": ' + b"[" * 500 + b"]" * 500), "not_json"),
    ("user is the string 5", TEXT.replace(b'"replay"', b'"5"'), None),
    ("user is the string {", TEXT.replace(b'"replay"', b'"{"'), None),
    ("user is the string true", TEXT.replace(b'"replay"', b'"true"'), None),
    ("user is true", TEXT.replace(b'"replay"', b"true"), "wrong_type:user"),
    ("user is empty", TEXT.replace(b"replay", b""), None),
    ("user with U+0000", TEXT.replace(b"replay", b"a\\u0000b"), "wrong_type:user"),
    ("case of a field name", TEXT.replace(b'"symbol"', b'"Symbol"'), "missing_field:symbol"),
    ("UUID in braces", TEXT.replace(b"4cc7761a-", b"{4cc7761a-").replace(b'd08c"', b'd08c}"'), "wrong_type:event_id"),
    ("UUID and a line break", TEXT.replace(b'd08c"', b'd08c\\n"'), "wrong_type:event_id"),
    ("integer with fraction 0", TEXT.replace(b"1783465021000,", b"1783465021000.0,"), "wrong_type:timestamp"),
    ("integer with exponent 0", TEXT.replace(b"1783465021000,", b"1783465021000e0,"), "wrong_type:timestamp"),
    ("integer of 400 digits", TEXT.replace(b"1783465021000,", b"1" * 400 + b","), "wrong_type:timestamp"),
    ("largest 64 bit integer", TEXT.replace(b"1783465021000500", b"9223372036854775807"), None),
    ("one more", TEXT.replace(b"1783465021000500", b"9223372036854775808"), "wrong_type:produced_at"),
    ("smallest 64 bit integer", TEXT.replace(b"1783465021000500", b"-9223372036854775808"), None),
    ("price of 1001 digits", with_price(b"1" * 1001), "out_of_range:price"),
    ("price of 300 digits", with_price(b"1" * 300), None),
    ("smallest price", with_price(b"5e-324"), None),
    ("price that rounds to zero", with_price(b"1e-400"), "out_of_range:price"),
    ("price of minus zero", with_price(b"-0.0"), "out_of_range:price"),
    ("first millisecond", TEXT.replace(b"1783465021000,", b"946684800000,"), None),
    ("too early", TEXT.replace(b"1783465021000,", b"946684799999,"), "out_of_range:timestamp"),
    ("last millisecond", TEXT.replace(b"1783465021000,", b"4102444799999,"), None),
    ("too late", TEXT.replace(b"1783465021000,", b"4102444800000,"), "out_of_range:timestamp"),
    ("as large as may be", TEXT + b" " * (65536 - len(TEXT)), None),
    ("one byte larger", TEXT + b" " * (65537 - len(TEXT)), "too_large"),
]


@pytest.fixture(scope="module")
def corners(spark: SparkSession) -> dict[int, Any]:
    values = [(value, 0, number, 0) for number, (_, value, _) in enumerate(CORNERS)]
    return {row.kafka_offset: row for row in parse(spark, values).collect()}


@pytest.mark.parametrize("number", range(len(CORNERS)), ids=[corner[0] for corner in CORNERS])
def test_corner(corners: dict[int, Any], number: int) -> None:
    _, value, reason = CORNERS[number]
    assert corners[number].reason == reason
    if reason is None:
        # As the engines read them: what is too long for an integer is a double.
        event = json.loads(value, parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits))
        row = corners[number].asDict()
        assert {key: row[key] for key in GOOD if key != "trade_id"} == {
            key: event[key] for key in GOOD if key != "trade_id"
        }


def test_fast_path_takes_ordinary_events(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow checks must not run for ordinary events: they cost some twenty times as much."""
    from pyspark.sql import functions as F  # noqa: N812

    monkeypatch.setattr(transform, "_reason", lambda *_: F.lit("slow"))
    (row,) = parse(spark, [(TEXT, 0, 0, 0)]).collect()
    assert row.reason is None
