"""`lab-audit`: account for every message of the topic in both engines' tables.

The topic is read from its beginning to the offsets at which it ends now; every message is classified by
docs/contract.md, in code that is neither engine's. Then each engine must have written every event once, every reject
with the same reason, and nothing else. Rows of later offsets are left for the next audit.

Exit code 0 when all is accounted for, 1 when not, 2 when the audit could not be made.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from pydantic import BaseModel, ConfigDict, ValidationError

from compare.event import Event, classify

ENGINES = {
    "spark": ("crypto_prices_realtime", "candles_1m_spark"),
    "flink": ("crypto_prices_flink", "candles_1m_flink"),
}
# How long an engine may take to write a candle that its watermark has closed: Spark needs two batches for it.
CANDLE_GRACE_S = 60
# The audit gives up when Kafka answers for that long without a message that must be there.
STALLED_S = 60
# How often the tables are looked at again while engines catch up.
SETTLE_STEP_S = 5
Candle = tuple[float, float, float, float, int]
Position = tuple[int, int]


class Settings(BaseModel):
    """The configuration file."""

    model_config = ConfigDict(extra="forbid")

    bootstrap_servers: list[str]
    topic: str
    symbols: list[str]
    max_event_bytes: int
    candle_window_s: int
    candle_watermark_delay_s: int
    postgres_host: str
    postgres_port: int
    postgres_database: str
    postgres_user: str
    postgres_password_file: Path


@dataclass
class Topic:
    """What the topic holds up to `end` (partition => offset)."""

    end: dict[int, int]
    events: dict[str, Event] = field(default_factory=dict)
    positions: dict[str, Position] = field(default_factory=dict)
    duplicates: int = 0
    rejects: dict[Position, str] = field(default_factory=dict)

    def add(self, partition: int, offset: int, found: Event | str) -> None:
        """Take in one classified message."""
        if isinstance(found, str):
            self.rejects[partition, offset] = found
        elif found.event_id in self.events:
            self.duplicates += 1
        else:
            self.events[found.event_id] = found
            self.positions[found.event_id] = (partition, offset)

    def holds(self, position: Position) -> bool:
        """Tell whether a position lies in the part of the topic that was read."""
        return position[1] < self.end.get(position[0], 0)


def read_topic(settings: Settings) -> Topic:
    """Read the topic from its beginning to its present end."""
    consumer = KafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers, enable_auto_commit=False, max_partition_fetch_bytes=8 << 20,
        request_timeout_ms=30_000,
    )  # fmt: skip
    try:
        partitions = [
            TopicPartition(settings.topic, number) for number in consumer.partitions_for_topic(settings.topic) or ()
        ]
        if not partitions:
            raise ValueError(f"topic {settings.topic} is not there")
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        topic = Topic({partition.partition: end for partition, end in ends.items()})
        consumer.seek_to_beginning(*partitions)
        waiting = {partition for partition in partitions if consumer.position(partition) < ends[partition]}
        read_s = time.monotonic()
        while waiting:
            batches = consumer.poll(timeout_ms=5_000, max_records=20_000)
            if batches:
                read_s = time.monotonic()
            elif time.monotonic() - read_s > STALLED_S:
                raise ValueError(f"Kafka gave nothing for {STALLED_S} s, with messages left in {sorted(waiting)}")
            for partition, records in batches.items():
                for record in records:
                    if record.offset < ends[partition]:
                        found = classify(record.value, settings.symbols, settings.max_event_bytes)
                        topic.add(record.partition, record.offset, found)
            waiting = {partition for partition in waiting if consumer.position(partition) < ends[partition]}
        return topic
    finally:
        consumer.close()


def candles(topic: Topic, window_s: int) -> dict[tuple[str, int], Candle]:
    """Compute every window's open, high, low, close and count from the topic's events."""
    window_ms = window_s * 1000
    groups: dict[tuple[str, int], list[tuple[int, int, float]]] = {}
    for event_id, event in topic.events.items():
        start = event.timestamp_ms // window_ms * window_ms
        groups.setdefault((event.symbol, start), []).append(
            (event.timestamp_ms, topic.positions[event_id][1], event.price)
        )
    result = {}
    for key, trades in groups.items():
        trades.sort()
        prices = [price for _, _, price in trades]
        result[key] = (prices[0], max(prices), min(prices), prices[-1], len(prices))
    return result


def compare_engine(
    topic: Topic, rows: Iterable[tuple[str, int, int]], rejects: Iterable[tuple[int, int, str]]
) -> dict[str, Any]:
    """Compare an engine's rows (event_id, partition, offset) and rejects (partition, offset, reason) with the topic."""
    seen: set[str] = set()
    duplicates = unexpected = 0
    for event_id, partition, offset in rows:
        if not topic.holds((partition, offset)):
            continue
        if event_id in seen:
            duplicates += 1
        seen.add(event_id)
        unexpected += event_id not in topic.events
    missing = sorted(topic.events.keys() - seen)
    found = {(partition, offset): reason for partition, offset, reason in rejects if topic.holds((partition, offset))}
    return {
        "rows": len(seen) + duplicates,
        "missing": len(missing),
        "missing_examples": missing[:5],
        "unexpected": unexpected,
        "duplicates": duplicates,
        "rejected": len(found),
        "rejects_missing": len(topic.rejects.keys() - found.keys()),
        "rejects_different": sum(1 for position, reason in found.items() if topic.rejects.get(position) != reason),
    }


