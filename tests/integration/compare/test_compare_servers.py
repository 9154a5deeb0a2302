"""What the comparison reads and writes, with a real Kafka and a real PostgreSQL."""

from __future__ import annotations

import contextlib
import io
import time
import uuid
from typing import Any

import psycopg2
import pytest
from compare import ceiling
from compare.generator import Sender, Settings, producer_settings, send
from compare.identity import event_id
from compare.load import GeneratorSpec, Steady
from compare.rows import Rows, copy_statement, parse_copy
from compare.topic import Counts, partitions, read
from confluent_kafka import Consumer
from services import KafkaServer, PostgresServer

SYMBOLS = ["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"]
TAG = 31


def insert(connection: Any, table: str, tag: int, first: int, rows: int, produced_us: int) -> None:  # noqa: ANN401
    """Store events in one transaction."""
    with connection, connection.cursor() as cursor:
        for index in range(first, first + rows):
            cursor.execute(
                f"INSERT INTO {table} VALUES ('BTC-USD', 1, 'synthetic', 1783465020000, %s, %s, 0, %s)",
                (str(event_id(tag, index, produced_us)), produced_us, index),
            )


def rows_of(connection: Any, table: str, *between: str) -> Rows:  # noqa: ANN401
    """Read a table as the comparison does, without the shell."""
    stream = io.BytesIO()
    with connection, connection.cursor() as cursor:
        cursor.copy_expert(copy_statement(table, *between), stream)
    return parse_copy([stream.getvalue()], TAG)


def test_latency_is_what_postgresql_says(
    clean_database: psycopg2.extensions.connection, postgres: PostgresServer
) -> None:
    assert clean_database.autocommit
    with contextlib.closing(psycopg2.connect(postgres.superuser_dsn)) as connection:
        produced_us = time.time_ns() // 1000 - 1_000_000
        insert(connection, "crypto_prices_flink", TAG, 0, 3, produced_us)
        insert(connection, "crypto_prices_flink", TAG, 3, 2, produced_us)
        insert(connection, "crypto_prices_flink", TAG + 1, 0, 1, produced_us)
        rows = rows_of(connection, "crypto_prices_flink")
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT kafka_offset, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint"
                f" - produced_at FROM crypto_prices_flink WHERE event_id < '{event_id(TAG, 99, produced_us)}'"
            )
            said = dict(cursor.fetchall())
    assert rows.foreign == 1
    assert dict(zip(rows.index.tolist(), rows.latency_us.tolist(), strict=True)) == said
    # Rows of a transaction have one commit time, and that is later than the second's before it.
    assert len(set(rows.commit_us.tolist())) == 2
    assert all(1_000_000 <= latency < 60_000_000 for latency in rows.latency_us.tolist())


def test_a_range_of_ids_is_the_events_of_that_time(
    clean_database: psycopg2.extensions.connection, postgres: PostgresServer
) -> None:
    assert clean_database.autocommit
    now_us = time.time_ns() // 1000
    with contextlib.closing(psycopg2.connect(postgres.superuser_dsn)) as connection:
        for second in range(3):
            insert(connection, "crypto_prices_realtime", TAG, 10 * second, 10, now_us + second * 1_000_000)
        low, high = (str(event_id(0, 0, now_us + second * 1_000_000)) for second in (1, 2))
        rows = rows_of(connection, "crypto_prices_realtime", low, high)
    assert sorted(rows.index.tolist()) == list(range(10, 20))


@pytest.fixture
def settings(kafka: KafkaServer) -> Settings:
    """The generator's settings, with a topic of its own."""
    topic = kafka.create_topic(f"compare-{uuid.uuid4().hex[:8]}")
    return Settings(bootstrap_servers=[kafka.bootstrap_servers], topic=topic, symbols=SYMBOLS)


def test_every_event_of_a_load_is_in_the_topic(settings: Settings) -> None:
    spec = GeneratorSpec(tag=TAG, load=Steady(rate_per_s=5000, duration_s=2), lead_s=1)
    sender = Sender(producer_settings(settings, spec), settings.topic)
    sender.connect()
    account = send(spec, sender, SYMBOLS, lambda _line: None)
    assert (account["sent"], account["acknowledged"]) == (10_000, 10_000)
    counts = Counts(TAG, 10_001)
    read(settings, counts)
    assert counts.to_json() == {"messages": 10_000, "foreign": 0, "missing": [(10_000, 10_001)], "duplicated": []}


def test_keys_lie_where_javas_clients_put_them(settings: Settings) -> None:
    spec = GeneratorSpec(tag=TAG, load=Steady(rate_per_s=1000, duration_s=0.1), lead_s=0.5)
    sender = Sender(producer_settings(settings, spec), settings.topic)
    sender.connect()
    send(spec, sender, SYMBOLS, lambda _line: None)
    consumer = Consumer({
        "bootstrap.servers": settings.bootstrap_servers[0], "group.id": "test", "auto.offset.reset": "earliest",
    })  # fmt: skip
    assert partitions(consumer, settings.topic) == [0, 1, 2]
    consumer.subscribe([settings.topic])
    places: dict[bytes, set[int]] = {}
    seen = 0
    deadline_s = time.monotonic() + 60
    while seen < 100 and time.monotonic() < deadline_s:
        for message in consumer.consume(100, timeout=1.0):
            places.setdefault(message.key(), set()).add(message.partition())
            seen += 1
    consumer.close()
    from kafka.partitioner.default import murmur2

    assert places == {
        symbol.encode(): {(murmur2(symbol.encode()) & 0x7FFFFFFF) % 3} for symbol in SYMBOLS
    }  # fmt: skip


def test_ceiling_writes_every_row(clean_database: psycopg2.extensions.connection, postgres: PostgresServer) -> None:
    cursor = clean_database.cursor()
    cursor.execute("CREATE TABLE ceiling (LIKE crypto_prices_flink INCLUDING ALL)")
    cursor.execute("GRANT INSERT ON ceiling TO flink_writer")
    try:
        found = ceiling.measure(ceiling.Request(
            host=postgres.host, port=postgres.port, database=postgres.database, user="flink_writer",
            password=postgres.passwords["flink_writer"], table="ceiling", rows=1000, connections=3,
        ))  # fmt: skip
        cursor.execute("SELECT count(*), count(DISTINCT event_id) FROM ceiling")
        assert cursor.fetchone() == (1000, 1000)
        assert found["seconds"] > 0
    finally:
        cursor.execute("DROP TABLE ceiling")
