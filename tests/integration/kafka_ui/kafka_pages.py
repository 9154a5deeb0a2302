"""Topics with messages and groups in the broker, and the pages over it.

What changes anything here is confluent-kafka's: the guard that these tests import holds all of kafka-python in their
process.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from services import KafkaServer, free_port

TOPIC = "crypto_prices"
SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD")
FIRST_MS = 1_795_655_000_000
MESSAGES = 100
# The group of a consumer that assigns itself its partitions, as Flink's does; and one with a member.
GROUP, JOINED = "crypto-prices-flink", "team/readers"


def make_topics(kafka: KafkaServer) -> None:
    """Fill the cluster: prices, and messages of all kinds."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    topics = [NewTopic(TOPIC, 3, 1, config={"retention.ms": "604800000"})]
    topics += [NewTopic(name, 1, 1, config={"max.message.bytes": "2000000"}) for name in ("kinds", "large", "packed")]
    for made in admin.create_topics(topics).values():
        made.result(30)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "message.max.bytes": 2_000_000})
    for number in range(MESSAGES):
        symbol = SYMBOLS[number % 5]
        value = f'{{"symbol": "{symbol}", "price": {number}.50, "trade_id": {number}}}'
        producer.produce(TOPIC, value, symbol, partition=number % 2, timestamp=FIRST_MS + number * 1000)
    producer.produce("kinds", b"\x00\xff", b"\xfe", headers={"source": b"molecule"})
    producer.produce("kinds", None, b"deleted")
    producer.produce("kinds", "<script>alert(1)</script>")
    for _ in range(24):
        producer.produce("large", b"x" * 1_000_000)
    assert producer.flush(30) == 0
    packed = Producer({"bootstrap.servers": kafka.bootstrap_servers, "compression.type": "lz4", "linger.ms": 100})
    for _ in range(20):
        packed.produce("packed", "squeeze me " * 20)
    assert packed.flush(30) == 0


def commit(kafka: KafkaServer, offsets: dict[int, int]) -> None:
    """Commit partition => offset for a group without members."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": GROUP, "enable.auto.commit": False})
    places = [TopicPartition(TOPIC, number, offset) for number, offset in offsets.items()]
    consumer.commit(offsets=places, asynchronous=False)
    consumer.close()


@contextlib.contextmanager
def joined(kafka: KafkaServer) -> Iterator[None]:
    """A member is in a group for a while, with partitions and nothing committed."""
    consumer = Consumer({
        "bootstrap.servers": kafka.bootstrap_servers, "group.id": JOINED, "client.id": "reader-1",
        "enable.auto.commit": False, "auto.offset.reset": "earliest",
    })  # fmt: skip
    consumer.subscribe([TOPIC])
    try:
        deadline = time.monotonic() + 30
        while not consumer.assignment():
            assert time.monotonic() < deadline, "the consumer got no partitions"
            consumer.poll(0.2)
        yield
    finally:
        consumer.close()


@contextlib.contextmanager
def pages(kafka: KafkaServer, folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Give URL and process of the server."""
    port = free_port()
    config = folder / "kafka_ui.toml"
    config.write_text(f'[server]\nport = {port}\n[kafka]\nbootstrap_servers = ["{kafka.bootstrap_servers}"]\n')
    process = subprocess.Popen([sys.executable, "-m", "crypto_kafka_ui", "serve", "--config", str(config)])
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{url}/healthz", timeout=2).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield url, process
    finally:
        process.terminate()
        process.wait(20)