def closed_windows(topic: Topic, expected: Iterable[tuple[str, int]], closed_after_s: int) -> set[tuple[str, int]]:
    """Return the windows that began `closed_after_s` or more before the newest event: every engine has written them."""
    newest_ms = max((event.timestamp_ms for event in topic.events.values()), default=0)
    return {key for key in expected if key[1] + closed_after_s * 1000 <= newest_ms}


def compare_candles(
    tables: dict[str, dict[tuple[str, int], Candle]],
    expected: dict[tuple[str, int], Candle],
    closed: set[tuple[str, int]],
) -> dict[str, int]:
    """Compare the engines' candles with each other, and with the topic's.

    A window that only one engine has closed so far is no difference; one of `closed` that an engine lacks is missing. A
    candle may differ from the topic's, alike for both engines, where an event came later than the watermark: that is
    counted apart.
    """
    both = tables["spark"].keys() & tables["flink"].keys()
    return {
        "compared": len(both),
        "different": sum(1 for key in both if tables["spark"][key] != tables["flink"][key]),
        "missing": sum(len(closed - table.keys()) for table in tables.values()),
        "unlike_topic": sum(1 for key in both if key in expected and tables["spark"][key] != expected[key]),
    }


def _rows(connection: Any, sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401
    # A named cursor streams; the table may be larger than this node's memory likes.
    with connection.cursor(name="audit") as cursor:
        cursor.itersize = 20_000
        cursor.execute(sql, parameters)
        yield from cursor


def audit(settings: Settings, settle_s: float = 0) -> dict[str, Any]:
    """Make the audit; returns the report that `--json` prints.

    The engines of a pipeline under way are behind the topic: they have `settle_s` seconds to write what it held when it
    was read.
    """
    topic = read_topic(settings)
    deadline_s = time.monotonic() + settle_s
    while True:
        report = compare_tables(settings, topic)
        if report["ok"] or time.monotonic() >= deadline_s:
            return report
        time.sleep(SETTLE_STEP_S)


def compare_tables(settings: Settings, topic: Topic) -> dict[str, Any]:
    """Compare the tables, as they are now, with what the topic held."""
    connection = psycopg2.connect(
        host=settings.postgres_host, port=settings.postgres_port, dbname=settings.postgres_database,
        user=settings.postgres_user, password=settings.postgres_password_file.read_text().strip(), connect_timeout=10,
    )  # fmt: skip
    engines = {}
    candle_tables = {}
    try:
        for engine, (prices, candle_table) in ENGINES.items():
            engines[engine] = compare_engine(
                topic,
                _rows(connection, f"SELECT event_id::text, kafka_partition, kafka_offset FROM {prices}"),  # noqa: S608
                _rows(
                    connection,
                    "SELECT kafka_partition, kafka_offset, reason FROM rejected_messages WHERE engine = %s",
                    (engine,),
                ),
            )
            candle_tables[engine] = {
                (symbol, start): tuple(rest)
                for symbol, start, *rest in _rows(
                    connection,
                    f"SELECT symbol, window_start, open, high, low, close, event_count FROM {candle_table}",  # noqa: S608
                )
            }
    finally:
        connection.close()
    expected = candles(topic, settings.candle_window_s)
    closed_after_s = settings.candle_window_s + settings.candle_watermark_delay_s + CANDLE_GRACE_S
    found = compare_candles(candle_tables, expected, closed_windows(topic, expected, closed_after_s))
    good = not (found["different"] or found["missing"]) and not any(
        report[key]
        for report in engines.values()
        for key in ("missing", "unexpected", "duplicates", "rejects_missing", "rejects_different")
    )
    return {
        "ok": good,
        "topic": {
            "events": len(topic.events),
            "duplicates": topic.duplicates,
            "rejected": len(topic.rejects),
            "end_offsets": topic.end,
        },
        "engines": engines,
        "candles": found,
    }


def main() -> int:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("/etc/compare/config.toml"))
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")
    parser.add_argument(
        "--settle-s", type=float, default=0, metavar="S", help="how long engines may take to write what the topic holds"
    )
    arguments = parser.parse_args()
    try:
        settings = Settings.model_validate(tomllib.loads(arguments.config.read_text()))
        report = audit(settings, arguments.settle_s)
    except (OSError, ValueError, ValidationError, KafkaError, psycopg2.Error) as error:
        print(f"lab-audit: {arguments.config}: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report, indent=None if arguments.json else 1))
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
