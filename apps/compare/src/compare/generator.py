"""`lab-generator`: send a declared load to Kafka, each event at its intended time, whatever comes back.

The spec (JSON, compare.load.GeneratorSpec) is read from standard input. One JSON object per line is written: progress
once a second, at last the account of what was sent: how many events, which of them Kafka did not acknowledge, and how
late each was handed over (counts by delay).

Exit code 0 when all events were acknowledged, 1 when not, 2 when the load could not be started.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from confluent_kafka import KafkaException, Producer
from pydantic import BaseModel, ConfigDict, ValidationError

from compare.identity import ranges, tag_text
from compare.load import GeneratorSpec, Schedule, event_time_ms, is_malformed, price_parts

# Events handed over at once, at most: what is due is never held back for more.
BATCH_EVENTS = 500
# Shortest sleep. At high rates events that fall due meanwhile go together; a core is not burnt on waking up.
TICK_US = 200
QUEUE_EVENTS = 100_000
# Delays are counted in steps of this many microseconds.
DELAY_STEP_US = 10
FLUSH_TIMEOUT_S = 60


class Settings(BaseModel):
    """The configuration file."""

    model_config = ConfigDict(extra="forbid")

    bootstrap_servers: list[str]
    topic: str
    symbols: list[str]


def templates(tag: int, symbols: list[str]) -> list[tuple[bytes, bytes]]:
    """Return for each symbol the form of a good and of a malformed value, to be filled in by `%`.

    Arguments of the forms: two parts of the id's time, index, price in cents (two parts), event time in epoch ms,
    intended time in epoch us.
    """
    made = []
    for symbol in symbols:
        head = f'{{"event_id":"%08x-%04x-{tag_text(tag)}-%012x","symbol":{json.dumps(symbol)},"price":'
        tail = ',"user":"synthetic","timestamp":%d,"produced_at":%d}'
        made.append(((head + "%d.%02d" + tail).encode(), (head + '"%d.%02d"' + tail).encode()))
    return made


class Values:
    """Makes the values of events."""

    def __init__(self, spec: GeneratorSpec, symbols: list[str], start_us: int) -> None:
        self._templates = templates(spec.tag, symbols)
        self._keys = [symbol.encode() for symbol in symbols]
        self._spec = spec
        self._start_us = start_us

    def batch(self, first: int, offsets_us: list[int]) -> list[dict[str, Any]]:
        """Return the messages of events `first`, first + 1, ... of the load, intended at `offsets_us` after the start.

        Each is a dictionary with `key` and `value`, as librdkafka's binding takes them.
        """
        spec, forms, keys, start_us = self._spec, self._templates, self._keys, self._start_us
        symbols, index = len(keys), spec.first_index + first
        messages = []
        for offset_us in offsets_us:
            intended_us = start_us + offset_us
            intended_ms = intended_us // 1000
            event_ms = event_time_ms(start_us, offset_us, spec.event_time_speed)
            chosen = index % symbols
            dollars, cents = price_parts(index)
            value = forms[chosen][is_malformed(index, spec.malformed_every)] % (
                intended_ms >> 16, intended_ms & 0xFFFF, index, dollars, cents, event_ms, intended_us,
            )  # fmt: skip
            messages.append({"key": keys[chosen], "value": value})
            index += 1
        return messages


class Outcome:
    """What was sent, by index within the load."""

    def __init__(self, warmup_s: float = 0) -> None:
        self.sent = 0
        self.failed: list[int] = []
        self.delays: dict[int, int] = {}
        self.warmup_delays: dict[int, int] = {}
        self._warmup_us = round(warmup_s * 1e6)

    def late(self, offsets_us: list[int], elapsed_us: int) -> None:
        """Count how late events were that are handed over at `elapsed_us`."""
        for offset_us in offsets_us:
            delays = self.warmup_delays if offset_us < self._warmup_us else self.delays
            step = (elapsed_us - offset_us) // DELAY_STEP_US
            delays[step] = delays.get(step, 0) + 1


def index_of(value: bytes) -> int:
    """Return the index that the id in a value carries."""
    return int(value[13 + 24 : 13 + 36], 16)


class Sender:
    """Hands messages over to librdkafka; it works on them in threads of its own."""

    def __init__(self, settings: dict[str, Any], topic: str) -> None:
        self.failed: list[int] = []
        self._topic = topic
        self._producer = Producer(settings)

    def connect(self, timeout_s: float = 30) -> None:
        """Know the topic's partitions before the first event is due. Raises KafkaException where Kafka is away."""
        metadata = self._producer.list_topics(self._topic, timeout=timeout_s)
        error = metadata.topics[self._topic].error
        if error is not None:
            raise KafkaException(error)

    def _delivered(self, error: object, message: Any) -> None:  # noqa: ANN401
        if error is not None:
            self.failed.append(index_of(message.value()))

    def hand_over(self, messages: list[dict[str, Any]]) -> None:
        """Enqueue all messages, in their order; waits while the queue is full."""
        while messages:
            while len(self._producer) > QUEUE_EVENTS - len(messages):
                self._producer.poll(0.001)
            try:
                taken = self._producer.produce_batch(self._topic, messages, on_delivery=self._delivered)
            except BufferError:
                taken = 0
            if taken == len(messages):
                return
            # What was refused says so, and goes again. The queue has a limit in bytes too.
            messages = [
                {"key": message["key"], "value": message["value"]}
                for message in messages
                if taken == 0 or "_error" in message
            ]
            self._producer.poll(0.001)

    def poll(self) -> None:
        """Let delivery reports come in."""
        self._producer.poll(0)

    def flush(self) -> int:
        """Wait for the rest; returns how many messages are still without an answer."""
        return int(self._producer.flush(FLUSH_TIMEOUT_S))


