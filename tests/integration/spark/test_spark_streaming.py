# ruff: noqa: ANN401 - fixtures of a conftest have no importable type, and psycopg2 has none at all
"""The application as a process against a real Kafka and a real PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import signal
import time
import urllib.request
import uuid
from typing import Any

import psycopg2
import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic
from services import KafkaServer, PostgresServer

WINDOW_START_MS = 1783465020000
PUSH_MS = WINDOW_START_MS + 600_000
"""Event time that closes every window of the fixture."""


def event(number: int, *, timestamp_ms: int = PUSH_MS, symbol: str = "BTC-USD") -> bytes:
    return json.dumps(
        {
            "symbol": symbol,
            "price": 100.0 + number,
            "user": "synthetic",
            "timestamp": timestamp_ms,
            "event_id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{symbol} {timestamp_ms} {number}")),
            "produced_at": time.time_ns() // 1000,
        }
    ).encode()


def create_topic(kafka: KafkaServer, name: str) -> str:
    # The fixture's records carry times of their own, which no retention may take for old age.
    configs = {"max.message.bytes": "2097152", "retention.ms": "-1"}
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    admin.create_topics([NewTopic(name, num_partitions=3, replication_factor=1, topic_configs=configs)])
    admin.close()
    return name


def producer(kafka: KafkaServer) -> KafkaProducer:
    return KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, max_request_size=2_097_152, linger_ms=5)


def send_fixture(kafka: KafkaServer, topic: str, fixture: Any) -> dict[tuple[int, int], int]:
    """Send the fixture's records in order; return (partition, offset there) -> offset here."""
    offsets = {}
    sender = producer(kafka)
    sent = [
        (record, sender.send(topic, record.value, b"k", partition=record.partition, timestamp_ms=record.timestamp_ms))
        for record in fixture.records
    ]
    sender.flush()
    for record, result in sent:
        offsets[record.partition, record.offset] = result.get(30).offset
    sender.close()
    return offsets


def send(kafka: KafkaServer, topic: str, values: list[tuple[int, bytes | None]]) -> None:
    sender = producer(kafka)
    for partition, value in values:
        sender.send(topic, value, b"k", partition=partition)
    sender.flush()
    sender.close()


def query(connection: Any, text: str) -> list[tuple[Any, ...]]:
    cursor = connection.cursor()
    cursor.execute(text)
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def count(connection: Any, table: str) -> int:
    return int(query(connection, f"SELECT count(*) FROM {table}")[0][0])


def assert_fixture_written(connection: Any, fixture: Any, offsets: dict[tuple[int, int], int]) -> None:
    rows = query(
        connection,
        'SELECT symbol, price, "user", timestamp, event_id::text, produced_at, kafka_partition, kafka_offset '
        "FROM crypto_prices_realtime WHERE \"user\" <> 'synthetic'",
    )
    assert sorted(rows) == sorted(
        (
            row["symbol"],
            row["price"],
            row["user"],
            row["timestamp"],
            row["event_id"],
            row["produced_at"],
            row["kafka_partition"],
            offsets[row["kafka_partition"], row["kafka_offset"]],
        )
        for row in fixture.rows
    )
    rejected = query(
        connection,
        "SELECT kafka_partition, kafka_offset, kafka_timestamp, reason, payload FROM rejected_messages "
        "WHERE engine = 'spark'",
    )
    payloads = {(r.partition, r.offset): r.value for r in fixture.records}
    got = {(p, o, t): (reason, None if payload is None else bytes(payload)) for p, o, t, reason, payload in rejected}
    want = {
        (r["kafka_partition"], offsets[r["kafka_partition"], r["kafka_offset"]], r["kafka_timestamp"]): (
            r["reason"],
            payloads[r["kafka_partition"], r["kafka_offset"]],
        )
        for r in fixture.rejected
    }
    assert got == want


