"""The dashboard's statements against a real PostgreSQL with the lab's schema: what they say, and what they cost."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from crypto_dashboard import database, state
from crypto_dashboard.config import Config
from crypto_dashboard.database import Postgres
from services import PostgresServer

Connection = psycopg2.extensions.connection
SYMBOLS = ["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"]


@pytest.fixture
def settings(postgres: PostgresServer, tmp_path: Path) -> Config:
    """The reader's own settings: least privilege."""
    server = {"host": postgres.host, "port": postgres.port, "password_file": postgres.password_file("lab_reader")}
    return Config.model_validate({"server": {"uplot": tmp_path}, "postgres": server})


@pytest.fixture
def source(settings: Config) -> Iterator[Postgres]:
    with contextlib.closing(Postgres(settings)) as found:
        yield found


def insert(connection: Connection, table: str, symbol: str, *, age_s: float, rows: int = 1, first: int = 0) -> None:
    """Store events that were made some seconds ago, a millisecond apart, in one transaction."""
    now_us = time.time_ns() // 1000 - round(age_s * 1e6)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} SELECT %s, 100 + n, 'test', %s / 1000 + n, gen_random_uuid(), %s + n * 1000, 1,"
            " %s + n FROM generate_series(0, %s) AS n",
            (symbol, now_us, now_us, first, rows - 1),
        )


def scans(
    cursor: psycopg2.extensions.cursor, text: str, table: str, parameters: dict[str, Any]
) -> list[dict[str, Any]]:
    """Run a statement about SYMBOLS; returns what its plan has read of a table, and how."""
    cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", {"symbols": SYMBOLS, **parameters})
    waiting, found = [cursor.fetchall()[0][0][0]["Plan"]], []
    while waiting:
        node = waiting.pop()
        waiting += node.get("Plans", [])
        if node.get("Relation Name") == table:
            found.append(node)
    assert found
    return found


def test_empty_tables(clean_database: Connection, source: Postgres) -> None:
    assert clean_database.autocommit
    found = source.rows()
    assert abs(found.now_ms - time.time() * 1000) < 5_000
    for engine in found.engines.values():
        assert (engine.rows, engine.p50_ms, engine.committed_ms, engine.quotes) == (0, None, None, {})
    assert source.history() == {"spark": [], "flink": []}
    assert source.candles() == {"spark": {}, "flink": {}}


def test_latency_is_that_of_the_view(clean_database: Connection, source: Postgres) -> None:
    for age_s in (1.0, 2.0, 3.0, 9.0):
        insert(clean_database, "crypto_prices_realtime", "BTC-USD", age_s=age_s)
    insert(clean_database, "crypto_prices_flink", "ETH-USD", age_s=0.05)
    spark = source.rows().engines["spark"]
    assert (spark.rows, spark.capped) == (4, False)
    with clean_database.cursor() as cursor:
        cursor.execute("SELECT p50_ms, p95_ms, p99_ms FROM engine_latency WHERE engine = 'spark'")
        assert (spark.p50_ms, spark.p95_ms, spark.p99_ms) == pytest.approx(cursor.fetchone())
    assert spark.committed_ms is not None
    assert abs(spark.committed_ms - time.time() * 1000) < 5_000


def test_newest_row_of_each_symbol_and_partition(clean_database: Connection, source: Postgres) -> None:
    insert(clean_database, "crypto_prices_flink", "BTC-USD", age_s=30, rows=3, first=10)
    insert(clean_database, "crypto_prices_flink", "ETH-USD", age_s=1, first=40)
    insert(clean_database, "crypto_prices_flink", "XRP-USD", age_s=1, first=99)
    flink = source.rows().engines["flink"]
    assert {symbol: quote.price for symbol, quote in flink.quotes.items()} == {"BTC-USD": 102.0, "ETH-USD": 100.0}
    assert flink.quotes["BTC-USD"].user == "test"
    assert flink.offsets == {1: 40}


