"""The generator against librdkafka's own mock brokers: what it sends, when, and what it says about it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from compare import generator
from compare.event import Event, classify
from compare.generator import Outcome, Sender, Settings, Values, index_of, producer_settings, send
from compare.identity import decode
from compare.load import GeneratorSpec, Steady
from confluent_kafka import Consumer, Producer, TopicPartition
from kafka.partitioner.default import murmur2

SYMBOLS = ["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"]
TAG = 4242


def spec_of(rate: float, seconds: float, **more: Any) -> GeneratorSpec:  # noqa: ANN401
    return GeneratorSpec(tag=TAG, load=Steady(rate_per_s=rate, duration_s=seconds), lead_s=0.2, **more)


def sender_to(servers: str, spec: GeneratorSpec) -> Sender:
    settings = Settings(bootstrap_servers=[servers], topic="prices", symbols=SYMBOLS)
    return Sender(producer_settings(settings, spec) | {"log_level": 2}, "prices")


@pytest.fixture
def kafka() -> Any:  # noqa: ANN401
    """A broker in this process; the address is the mock's own."""
    owner = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 1, "log_level": 2})
    brokers = owner.list_topics(timeout=10).brokers
    owner.list_topics("prices", timeout=10)
    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers.values())
    del owner


def consume(servers: str, count: int) -> list[Any]:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "test", "log_level": 2})
    partitions = consumer.list_topics("prices", timeout=10).topics["prices"].partitions
    consumer.assign([TopicPartition("prices", number, 0) for number in partitions])
    found: list[Any] = []
    for _ in range(200):
        found += consumer.consume(1000, timeout=0.1)
        if len(found) >= count:
            break
    consumer.close()
    return found


def test_values_are_events_of_the_contract() -> None:
    spec = spec_of(1000, 1, first_index=10, malformed_every=5, event_time_speed=20)
    start_us = 1_790_000_000_123_456
    made = Values(spec, SYMBOLS, start_us).batch(0, [index * 1000 for index in range(1000)])
    for number, message in enumerate(made):
        document = json.loads(message["value"])
        assert decode(document["event_id"]) == (TAG, 10 + number)
        assert index_of(message["value"]) == 10 + number
        assert document["produced_at"] == start_us + number * 1000
        assert document["timestamp"] == start_us // 1000 + number * 20
        assert document["user"] == "synthetic"
        assert message["key"].decode() == document["symbol"]
        found = classify(message["value"], SYMBOLS, 65536)
        if (10 + number) % 5 == 4:
            assert found == "wrong_type:price"
        else:
            assert isinstance(found, Event)


def test_what_the_method_says_of_events_is_so() -> None:
    """docs/comparison-method.md: their size, and that five symbols lie on two of three partitions."""
    made = Values(spec_of(1000, 1), SYMBOLS, 1_790_000_000_000_000).batch(0, list(range(0, 1_000_000, 1000)))
    sizes = [len(message["value"]) for message in made]
    assert 150 <= min(sizes) <= max(sizes) <= 170
    places = [(murmur2(symbol.encode()) & 0x7FFFFFFF) % 3 for symbol in SYMBOLS]
    assert sorted(places.count(number) for number in range(3)) == [0, 2, 3]


def test_delay_counts_from_the_intended_time() -> None:
    outcome = Outcome()
    outcome.late([0, 1000, 1990], 2000)
    assert outcome.delays == {200: 1, 100: 1, 1: 1}


def test_every_event_arrives_once_and_is_accounted_for(kafka: str) -> None:
    spec = spec_of(2000, 0.5, first_index=100)
    lines: list[dict[str, Any]] = []
    account = send(spec, sender_to(kafka, spec), SYMBOLS, lines.append)
    assert (account["sent"], account["acknowledged"], account["failed"]) == (1000, 1000, [])
    assert sum(count for _, count in account["delays"]) == 1000
    assert lines[0] == {"started": True, "start_us": account["start_us"], "count": 1000}
    messages = consume(kafka, 1000)
    assert sorted(index_of(message.value()) for message in messages) == list(range(100, 1100))
    # A symbol lives in one partition.
    places = {(message.key(), message.partition()) for message in messages}
    assert len(places) == len(SYMBOLS)


def test_delay_of_the_warm_up_is_counted_apart(kafka: str) -> None:
    spec = spec_of(1000, 0.5, warmup_s=0.2)
    account = send(spec, sender_to(kafka, spec), SYMBOLS, lambda _line: None)
    assert sum(count for _, count in account["warmup_delays"]) == 200
    assert sum(count for _, count in account["delays"]) == 300


def test_a_flood_is_accounted_for_too() -> None:
    spec = spec_of(1_000_000, 0.3, linger_ms=20)
    settings = Settings(bootstrap_servers=["unused"], topic="prices", symbols=SYMBOLS)
    sender = Sender(producer_settings(settings, spec) | {"test.mock.num.brokers": 1, "log_level": 2}, "prices")
    account = send(spec, sender, SYMBOLS, lambda _line: None)
    assert (account["acknowledged"], account["failed"]) == (300_000, [])


def test_a_stalled_generator_says_how_late_it_was(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(1000, 0.5)
    sender = sender_to(kafka, spec)
    hand_over, calls = sender.hand_over, []

    def stalling(messages: list[dict[str, Any]]) -> None:
        calls.append(len(messages))
        if sum(calls) > 250 and max(calls) != 999_999:
            calls.append(999_999)
            generator.time.sleep(0.3)
        hand_over(messages)

    monkeypatch.setattr(sender, "hand_over", stalling)
    account = send(spec, sender, SYMBOLS, lambda _line: None)
    late = sum(count for step, count in account["delays"] if step * account["delay_step_us"] > 50_000)
    # Everything that fell due during the stall of 300 ms is late, not only the event that met it.
    assert late >= 200
    assert account["acknowledged"] == 500


def test_what_kafka_does_not_take_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "FLUSH_TIMEOUT_S", 1)
    spec = spec_of(100, 0.1)
    # Nobody listens there.
    account = send(spec, sender_to("127.0.0.1:9", spec), SYMBOLS, lambda _line: None)
    assert account["acknowledged"] == 0
    assert account["unanswered"] + sum(end - first for first, end in account["failed"]) == 10


def test_a_wrong_spec_is_said_before_anything_is_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "generator.toml"
    config.write_text('bootstrap_servers = ["127.0.0.1:9"]\ntopic = "prices"\nsymbols = ["BTC-USD"]\n')
    assert generator.main(["--config", str(config)], io.StringIO('{"tag": 1}')) == 2
    assert "load" in capsys.readouterr().err