def assert_candles_written(app: Any, connection: Any, fixture: Any) -> None:
    columns = ("symbol", "window_start", "open", "high", "low", "close", "event_count")
    want = sorted(tuple(candle[column] for column in columns) for candle in fixture.candles)
    app.wait_until(lambda: count(connection, "candles_1m_spark") >= len(want), "the fixture's candles")
    assert sorted(query(connection, f"SELECT {', '.join(columns)} FROM candles_1m_spark")) == want


def metric(app: Any, name: str) -> float:
    url = f"http://127.0.0.1:{app.settings['metrics']['port']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_all_modes_write_the_same(kafka: KafkaServer, clean_database: Any, spark_app: Any, fixture: Any) -> None:
    """Micro-batches write the fixture, realtime goes on from their checkpoint, a replay from the start adds nothing."""
    topic = create_topic(kafka, "spark-modes")
    offsets = send_fixture(kafka, topic, fixture)
    app = spark_app(topic, "microbatch")
    app.start()
    app.wait_until(lambda: count(clean_database, "rejected_messages") >= len(fixture.rejected), "the fixture's rejects")
    assert_fixture_written(clean_database, fixture, offsets)
    # A window closes when the watermark passes its end: one event far ahead, from each partition.
    send(kafka, topic, [(0, event(0))])
    assert_candles_written(app, clean_database, fixture)
    assert "Batch: 0\n+" in app.log
    assert "|BTC-USD |86769.94 |" in app.log
    app.wait_until(
        lambda: metric(app, 'crypto_spark_input_rows_total{query="prices"}') == len(fixture.records) + 1, "the metrics"
    )
    assert metric(app, "crypto_spark_rejected_rows_total") == len(fixture.rejected)
    assert app.stop() == 0
    assert count(clean_database, "spark_staging_prices") == 0
    assert count(clean_database, "spark_staging_rejected") == 0

    rows = len(fixture.rows) + 1
    rejects = len(fixture.rejected)
    commits = "SELECT event_id::text, xmin::text FROM crypto_prices_realtime ORDER BY 1"
    for step, mode in enumerate(("realtime", "continuous"), start=1):
        app.settings["spark"]["mode"] = mode
        if mode == "continuous":
            # Reads the whole topic again.
            app.settings["job"]["checkpoint_dir"] += "-new"
        before = query(clean_database, commits)
        # A tombstone and 1 MiB of text, with neighbours before and after in their partition.
        send(
            kafka,
            topic,
            [(p, event(10 * step + p, symbol="ETH-USD")) for p in range(3)]
            + [(1, None), (1, b"x" * 1_048_576), (1, event(10 * step + 5, symbol="ETH-USD"))],
        )
        app.start()
        rows, rejects = rows + 4, rejects + 2
        app.wait_until(lambda rows=rows: count(clean_database, "crypto_prices_realtime") >= rows, f"rows in {mode}")
        app.wait_until(lambda n=rejects: count(clean_database, "rejected_messages") >= n, f"rejects in {mode}")
        # And while it runs.
        send(kafka, topic, [(p, event(100 * step + p, symbol="ADA-USD")) for p in range(3)])
        rows += 3
        app.wait_until(lambda rows=rows: count(clean_database, "crypto_prices_realtime") >= rows, f"rows in {mode}")
        assert count(clean_database, "crypto_prices_realtime") == rows
        assert count(clean_database, "rejected_messages") == rejects
        assert set(before) <= set(query(clean_database, commits)), "rows were written a second time"
        assert app.stop() == 0
    assert query(
        clean_database,
        "SELECT reason, count(*), sum(length(payload)) FROM rejected_messages "
        "WHERE kafka_timestamp > 1790000000000 GROUP BY reason ORDER BY reason",
    ) == [("null_value", 2, None), ("too_large", 2, 2 * 1_048_576)]


