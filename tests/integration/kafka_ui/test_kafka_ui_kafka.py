"""The reader and the guard against a real broker, and the pages in a real browser."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import NoBrowserError, chromium, find_chromium
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from crypto_kafka_ui.collector import RETRY_S
from crypto_kafka_ui.config import Config
from crypto_kafka_ui.guard import ReadOnlyError
from crypto_kafka_ui.reader import Kafka
from crypto_kafka_ui.readings import SourceError
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import TopicPartition as At
from kafka.admin import ConfigResource, NewTopic
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata
from kafka_pages import FIRST_MS, GROUP, JOINED, MESSAGES, TOPIC, joined, pages
from services import KafkaServer, running_kafka


def configured(kafka: KafkaServer, **limits: int) -> Config:
    return Config.model_validate({"kafka": {"bootstrap_servers": [kafka.bootstrap_servers]}, "limits": limits})


@pytest.fixture
def reader(filled: KafkaServer) -> Iterator[Kafka]:
    found = Kafka(configured(filled))
    yield found
    found.close()


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return dict(json.loads(answer.read()))


def test_topics_and_partitions(reader: Kafka) -> None:
    cluster = reader.cluster()
    topic = cluster.topic(TOPIC)
    assert topic is not None
    assert [(part.start, part.end, part.state) for part in topic.partitions] == [(0, 50, "ok"), (0, 50, "ok"),
                                                                                (0, 0, "ok")]  # fmt: skip
    assert topic.messages == MESSAGES
    assert reader.settings(TOPIC) == {"retention.ms": "604800000"}
    assert [found.controller for found in cluster.brokers] == [True]
    internal = cluster.topic("__consumer_offsets")
    assert internal is not None
    assert internal.internal


def test_groups_and_their_lag(filled: KafkaServer, reader: Kafka) -> None:
    with joined(filled):
        cluster = reader.cluster()
    alone, member = cluster.group(GROUP), cluster.group(JOINED)
    assert alone is not None
    assert (alone.state, alone.lag, alone.members) == ("Empty", 10, ())
    assert [(part.number, part.committed, part.lag) for part in alone.partitions] == [(0, 40, 10), (1, 50, 0)]
    assert member is not None
    assert (member.state, member.lag) == ("Stable", None)
    assert [found.client for found in member.members] == ["reader-1"]
    assert member.members[0].partitions == ((TOPIC, 0), (TOPIC, 1), (TOPIC, 2))
    assert {part.note for part in member.partitions} == {"nothing committed"}
    assert {group.name for group in cluster.groups_of(TOPIC)} == {GROUP, JOINED}


def test_messages_are_those_asked_for(reader: Kafka) -> None:
    reading = reader.messages(TOPIC, {0: (45, 50), 1: (0, 3), 2: (0, 0)})
    assert [(found.partition, found.offset) for found in reading.messages] == [
        *((0, offset) for offset in range(45, 50)), *((1, offset) for offset in range(3)),
    ]  # fmt: skip
    first = reading.messages[0]
    assert (first.key.text, first.value.form, first.time_kind) == ("BTC-USD", "json", "producer")
    assert json.loads(first.value.text)["trade_id"] == 90
    assert first.time_ms == FIRST_MS + 90_000
    assert reading.note == ""


def test_offsets_of_a_time(reader: Kafka) -> None:
    assert reader.offsets_at(TOPIC, [0, 1, 2], FIRST_MS + 20_500) == {0: 11, 1: 10, 2: None}


def test_messages_of_all_kinds(reader: Kafka) -> None:
    raw, deleted, hostile = reader.messages("kinds", {0: (0, 3)}).messages
    assert (raw.value.text, raw.value.form, raw.key.text) == ("00 ff", "bytes", "fe")
    assert [(name, value.text) for name, value in raw.headers] == [("source", "molecule")]
    assert (deleted.value.form, deleted.key.text) == ("null", "deleted")
    assert (hostile.value.form, hostile.key.form) == ("text", "null")


def test_large_messages_are_read_in_part(filled: KafkaServer) -> None:
    source = Kafka(configured(filled, read_bytes=3_000_000))
    try:
        reading = source.messages("large", {0: (0, 24)})
        assert 3 <= len(reading.messages) <= 6
        assert "hold more than 3000000 bytes" in reading.note
        assert (len(reading.messages[0].value.text), reading.messages[0].value.size) == (400, 1_000_000)
        # What was fetched and not wanted does not come with the next question.
        assert [found.value.form for found in source.messages("kinds", {0: (2, 3)}).messages] == ["text"]
        assert len(source.messages("large", {0: (23, 24)}, whole=True).messages[0].value.text) == 65536
    finally:
        source.close()


def test_compression_that_cannot_be_read_is_said(reader: Kafka) -> None:
    with pytest.raises(SourceError, match="compressed in a way that this page cannot read"):
        reader.messages("packed", {0: (0, 5)})
    assert reader.messages(TOPIC, {0: (0, 1)}).messages[0].offset == 0


CHANGES: dict[str, Callable[[KafkaAdminClient], Any]] = {
    "create a topic": lambda admin: admin.create_topics([NewTopic("made", 1, 1)]),
    "delete a topic": lambda admin: admin.delete_topics([TOPIC]),
    "add partitions": lambda admin: admin.create_partitions({TOPIC: 9}),
    "delete records": lambda admin: admin.delete_records({At(TOPIC, 0): 10}),
    "change a setting": lambda admin: admin.alter_configs([ConfigResource("topic", TOPIC, {"retention.ms": "1"})]),
    "delete a group": lambda admin: admin.delete_groups([GROUP]),
    "move a group": lambda admin: admin.alter_group_offsets(GROUP, {At(TOPIC, 0): OffsetAndMetadata(0, "", -1)}),
}  # fmt: skip


def state(kafka: KafkaServer) -> tuple[Any, ...]:
    """Return what must not change, as another client library sees it."""
    settings = {"bootstrap.servers": kafka.bootstrap_servers}
    topics = AdminClient(settings).list_topics(timeout=10).topics
    consumer = Consumer({**settings, "group.id": GROUP})
    try:
        places = [TopicPartition(TOPIC, number) for number in range(3)]
        ends = [consumer.get_watermark_offsets(place) for place in places]
        committed = [found.offset for found in consumer.committed(places, timeout=10)]
    finally:
        consumer.close()
    return sorted(topics), len(topics[TOPIC].partitions), ends, committed


@pytest.mark.parametrize("change", CHANGES)
def test_no_change_leaves_this_process(filled: KafkaServer, change: str) -> None:
    """Every one of these works where the guard is not: the broker knows no users and no rights."""
    before = state(filled)
    with KafkaAdminClient(bootstrap_servers=filled.bootstrap_servers, request_timeout_ms=5000) as admin:
        with pytest.raises(ReadOnlyError, match="was not sent"):
            CHANGES[change](admin)
        assert TOPIC in {topic["name"] for topic in admin.describe_topics()}
    assert state(filled) == before


@pytest.mark.parametrize("idempotent", [True, False])
def test_no_message_leaves_this_process(filled: KafkaServer, idempotent: bool) -> None:
    before = state(filled)
    producer = KafkaProducer(
        bootstrap_servers=filled.bootstrap_servers, enable_idempotence=idempotent, delivery_timeout_ms=3000,
        request_timeout_ms=1000, max_block_ms=5000,
    )  # fmt: skip
    try:
        with pytest.raises(KafkaError, match="was not sent"):
            producer.send(TOPIC, b"one more").get(10)
    finally:
        producer.close(timeout=1)
    assert state(filled) == before


def test_no_offset_leaves_this_process(filled: KafkaServer) -> None:
    before = state(filled)
    consumer = KafkaConsumer(bootstrap_servers=filled.bootstrap_servers, group_id=GROUP, enable_auto_commit=False)
    consumer.assign([At(TOPIC, 0)])
    with pytest.raises(ReadOnlyError):
        consumer.commit({At(TOPIC, 0): OffsetAndMetadata(1, "", -1)}, timeout_ms=5000)
    consumer.close()
    assert state(filled) == before


@pytest.mark.parametrize("import_first", ["", "import crypto_kafka_ui.guard; "], ids=["without", "with"])
def test_guard_is_what_keeps_it(filled: KafkaServer, import_first: str) -> None:
    """The broker itself refuses nothing: the same lines, with the guard and without."""
    name = f"made-{bool(import_first)}".lower()
    script = f"""{import_first}import sys
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
with KafkaAdminClient(bootstrap_servers=sys.argv[1]) as admin:
    admin.create_topics([NewTopic("{name}", 1, 1)])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, filled.bootstrap_servers], capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == (not import_first), done.stderr
    assert ("ReadOnlyError" in done.stderr) == bool(import_first)
    assert (name in state(filled)[0]) == (not import_first)