def test_reject_at_the_end_is_no_lag(clean_database: Connection, source: Postgres) -> None:
    """A message that is no event has been dealt with: nothing waits behind it."""
    for table in ("crypto_prices_realtime", "crypto_prices_flink"):
        insert(clean_database, table, "BTC-USD", age_s=1, first=40)
    with clean_database.cursor() as cursor:
        for offset in (41, 12):
            cursor.execute("INSERT INTO rejected_messages VALUES ('flink', 1, %s, 0, 'not_json', NULL)", (offset,))
    found = source.rows().engines
    assert (found["spark"].offsets, found["flink"].offsets) == ({1: 40}, {1: 41})


def test_partition_of_rejects_alone_is_no_lag(clean_database: Connection, source: Postgres) -> None:
    """No row says how far an engine is there, and none ever will."""
    insert(clean_database, "crypto_prices_flink", "BTC-USD", age_s=1, first=40)
    with clean_database.cursor() as cursor:
        for engine, partition, offset in (("flink", 0, 5), ("flink", 0, 9), ("flink", 4, 2), ("spark", 2, 7)):
            cursor.execute(
                "INSERT INTO rejected_messages VALUES (%s, %s, %s, 0, 'not_json', NULL)", (engine, partition, offset)
            )
    found = source.rows().engines
    assert (found["spark"].offsets, found["flink"].offsets) == ({2: 7}, {0: 9, 1: 40, 4: 2})
    assert state.lag(found["flink"], {0: 10, 1: 41, 4: 3}) == 0


def test_rejects_are_found_by_the_index(clean_database: Connection) -> None:
    with clean_database.cursor() as cursor:
        cursor.execute(
            "INSERT INTO rejected_messages"
            " SELECT 'flink', n % 3, n, 0, 'not_json', NULL FROM generate_series(0, 30000) AS n"
        )
        cursor.execute("ANALYZE")
        found = scans(
            cursor, database.statement(database.NOW, "crypto_prices_flink"), "rejected_messages",
            {"limit": database.NEWEST_ROWS, "table": "crypto_prices_flink", "engine": "flink"},
        )  # fmt: skip
    for scan in found:
        assert scan["Node Type"] in {"Index Scan", "Index Only Scan"}
        assert scan["Actual Rows"] <= 1


def test_more_rows_than_are_looked_at(clean_database: Connection, source: Postgres) -> None:
    insert(clean_database, "crypto_prices_flink", "BTC-USD", age_s=5, rows=database.NEWEST_ROWS + 200)
    flink = source.rows().engines["flink"]
    assert flink.capped
    assert flink.rows == database.NEWEST_ROWS


def test_counter_of_inserted_rows_grows(clean_database: Connection, source: Postgres) -> None:
    before = source.rows().engines["spark"].inserted
    insert(clean_database, "crypto_prices_realtime", "BTC-USD", age_s=1, rows=7)
    assert before is not None
    deadline = time.monotonic() + 20
    # The server's statistics follow within a second or so, at the end of a transaction.
    while (now := source.rows().engines["spark"].inserted or 0) < before + 7:
        assert time.monotonic() < deadline, (before, now)
        clean_database.cursor().execute("SELECT 1")
        time.sleep(0.5)


def test_history_is_of_whole_steps(
    clean_database: Connection, source: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "STEP_S", 2)
    insert(clean_database, "crypto_prices_realtime", "BTC-USD", age_s=3, rows=4)
    insert(clean_database, "crypto_prices_realtime", "SOL-USD", age_s=3, rows=2)
    time.sleep(4.1)
    # Rows of one commit fall into one step; two commits, into two at most.
    steps = source.history()["spark"]
    assert sum(rows for _, rows, _, _ in steps) == 6
    for start_ms, _, p50_ms, p99_ms in steps:
        assert start_ms % 2_000 == 0
        assert 2_900 < p50_ms <= p99_ms < 6_000


def test_history_leaves_out_what_it_does_not_know_whole(
    clean_database: Connection, source: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "STEP_S", 1)
    monkeypatch.setattr(database, "HISTORY_ROWS", 5)
    insert(clean_database, "crypto_prices_realtime", "BTC-USD", age_s=9, rows=5)
    time.sleep(2.1)
    insert(clean_database, "crypto_prices_realtime", "BTC-USD", age_s=0.1, rows=4)
    time.sleep(1.1)
    # Of the first five one is looked at: their step would say a fifth of what there was.
    assert [rows for _, rows, _, _ in source.history()["spark"]] == [4]