@pytest.mark.parametrize("mode", ["continuous", "realtime"])
def test_killed_driver_loses_and_doubles_nothing(
    kafka: KafkaServer, clean_database: Any, spark_app: Any, fixture: Any, mode: str
) -> None:
    topic = create_topic(kafka, f"spark-kill-{mode}")
    offsets = send_fixture(kafka, topic, fixture)
    app = spark_app(topic, mode)
    if mode == "continuous":
        # Small batches, so that the kill comes between two of them or inside one, not after the only one.
        app.settings["spark"]["max_offsets_per_trigger"] = 2000
    app.settings["events"]["log_events"] = False
    wanted = 10_000
    values = [(number % 3, event(number, timestamp_ms=PUSH_MS + number)) for number in range(wanted)]
    send(kafka, topic, values[:8_000])
    app.start()
    app.wait_until(lambda: count(clean_database, "crypto_prices_realtime") > 1000, "the first rows")
    # The last ones are just being read when it dies, however fast the first ones were.
    send(kafka, topic, values[8_000:])
    assert app.stop(signal.SIGKILL) == -signal.SIGKILL
    # Its JVM ends with it; until then it may hold the locks.
    app.start()
    total = wanted + len(fixture.rows)
    app.wait_until(lambda: count(clean_database, "crypto_prices_realtime") >= total, "all rows")
    assert_fixture_written(clean_database, fixture, offsets)
    assert_candles_written(app, clean_database, fixture)
    assert count(clean_database, "crypto_prices_realtime") == total
    assert app.stop() == 0


def test_database_restart_ends_the_application_and_loses_nothing(
    kafka: KafkaServer, postgres: PostgresServer, clean_database: Any, spark_app: Any
) -> None:
    topic = create_topic(kafka, "spark-database")
    app = spark_app(topic, "realtime")
    send(kafka, topic, [(number % 3, event(number)) for number in range(300)])
    app.start()
    app.wait_until(lambda: count(clean_database, "crypto_prices_realtime") == 300, "the first rows")
    postgres.stop()
    # These meet a dead connection.
    send(kafka, topic, [(number % 3, event(number)) for number in range(300, 600)])
    assert app.wait_for_exit() == 1
    assert "query 'prices' failed" in app.log or "query 'candles' failed" in app.log or "psycopg2" in app.log
    postgres.start()
    app.start()
    with contextlib.closing(psycopg2.connect(postgres.superuser_dsn)) as connection:
        connection.autocommit = True
        app.wait_until(lambda: count(connection, "crypto_prices_realtime") == 600, "all rows")
    assert app.stop() == 0


def test_realtime_refuses_too_few_slots(kafka: KafkaServer, clean_database: Any, spark_app: Any) -> None:
    app = spark_app(create_topic(kafka, "spark-slots"), "realtime", cores=3)
    app.start()
    assert app.wait_for_exit() == 1
    assert "needs 4 task slots (3 partitions of 'spark-slots'" in app.log
    assert "the executors offer 3" in app.log
    assert count(clean_database, "crypto_prices_realtime") == 0


def test_recreated_topic_is_refused_with_the_remedy(kafka: KafkaServer, clean_database: Any, spark_app: Any) -> None:
    topic = create_topic(kafka, "spark-recreated")
    send(kafka, topic, [(0, event(0))])
    app = spark_app(topic, "continuous")
    app.start()
    app.wait_until(lambda: count(clean_database, "crypto_prices_realtime") == 1, "the row")
    assert app.stop() == 0
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    admin.delete_topics([topic])
    deadline = time.monotonic() + 30
    while topic in admin.list_topics() and time.monotonic() < deadline:
        time.sleep(0.2)
    admin.close()
    create_topic(kafka, topic)
    send(kafka, topic, [(0, event(number)) for number in range(5)])
    app.start()
    assert app.wait_for_exit() == 3
    assert "the topic was recreated" in app.log
    assert f"move {app.settings['job']['checkpoint_dir']} away" in app.log
    assert count(clean_database, "crypto_prices_realtime") == 1