def producer_settings(settings: Settings, spec: GeneratorSpec) -> dict[str, Any]:
    """Return librdkafka's settings: no duplicate by a retry, keys on the partitions where Java's clients put them."""
    return {
        "bootstrap.servers": ",".join(settings.bootstrap_servers), "client.id": "lab-generator",
        "acks": "all", "enable.idempotence": True, "linger.ms": spec.linger_ms, "partitioner": "murmur2_random",
        "queue.buffering.max.messages": QUEUE_EVENTS, "queue.buffering.max.kbytes": 65_536,
        "batch.num.messages": 10_000, "batch.size": 1_000_000, "compression.type": "none",
        # Of what arrives nothing is to be done.
        "delivery.report.only.error": True, "message.timeout.ms": FLUSH_TIMEOUT_S * 1000,
    }  # fmt: skip


def send(
    spec: GeneratorSpec,
    sender: Sender,
    symbols: list[str],
    progress: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Send the whole load; returns the account. `progress` is called once a second."""
    schedule = Schedule(spec.load.pieces())
    outcome = Outcome(spec.warmup_s)
    start_ns = time.monotonic_ns() + round(spec.lead_s * 1e9)
    start_us = time.time_ns() // 1000 + round(spec.lead_s * 1e6)
    progress({"started": True, "start_us": start_us, "count": schedule.count})
    values = Values(spec, symbols, start_us)
    cpu_s, report_us, poll_us = time.process_time(), 0, 0
    # No pause for garbage that there is none of: every message is freed by its count.
    gc.disable()
    try:
        while outcome.sent < schedule.count:
            elapsed_us = (time.monotonic_ns() - start_ns) // 1000
            first = outcome.sent
            end = min(schedule.due(elapsed_us), first + BATCH_EVENTS)
            if end > first:
                offsets_us = schedule.offsets_us(first, end)
                sender.hand_over(values.batch(first, offsets_us))
                outcome.late(offsets_us, (time.monotonic_ns() - start_ns) // 1000)
                outcome.sent = end
            else:
                time.sleep(max(TICK_US, schedule.offset_us(first) - elapsed_us) / 1e6)
            if elapsed_us >= poll_us:
                sender.poll()
                poll_us = elapsed_us + 10_000
            if elapsed_us >= report_us:
                progress({"elapsed_us": elapsed_us, "sent": outcome.sent, "due": schedule.due(elapsed_us)})
                report_us = elapsed_us + 1_000_000
        handed_over_us = (time.monotonic_ns() - start_ns) // 1000
        unanswered = sender.flush()
    finally:
        gc.enable()
    failed = sorted(sender.failed)
    return {
        "done": True, "tag": spec.tag, "first_index": spec.first_index, "count": schedule.count,
        "start_us": start_us, "sent": outcome.sent, "handed_over_us": handed_over_us,
        "acknowledged": outcome.sent - len(failed) - unanswered, "unanswered": unanswered, "failed": ranges(failed),
        "delay_step_us": DELAY_STEP_US, "delays": sorted(outcome.delays.items()),
        "warmup_delays": sorted(outcome.warmup_delays.items()),
        "cpu_s": time.process_time() - cpu_s,
    }  # fmt: skip


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that its name never stands for half of it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def _priority() -> int:
    # Only root may; the account says how it was.
    try:
        return os.nice(-10)
    except OSError:
        return os.nice(0)


def main(arguments: list[str] | None = None, stdin: TextIO = sys.stdin) -> int:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("/etc/compare/generator.toml"))
    parser.add_argument("--out", type=Path, help="write the account to this file too")
    options = parser.parse_args(arguments)
    try:
        settings = Settings.model_validate(tomllib.loads(options.config.read_text()))
        spec = GeneratorSpec.model_validate_json(stdin.read())
        sender = Sender(producer_settings(settings, spec), settings.topic)
        sender.connect()
    except (OSError, ValueError, ValidationError, KafkaException) as error:
        print(f"lab-generator: {error}", file=sys.stderr)
        return 2
    nice = _priority()
    account = send(spec, sender, settings.symbols, lambda found: print(json.dumps(found), flush=True))
    account["nice"] = nice
    text = json.dumps(account)
    if options.out:
        write_atomically(options.out, text)
    print(text, flush=True)
    return 0 if account["acknowledged"] == account["count"] else 1


if __name__ == "__main__":
    sys.exit(main())