def test_candles(clean_database: Connection, source: Postgres) -> None:
    now_ms = time.time_ns() // 1_000_000
    with clean_database.cursor() as cursor:
        for window_ms in (now_ms - 120_000, now_ms - 60_000, now_ms - 3 * 3_600_000):
            cursor.execute("INSERT INTO candles_1m_flink VALUES ('SOL-USD', %s, 1, 3, 0.5, 2, 9)", (window_ms,))
    found = source.candles()
    assert found["spark"] == {}
    assert list(found["flink"]) == ["SOL-USD"]
    shape = (1, 3, 0.5, 2)
    assert [tuple(candle) for candle in found["flink"]["SOL-USD"]] == [
        (now_ms - 120_000, *shape), (now_ms - 60_000, *shape),
    ]  # fmt: skip


def test_reader_cannot_write(source: Postgres) -> None:
    source.rows()
    with pytest.raises(psycopg2.Error, match="read-only transaction"), source._connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO rejected_messages VALUES ('spark', 0, 0, 0, 'x', '{uuid.uuid4()}')")


def test_server_that_was_restarted_is_asked_again(clean_database: Connection, source: Postgres) -> None:
    source.rows()
    with clean_database.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'crypto-dashboard'"
        )
        assert cursor.fetchall() == [(True,)]
    assert source.rows().engines["spark"].rows == 0


def test_a_look_is_cheap_in_a_long_table(clean_database: Connection, source: Postgres) -> None:
    """With 100,000 rows per engine, a look reads the newest by the index and nothing else."""
    for number, symbol in enumerate(SYMBOLS):
        for table in ("crypto_prices_realtime", "crypto_prices_flink"):
            insert(clean_database, table, symbol, age_s=80, rows=20_000, first=number * 20_000)
    clean_database.cursor().execute("ANALYZE")
    parameters = {"symbols": SYMBOLS, "limit": database.NEWEST_ROWS, "table": "crypto_prices_flink", "engine": "flink"}
    with clean_database.cursor() as cursor:
        cursor.execute("EXPLAIN " + database.statement(database.NOW, "crypto_prices_flink"), parameters)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "crypto_prices_flink_symbol_timestamp" in plan
    assert "Seq Scan on crypto_prices_flink" not in plan
    source.rows()
    began = time.monotonic()
    for _ in range(10):
        source.rows()
    # Of both engines, on a machine that may be busy; 2 s lie between two looks.
    assert (time.monotonic() - began) / 10 < 0.5


@pytest.mark.parametrize(
    ("template", "table", "key"),
    [(database.HISTORY, "crypto_prices_flink", "timestamp"), (database.CANDLES, "candles_1m_flink", "window_start")],
)
def test_what_is_old_is_not_read(clean_database: Connection, template: str, table: str, key: str) -> None:
    """Of a month the index gives the last minutes: rows of before are not read and thrown away."""
    with clean_database.cursor() as cursor:
        for symbol in SYMBOLS:
            values = {"symbol": symbol, "now_ms": time.time_ns() // 1_000_000}
            columns = "1, 't', %(now_ms)s - n * 60000, gen_random_uuid(), 0, 1, n"
            if key == "window_start":
                columns = "%(now_ms)s - n * 60000, 1, 1, 1, 1, 1"
            cursor.execute(
                f"INSERT INTO {table} SELECT %(symbol)s, {columns} FROM generate_series(0, 20000) AS n", values
            )
        cursor.execute("ANALYZE")
        found = scans(
            cursor, database.statement(template, table, since_min=20), table,
            {"limit": database.HISTORY_ROWS, "step_s": 30, "minutes": 15},
        )  # fmt: skip
    for scan in found:
        assert scan["Node Type"] in {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}
        assert scan["Actual Rows"] > 0
        assert scan.get("Rows Removed by Filter", 0) == 0
