"""`lab-topic`: read the benchmark's topic from its beginning to its end, and say which events it holds.

Prints one JSON object: messages, foreign (of no event of the run), missing and duplicated as ranges of event numbers.
Exit code 0 when the topic was read, 2 when not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from compare.generator import Settings
from compare.identity import ranges, tag_text

STALLED_S = 60
# Where the id stands in a generated value, and its parts within it.
PREFIX = b'{"event_id":"'
TAG = slice(len(PREFIX) + 14, len(PREFIX) + 23)
INDEX = slice(len(PREFIX) + 24, len(PREFIX) + 36)


class Counts:
    """How often each event of a run is in the topic."""

    def __init__(self, tag: int, events: int) -> None:
        self.messages = self.foreign = 0
        self._tag = tag_text(tag).encode()
        # Up to 255 times: more is not told apart.
        self._times = bytearray(events)

    def add(self, values: Iterable[bytes | None]) -> None:
        """Take in messages' values."""
        times, tag, events = self._times, self._tag, len(self._times)
        for value in values:
            self.messages += 1
            if value is None or value[TAG] != tag or not value.startswith(PREFIX):
                self.foreign += 1
                continue
            try:
                index = int(value[INDEX], 16)
            except ValueError:
                index = events
            if index >= events:
                self.foreign += 1
            elif times[index] < 255:
                times[index] += 1

    def to_json(self) -> dict[str, Any]:
        """Return the counts, events as ranges."""
        return {
            "messages": self.messages, "foreign": self.foreign,
            "missing": ranges([index for index, count in enumerate(self._times) if count == 0]),
            "duplicated": ranges([index for index, count in enumerate(self._times) if count > 1]),
        }  # fmt: skip


def consumer_of(settings: Settings) -> Consumer:
    """Return a consumer that belongs to nobody and commits nothing."""
    return Consumer({
        "bootstrap.servers": ",".join(settings.bootstrap_servers), "group.id": "lab-topic", "client.id": "lab-topic",
        "enable.auto.commit": False, "enable.partition.eof": False, "queued.max.messages.kbytes": 32_768,
    })  # fmt: skip


def read(settings: Settings, counts: Counts) -> None:
    """Read the topic up to the offsets at which it ends now. Raises KafkaException, TimeoutError."""
    consumer = consumer_of(settings)
    try:
        left = _ends(consumer, settings.topic)
        read_s = time.monotonic()
        while left:
            messages = consumer.consume(10_000, timeout=1.0)
            if messages:
                read_s = time.monotonic()
            elif time.monotonic() - read_s > STALLED_S:
                raise TimeoutError(f"Kafka gave nothing for {STALLED_S} s, with messages left in {sorted(left)}")
            counts.add(_value(message) for message in messages)
            for message in messages:
                if message.offset() + 1 >= left.get(message.partition(), 0):
                    left.pop(message.partition(), None)
    finally:
        consumer.close()


def _ends(consumer: Any, topic: str) -> dict[int, int]:  # noqa: ANN401
    """Begin to read at each partition's first offset; returns where those that hold something end."""
    left: dict[int, int] = {}
    starts = []
    for number in partitions(consumer, topic):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)
        if high > low:
            left[number] = high
            starts.append(TopicPartition(topic, number, low))
    if starts:
        consumer.assign(starts)
    return left


def _value(message: Any) -> bytes | None:  # noqa: ANN401
    if message.error() is not None:
        raise KafkaException(message.error())
    value: bytes | None = message.value()
    return value


def partitions(consumer: Any, topic: str) -> list[int]:  # noqa: ANN401
    """Return the topic's partitions. Raises KafkaException where there is no such topic."""
    found = consumer.list_topics(topic, timeout=30).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    return sorted(found.partitions)


def main(arguments: list[str] | None = None) -> int:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("/etc/compare/generator.toml"))
    parser.add_argument("--tag", type=int, default=0, help="the run's tag")
    parser.add_argument("--events", type=int, default=0, help="how many events the run has")
    parser.add_argument("--partitions", action="store_true", help="only print the numbers of the partitions")
    options = parser.parse_args(arguments)
    try:
        settings = Settings.model_validate(tomllib.loads(options.config.read_text()))
        if options.partitions:
            consumer = consumer_of(settings)
            print(json.dumps(partitions(consumer, settings.topic)))
            consumer.close()
            return 0
        counts = Counts(options.tag, options.events)
        read(settings, counts)
    except (OSError, ValueError, KafkaException) as error:
        print(f"lab-topic: {error}", file=sys.stderr)
        return 2
    print(json.dumps(counts.to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
