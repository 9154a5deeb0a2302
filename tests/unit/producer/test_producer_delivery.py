"""Delivery without a broker: what is settled, where reconciliation begins, what is told when Kafka is silent."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
from crypto_producer import delivery as delivery_module
from crypto_producer.config import KafkaConfig
from crypto_producer.delivery import Acknowledgement, AckWindow, Delivery, TopicState, event_id_of, reconcile_from
from crypto_producer.event import Event
from crypto_producer.metrics import Metrics
from crypto_producer.spool import KafkaPosition, Spool
from crypto_producer.systemd import Progress
from hypothesis import given
from hypothesis import strategies as st


def test_only_the_prefix_settles() -> None:
    window = AckWindow(10)
    for seq in (11, 12, 13):
        window.sent(seq)
    window.acknowledged(12, Acknowledgement(1, 100))
    assert window.settle() is None
    assert window.is_acknowledged(12)
    assert not window.is_acknowledged(11)
    window.acknowledged(11, Acknowledgement(0, 5))
    assert window.settle() == {0: 6, 1: 101}
    assert window.settled_seq == 12
    assert len(window) == 1


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(0, 2**32))
def test_in_whatever_order_answers_come_the_offsets_never_pass_an_unsettled_event(
    partitions: list[int], seed: int
) -> None:
    window = AckWindow()
    offsets = [0, 0, 0]
    answers = []
    for seq, partition in enumerate(partitions, start=1):
        window.sent(seq)
        answers.append((seq, Acknowledgement(partition, offsets[partition])))
        offsets[partition] += 1
    where = dict(answers)
    random.Random(seed).shuffle(answers)
    durable = {0: 0, 1: 0, 2: 0}
    for seq, ack in answers:
        window.acknowledged(seq, ack)
        durable.update(window.settle() or {})
        for other, place in where.items():
            # After a crash now, whatever is not settled must lie in the part of the topic that is read again.
            assert (other <= window.settled_seq) == (place.offset < durable[place.partition])
    assert window.settled_seq == len(partitions)


def test_a_window_stalls_when_its_oldest_event_gets_no_answer() -> None:
    now_s = 100.0
    window = AckWindow(10, lambda: now_s)
    assert window.stalled_s == 0
    window.sent(11)
    window.sent(12)
    now_s = 104.0
    window.acknowledged(12, Acknowledgement(0, 1))
    window.settle()
    assert window.stalled_s == 4, "others' answers do not help the oldest"
    window.acknowledged(11, Acknowledgement(1, 1))
    assert window.stalled_s == 0
    window.sent(13)
    window.settle()
    now_s = 105.0
    assert window.stalled_s == 1, "13 is the oldest since 11 was settled"


def state(topic_id: str, begin: int, end: int) -> TopicState:
    return TopicState(topic_id, (0,), {0: begin}, {0: end})


@pytest.mark.parametrize(
    ("position", "topic", "start"),
    [
        (KafkaPosition("t", "a", {0: 50}), state("a", 0, 80), 50),
        (KafkaPosition("t", "a", {0: 50}), state("a", 60, 80), 60),
        (KafkaPosition("t", "a", {0: 50}), state("b", 0, 80), 0),
        (KafkaPosition("t", "a", {0: 50}), state("a", 0, 20), 0),
        (KafkaPosition("t", "a", {}), state("a", 3, 20), 3),
    ],
    ids=["as left", "retention has cut", "recreated", "shorter than acknowledged", "new partition"],
)
def test_where_reconciliation_begins(position: KafkaPosition, topic: TopicState, start: int) -> None:
    assert reconcile_from(position, topic) == {0: start}


@given(st.binary(max_size=60) | st.none())
def test_foreign_records_are_no_events(value: bytes | None) -> None:
    assert event_id_of(value) is None


def test_an_events_id_is_found() -> None:
    text = "5f0c8a0e-3c3f-5f0e-9d7b-6d1f0b6f3a11"
    assert str(event_id_of(json.dumps({"event_id": text}).encode())) == text
    assert event_id_of(b'{"event_id": 5}') is None
    assert event_id_of(b"[]") is None


def test_a_long_absence_of_kafka_costs_no_threads_and_no_sockets(tmp_path: Path) -> None:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    metrics = Metrics()
    with Spool(tmp_path, max_events=100, max_bytes=100_000) as spool:
        delivery = Delivery(KafkaConfig(bootstrap_servers=[f"127.0.0.1:{port}"]), spool, metrics, Progress())
        delivery.start()
        threads = threading.active_count()
        attempts = 0.0
        deadline_s = time.monotonic() + 60
        while attempts < 4:
            assert time.monotonic() < deadline_s, f"waited 60 s for 4 attempts, saw {attempts}"
            attempts = metrics.send_errors._value.get()
            time.sleep(0.02)
        assert "no broker can be reached" in delivery.state
        assert threading.active_count() == threads
        assert delivery.drain(0.1) == 0
        delivery.close()
        assert "delivery" not in {thread.name for thread in threading.enumerate()}


class FakeFuture:
    def __init__(self) -> None:
        self.succeed: Callable[[], None] = lambda: None
        self.fail: Callable[[], None] = lambda: None

    def add_callback(self, call: Callable[..., None], *arguments: object) -> None:
        self.succeed = lambda: call(*arguments, SimpleNamespace(partition=0, offset=arguments[-1]))

    def add_errback(self, call: Callable[..., None], *arguments: object) -> None:
        self.fail = lambda: call(*arguments, OSError("gone"))


class FakeKafka:
    """In the place of KafkaProducer; answers when told to."""

    def __init__(self) -> None:
        self.futures: list[FakeFuture] = []

    def __call__(self, **_: object) -> FakeKafka:
        return self

    def send(self, _topic: str, **_: object) -> FakeFuture:
        self.futures.append(FakeFuture())
        return self.futures[-1]

    def flush(self, timeout: float) -> None:
        pass

    def close(self, timeout: float) -> None:
        pass


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    fake = FakeKafka()
    monkeypatch.setattr(delivery_module, "KafkaProducer", fake)
    monkeypatch.setattr(Delivery, "_reconcile", lambda _: {})
    return fake


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path, max_events=100, max_bytes=100_000, durability="process") as spool:
        yield spool


def make_delivery(spool: Spool, metrics: Metrics) -> Delivery:
    return Delivery(KafkaConfig(bootstrap_servers=["127.0.0.1:9"]), spool, metrics, Progress())


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s, f"waited 20 s for {what}"
        time.sleep(0.01)


def test_a_symbol_that_appears_during_an_acknowledgement_does_no_harm(
    kafka: FakeKafka, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledge = spool.acknowledge

    def meanwhile(through_seq: int, next_offsets: dict[int, int]) -> dict[str, int]:
        spool.append([Event(UUID(int=2), "ETH-USD", b"y")])
        return acknowledge(through_seq, next_offsets)

    monkeypatch.setattr(spool, "acknowledge", meanwhile)
    metrics = Metrics()
    delivery = make_delivery(spool, metrics)
    spool.append([Event(UUID(int=1), "BTC-USD", b"x")])
    delivery.start()
    try:
        wait_for(lambda: bool(kafka.futures), "the event to be sent")
        kafka.futures[0].succeed()
        wait_for(lambda: spool.ledger().total.acknowledged == 1 or delivery.failure is not None, "the acknowledgement")
        wait_for(lambda: len(kafka.futures) == 2 or delivery.failure is not None, "the other symbol's event")
        assert delivery.failure is None
        assert metrics.acknowledged.labels("BTC-USD")._value.get() == 1
        assert metrics.acknowledged.labels("ETH-USD")._value.get() == 0
    finally:
        kafka.futures[-1].fail()
        delivery.close()


def test_kafka_that_does_not_answer_is_not_called_connected(
    kafka: FakeKafka, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "_SILENT_AFTER_S", 0.2, raising=False)
    metrics = Metrics()
    connected = metrics.kafka_connected._value.get
    delivery = make_delivery(spool, metrics)
    delivery.start()
    try:
        wait_for(lambda: connected() == 1, "the session")
        time.sleep(0.4)
        assert connected() == 1, "nothing was sent: nothing is known against it"
        spool.append([Event(UUID(int=1), "BTC-USD", b"x")])
        delivery.wake()
        wait_for(lambda: connected() == 0, "the silence to show")
        assert delivery.state.startswith("silent for")
        kafka.futures[0].succeed()
        wait_for(lambda: connected() == 1, "the answer to show")
        assert delivery.state == "connected"
    finally:
        delivery.close()


def test_kafka_that_takes_one_event_per_session_is_left_alone_for_longer_and_longer(
    kafka: FakeKafka, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient(threading.Event):
        def __init__(self) -> None:
            super().__init__()
            self.delays_s: list[float] = []

        def wait(self, timeout: float | None = None) -> bool:
            self.delays_s.append(timeout or 0.0)
            if len(self.delays_s) == 4:
                self.set()
            return self.is_set()

    send = kafka.send

    def answer_at_once(topic: str, **record: object) -> FakeFuture:
        future = send(topic, **record)
        add_errback = future.add_errback

        def added(call: Callable[..., None], *arguments: object) -> None:
            add_errback(call, *arguments)
            (future.succeed if len(kafka.futures) % 2 else future.fail)()

        monkeypatch.setattr(future, "add_errback", added)
        return future

    monkeypatch.setattr(kafka, "send", answer_at_once)
    monkeypatch.setattr(delivery_module, "_BATCH_EVENTS", 1)
    monkeypatch.setattr(random.Random, "uniform", lambda _self, _low, high: high)
    delivery = make_delivery(spool, Metrics())
    stop = Impatient()
    monkeypatch.setattr(delivery, "_stop", stop)
    spool.append([Event(UUID(int=number), "BTC-USD", b"x") for number in range(1, 20)])
    delivery.start()
    delivery._thread.join(20)
    assert delivery.failure is None
    assert stop.delays_s == [0.2, 0.4, 0.8, 1.6]
    assert spool.ledger().total.acknowledged == 4