def test_pages_over_the_network(server: tuple[str, subprocess.Popen[bytes]]) -> None:
    url, _ = server
    cluster = get(f"{url}/api/cluster")["cluster"]
    assert {topic["name"] for topic in cluster["topics"]} >= {TOPIC, "kinds"}
    found = get(f"{url}/api/topics/{TOPIC}?count=4")
    # The newest of all partitions, by their times.
    assert [json.loads(message["value"]["text"])["trade_id"] for message in found["messages"]] == [99, 98, 97, 96]
    assert get(f"{url}/api/groups/{GROUP}")["group"]["lag"] == 10
    found = get(f"{url}/api/topics/{TOPIC}?at=time&time=2026-11-26T01:03:40&count=1&partition=1")
    assert [message["offset"] for message in found["messages"]] == [10]


def test_page_in_a_browser(server: tuple[str, subprocess.Popen[bytes]]) -> None:
    try:
        find_chromium()
    except NoBrowserError as error:
        pytest.skip(str(error))
    url, _ = server
    shown = chromium(f"{url}/topics/kinds", 1280, 900, "--dump-dom")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "<script" not in shown
    assert "00 ff" in shown
    shown = chromium(f"{url}/", 1280, 900, "--dump-dom")
    assert f'data-topic="{TOPIC}"' in shown
    assert f'data-group="{GROUP}"' in shown


