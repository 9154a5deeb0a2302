"""The servers that every other integration test stands on."""

from __future__ import annotations

import psycopg2
import pytest
from kafka import KafkaConsumer, KafkaProducer
from services import KafkaServer, PostgresServer


def test_kafka_keeps_messages_over_a_restart(kafka: KafkaServer) -> None:
    topic = kafka.create_topic("services-check", partitions=1)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, max_request_size=2_000_000)
    producer.send(topic, b"x" * 1_048_576).get(timeout=30)
    producer.close()
    kafka.stop()
    kafka.start()
    consumer = KafkaConsumer(topic, bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest",
                             consumer_timeout_ms=30_000)  # fmt: skip
    assert len(next(iter(consumer)).value) == 1_048_576
    consumer.close()


def test_first_row_of_an_event_wins(clean_database: psycopg2.extensions.connection, postgres: PostgresServer) -> None:
    password = postgres.password_file("flink_writer").read_text()
    writer = psycopg2.connect(
        host=postgres.host, port=postgres.port, dbname=postgres.database, user="flink_writer", password=password
    )
    insert = (
        "INSERT INTO crypto_prices_flink VALUES ('BTC-USD', %s, 'test', 1, %s, 1, 0, 0) "
        "ON CONFLICT (event_id) DO NOTHING"
    )
    event_id = "5f0c8a0e-3c3f-5f0e-9d7b-6d1f0b6f3a11"
    with writer, writer.cursor() as cursor:
        cursor.execute(insert, (1.0, event_id))
    with writer, writer.cursor() as cursor:
        cursor.execute(insert, (2.0, event_id))
    for forbidden in ("DELETE FROM crypto_prices_flink", "UPDATE crypto_prices_flink SET price = 2"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege), writer, writer.cursor() as cursor:
            cursor.execute(forbidden)
    writer.close()
    with clean_database.cursor() as cursor:
        cursor.execute("SELECT price FROM crypto_prices_flink")
        assert cursor.fetchall() == [(1.0,)]
        cursor.execute("SELECT events, p50_ms > 0 FROM engine_latency WHERE engine = 'flink'")
        assert cursor.fetchall() == [(1, True)]
