"""The topic as the checks need it: since when there are messages, and which trade ids its newest ones carry."""

from __future__ import annotations

import itertools
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer, TopicPartition

# Every step of a connection is no news in a task's log.
logging.getLogger("kafka").setLevel(logging.WARNING)
# Kafka answers, but gives nothing: then a message is not there that must be.
STALLED_S = 30


@dataclass(frozen=True, slots=True)
class Trade:
    """A message with a trade id, one of hundreds of thousands in a busy hour. `time_ms` is the record's own time."""

    source: str
    symbol: str
    trade_id: int
    time_ms: int


@dataclass(frozen=True)
class Reading:
    """What was read.

    `oldest_ms` is the time of the oldest message of all (None in an empty topic), `trades` are in their order, and
    `events` is how many of the messages read were what the caller counts.
    """

    oldest_ms: int | None
    trades: Sequence[Trade]
    events: int


def fields(value: bytes | None) -> dict[str, Any] | None:
    """Return what a message says, or None where it is no JSON object."""
    try:
        found = json.loads(value or b"")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def trade_of(found: Mapping[str, Any], time_ms: int) -> Trade | None:
    """Return the trade in a message, or None where it has no trade id.

    Also of a symbol that the engines reject: what the source has left out shows here, whatever becomes of the message.
    """
    source, symbol, trade_id = (found.get(name) for name in ("user", "symbol", "trade_id"))
    if not isinstance(source, str) or not isinstance(symbol, str) or type(trade_id) is not int:
        return None
    # One string for all trades of a symbol.
    return Trade(sys.intern(source), sys.intern(symbol), trade_id, time_ms)


def missing_trades(trades: Iterable[Trade], from_ms: int, until_ms: int) -> dict[str, list[tuple[int, int]]]:
    """Return the holes in each source's trade ids: "source symbol" => (first, last) of every hole.

    A hole lies between the first id that came at or after `from_ms` and the largest that came before `until_ms`. What
    came before or after that fills holes, but makes none: ids come late when the producer has fetched them again.
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    seen: dict[str, set[int]] = {}
    for trade in trades:
        key = f"{trade.source} {trade.symbol}"
        seen.setdefault(key, set()).add(trade.trade_id)
        if from_ms <= trade.time_ms < until_ms:
            first.setdefault(key, trade.trade_id)
            last[key] = max(last.get(key, trade.trade_id), trade.trade_id)
    found = {}
    for key, start in first.items():
        inside = sorted(number for number in seen[key] if start <= number <= last[key])
        holes = [(a + 1, b - 1) for a, b in itertools.pairwise(inside) if b - a > 1]
        if holes:
            found[key] = holes
    return found


def read(
    bootstrap_servers: Sequence[str], topic: str, from_ms: int, counts: Callable[[Mapping[str, Any]], bool]
) -> Reading:
    """Read what the topic holds from a time to its end; ValueError where Kafka stops giving. Commits nothing.

    `counts` tells which messages `Reading.events` is the number of.
    """
    consumer = KafkaConsumer(bootstrap_servers=list(bootstrap_servers), enable_auto_commit=False, group_id=None)
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        if not partitions:
            raise ValueError(f"there is no topic {topic}")
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        oldest = [
            found.timestamp for found in consumer.offsets_for_times(dict.fromkeys(partitions, 0)).values() if found
        ]
        for partition, first in consumer.offsets_for_times(dict.fromkeys(partitions, from_ms)).items():
            consumer.seek(partition, first.offset if first else ends[partition])
        trades: list[Trade] = []
        events = 0
        waiting = {partition for partition in partitions if consumer.position(partition) < ends[partition]}
        read_s = time.monotonic()
        while waiting:
            batches = consumer.poll(timeout_ms=2_000, max_records=5_000)
            if batches:
                read_s = time.monotonic()
            elif time.monotonic() - read_s > STALLED_S:
                raise ValueError(f"Kafka gave nothing for {STALLED_S} s, with messages left in {topic}")
            for record in itertools.chain.from_iterable(batches.values()):
                found = fields(record.value)
                if found is None:
                    continue
                events += counts(found)
                if trade := trade_of(found, record.timestamp):
                    trades.append(trade)
            waiting = {partition for partition in waiting if consumer.position(partition) < ends[partition]}
        return Reading(min(oldest, default=None), trades, events)
    finally:
        consumer.close()
