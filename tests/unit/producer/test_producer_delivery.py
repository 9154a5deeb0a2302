"""The pure parts of delivery: what is settled, and where reconciliation begins."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from crypto_producer.config import KafkaConfig
from crypto_producer.delivery import Acknowledgement, AckWindow, Delivery, TopicState, event_id_of, reconcile_from
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
