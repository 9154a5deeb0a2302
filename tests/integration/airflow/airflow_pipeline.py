"""A pipeline without engines: writes what they write, and sends what the producer sends."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from kafka import KafkaProducer
from services import KafkaServer

SYMBOLS = ["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"]


class Pipeline:
    """Writes what both engines write, and what the producer sends."""

    def __init__(self, connection: Any, kafka: KafkaServer, topic: str) -> None:  # noqa: ANN401
        self.sql = connection.cursor()
        self.producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all")
        self.topic = topic
        self.offset = 0

    def events(
        self, *ages_s: float, tables: tuple[str, ...] = ("crypto_prices_realtime", "crypto_prices_flink")
    ) -> None:
        """Store an event of every symbol for each age."""
        for age_s in ages_s:
            at_ms = round((time.time() - age_s) * 1000)
            for symbol in SYMBOLS:
                self.offset += 1
                row = (symbol, 1.5, "synthetic", at_ms, str(uuid.uuid4()), at_ms * 1000, 0, self.offset)
                for table in tables:
                    self.sql.execute(f"INSERT INTO {table} VALUES (%s, %s, %s, %s, %s, %s, %s, %s)", row)

    def candle(self, table: str, age_s: float, close: float = 1.5) -> None:
        start_ms = round((time.time() - age_s) * 1000) // 60_000 * 60_000
        self.sql.execute(f"INSERT INTO {table} VALUES ('BTC-USD', %s, 1.5, 2, 1, %s, 6)", (start_ms, close))

    def send(self, age_s: float) -> None:
        """Send an event to the topic."""
        at_ms = round((time.time() - age_s) * 1000)
        value = {
            "symbol": "BTC-USD",
            "price": 1.5,
            "user": "synthetic",
            "timestamp": at_ms,
            "produced_at": at_ms * 1000,
        }
        self.producer.send(self.topic, json.dumps(value).encode(), key=b"BTC-USD", timestamp_ms=at_ms).get(30)

    def trade(self, trade_id: int, age_s: float, symbol: str = "GAP-USD") -> None:
        value = {"symbol": symbol, "user": "synthetic", "trade_id": trade_id}
        at_ms = round((time.time() - age_s) * 1000)
        # One partition for each symbol, as the producer has it: that keeps the order.
        self.producer.send(self.topic, json.dumps(value).encode(), key=symbol.encode(), timestamp_ms=at_ms).get(30)