def test_memory_stays_small(server: tuple[str, subprocess.Popen[bytes]]) -> None:
    url, process = server
    for _ in range(3):
        assert "hold more than" in get(f"{url}/api/topics/large?count=24&at=oldest")["note"]
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert int(status.partition("VmHWM:")[2].split()[0]) < 110 * 1024


def test_broker_that_goes_and_comes_back(tmp_path: Path) -> None:
    with running_kafka(tmp_path / "kafka") as kafka, pages(kafka, tmp_path) as (url, _):
        assert get(f"{url}/api/cluster")["cluster"]["topics"] == []
        kafka.stop()
        # Until what was known is too old to be said again.
        time.sleep(2.5)
        with pytest.raises(urllib.error.HTTPError) as away:
            get(f"{url}/api/cluster")
        assert away.value.code == 503
        assert "Kafka does not answer" in json.loads(away.value.read())["error"]
        kafka.start()
        # For so long it is left alone.
        time.sleep(RETRY_S + 0.5)
        assert get(f"{url}/api/cluster")["cluster"]["brokers"]


def test_cluster_that_is_away_leaves_no_threads() -> None:
    source = Kafka(Config.model_validate({"kafka": {"bootstrap_servers": ["127.0.0.1:9"], "timeout_s": 0.3}}))
    before = threading.active_count()
    for _ in range(4):
        with pytest.raises(SourceError, match="bootstrap"):
            source.cluster()
    assert threading.active_count() == before
