"""Asks Kafka, by requests that read only (guard.py), with two clients that one thread uses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, OffsetSpec
from kafka.errors import KafkaError, UnsupportedCodecError
from kafka.net import KafkaNetClient

from crypto_kafka_ui import guard
from crypto_kafka_ui.config import Config
from crypto_kafka_ui.decode import decode
from crypto_kafka_ui.readings import (
    Broker,
    Cluster,
    Group,
    GroupPartition,
    Member,
    Message,
    Partition,
    Reading,
    SourceError,
    Text,
    Topic,
)  # fmt: skip

# What is worth knowing comes as an exception too.
logging.getLogger("kafka").setLevel(logging.CRITICAL)
log = logging.getLogger(__name__)

# In a list, a line.
LINE_BYTES = 400
TIME_KINDS = {0: "producer", 1: "broker"}
# At a time, of one partition; a message that is larger comes alone.
FETCH_BYTES = 512 * 1024
# Kafka's types of groups whose offsets are those of OffsetFetch.
WITH_OFFSETS = frozenset({"classic", "consumer", ""})

T = TypeVar("T")


class Source(Protocol):
    """What the pages need to know."""

    def cluster(self) -> Cluster:
        """Return topics, partitions, groups. Raises SourceError."""

    def settings(self, topic: str) -> dict[str, str]:
        """Return the settings that a topic has of its own. Raises SourceError."""

    def offsets_at(self, topic: str, partitions: list[int], time_ms: int) -> dict[int, int | None]:
        """Return partition => first offset at or after a time, None where there is none. Raises SourceError."""

    def messages(self, topic: str, wanted: Mapping[int, tuple[int, int]], *, whole: bool = False) -> Reading:
        """Read partition => [first, last) offsets; `whole` shows more than a line of each. Raises SourceError."""

    def close(self) -> None:
        """Let go of the connections."""


class Kafka:
    """The cluster by kafka-python. Not for two threads at a time."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._clients: list[KafkaNetClient] = []
        self._admin: KafkaAdminClient | None = None
        self._consumer: KafkaConsumer | None = None

    def cluster(self) -> Cluster:
        """Return everything but messages."""
        return self._ask(self._cluster)

    def settings(self, topic: str) -> dict[str, str]:
        """Return the settings that a topic has of its own."""

        def ask() -> dict[str, str]:
            found = self._get_admin().describe_configs([ConfigResource("topic", topic)]).get("topic", {})
            return {name: str(entry["value"]) for name, entry in sorted(found.get(topic, {}).items())}

        return self._ask(ask)

    def offsets_at(self, topic: str, partitions: list[int], time_ms: int) -> dict[int, int | None]:
        """Return where each partition was at a time."""

        def ask() -> dict[int, int | None]:
            found = self._get_admin().list_partition_offsets(
                {TopicPartition(topic, number): time_ms for number in partitions}
            )
            return {at.partition: entry.offset if entry.offset >= 0 else None for at, entry in found.items()}

        return self._ask(ask)

    def messages(self, topic: str, wanted: Mapping[int, tuple[int, int]], *, whole: bool = False) -> Reading:
        """Read messages, without a group and without a commit."""
        return self._ask(
            lambda: self._messages(topic, wanted, self._config.limits.value_bytes if whole else LINE_BYTES)
        )

    def close(self) -> None:
        """Let go of both clients, and of what is left of one that never came to be."""
        # A client whose constructor failed has left its thread running.
        old = [*filter(None, (self._admin, self._consumer)), *self._clients]
        # First of all: the next question gets new ones, whatever the old ones say to their end.
        self._admin, self._consumer, self._clients = None, None, []
        for client in old:
            try:
                client.close()
            except (KafkaError, OSError, RuntimeError) as error:
                log.warning("a client of Kafka did not close: %s: %s", type(error).__name__, error)

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except guard.ReadOnlyError:
            raise
        except UnsupportedCodecError as error:
            raise SourceError(f"its messages are compressed in a way that this page cannot read: {error}") from error
        # The client's own errors, and those of its sockets.
        except (KafkaError, OSError) as error:
            self.close()
            raise SourceError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from error

    def _settings(self) -> dict[str, Any]:
        timeout_ms = int(self._config.kafka.timeout_s * 1000)

        def client(**configs: Any) -> KafkaNetClient:  # noqa: ANN401 - kafka-python's own
            self._clients.append(KafkaNetClient(**configs))
            return self._clients[-1]

        return {
            "bootstrap_servers": self._config.kafka.bootstrap_servers, "client_id": "crypto-kafka-ui",
            "kafka_client": client, "bootstrap_timeout_ms": timeout_ms, "request_timeout_ms": timeout_ms,
            # Nobody looks for long: then there is no connection.
            "connections_max_idle_ms": 60_000,
        }  # fmt: skip

    def _get_admin(self) -> KafkaAdminClient:
        if self._admin is None:
            self._admin = KafkaAdminClient(**self._settings())
        return self._admin

    def _get_consumer(self) -> KafkaConsumer:
        if self._consumer is None:
            self._consumer = KafkaConsumer(
                **self._settings(), group_id=None, enable_auto_commit=False, auto_offset_reset="none",
                allow_auto_create_topics=False, max_partition_fetch_bytes=FETCH_BYTES, fetch_max_wait_ms=100,
                fetch_max_bytes=4 * FETCH_BYTES,
            )  # fmt: skip
        return self._consumer

    def _cluster(self) -> Cluster:
        admin = self._get_admin()
        about, described = admin.describe_cluster(), admin.describe_topics()
        led = [
            TopicPartition(topic["name"], partition["partition_index"])
            for topic in described for partition in topic["partitions"] if partition["leader_id"] >= 0
        ]  # fmt: skip
        starts = admin.list_partition_offsets(dict.fromkeys(led, OffsetSpec.EARLIEST)) if led else {}
        ends = admin.list_partition_offsets(dict.fromkeys(led, OffsetSpec.LATEST)) if led else {}
        topics = [
            Topic(
                topic["name"], bool(topic["is_internal"]),
                tuple(
                    _partition(topic["name"], partition, starts, ends)
                    for partition in sorted(topic["partitions"], key=lambda found: int(found["partition_index"]))
                ),
            )
            for topic in described
        ]  # fmt: skip
        return Cluster(
            name=about["cluster_id"],
            brokers=tuple(
                Broker(broker["broker_id"], f"{broker['host']}:{broker['port']}",
                       broker["broker_id"] == about["controller_id"])
                for broker in sorted(about["brokers"], key=lambda found: int(found["broker_id"]))
            ),
            topics=tuple(sorted(topics, key=lambda topic: (topic.internal, topic.name))),
            groups=self._groups({at: found.offset for at, found in ends.items()}),
            read_ms=time.time_ns() // 1_000_000,
        )  # fmt: skip

    def _groups(self, ends: Mapping[TopicPartition, int]) -> tuple[Group, ...]:
        admin = self._get_admin()
        listed = {found["group_id"]: found for found in admin.list_groups()}
        kinds = {name: str(found.get("group_type") or "").lower() for name, found in listed.items()}
        described = admin.describe_groups([name for name, kind in kinds.items() if kind in {"classic", ""}])
        asked = [name for name, kind in kinds.items() if kind in WITH_OFFSETS]
        offsets = admin.list_group_offsets(asked) if asked else {}
        return tuple(
            _group(name, listed[name].get("group_state") or "", kinds[name], described.get(name, {}),
                   offsets.get(name, {}), ends)
            for name in sorted(listed)
        )  # fmt: skip

    def _messages(self, topic: str, wanted: Mapping[int, tuple[int, int]], limit: int) -> Reading:
        waiting = {TopicPartition(topic, number): last for number, (first, last) in wanted.items() if first < last}
        if not waiting:
            return Reading()
        consumer = self._get_consumer()
        found: list[Message] = []
        taken, note = 0, ""
        until_s = self._clock() + self._config.kafka.timeout_s
        consumer.assign(list(waiting))
        try:
            for at in waiting:
                consumer.seek(at, wanted[at.partition][0])
            while waiting and not note:
                # What one poll gives is in memory already: it is looked at, and let go.
                for at, records in consumer.poll(timeout_ms=500).items():
                    for record in records:
                        if record.offset >= waiting.get(at, 0):
                            break
                        taken += max(0, record.serialized_key_size) + max(0, record.serialized_value_size)
                        found.append(_message(record, limit))
                for at in [at for at, last in waiting.items() if consumer.position(at) >= last]:
                    # What is after it is not asked for.
                    consumer.pause(at)
                    del waiting[at]
                if waiting and taken > self._config.limits.read_bytes:
                    note = f"Not all were read: the first ones hold more than {self._config.limits.read_bytes} bytes."
                elif waiting and self._clock() > until_s:
                    note = f"Not all were read: Kafka was asked for {self._config.kafka.timeout_s:g} s."
        finally:
            consumer.unsubscribe()
        return Reading(sorted(found, key=lambda message: (message.partition, message.offset)), note)


def _partition(topic: str, found: Mapping[str, Any], starts: Mapping[Any, Any], ends: Mapping[Any, Any]) -> Partition:
    at = TopicPartition(topic, found["partition_index"])
    return Partition(
        number=at.partition,
        leader=found["leader_id"] if found["leader_id"] >= 0 else None,
        replicas=tuple(found["replica_nodes"]),
        in_sync=tuple(found["isr_nodes"]),
        start=starts[at].offset if at in starts else None,
        end=ends[at].offset if at in ends else None,
    )


def _group(
    name: str, state: str, kind: str, described: Mapping[str, Any],
    offsets: Mapping[TopicPartition, Any], ends: Mapping[TopicPartition, int],
) -> Group:  # fmt: skip
    members, held = [], {}
    for member in described.get("members", ()):
        # Empty in a group whose members are not what consumers are (Connect, say), or that is being divided anew.
        assignment = member["member_assignment"]
        entries = assignment.get("assigned_partitions", []) if isinstance(assignment, dict) else []
        mine = sorted((entry["topic"], number) for entry in entries for number in entry["partitions"])
        members.append(Member(member["client_id"], member["client_host"].lstrip("/"), tuple(mine)))
        held.update(dict.fromkeys(mine, member["client_id"]))
    committed = {(at.topic, at.partition): found.offset for at, found in offsets.items() if found.offset >= 0}
    ended = {(at.topic, at.partition): end for at, end in ends.items()}
    note = ""
    if kind not in WITH_OFFSETS:
        note = f"A group of the type {kind} keeps no offsets that this page could show."
    elif kind == "consumer":
        note = "Members are not shown: this group is of Kafka's newer type."
    elif described.get("error"):
        note = str(described["error"])
    return Group(
        name=name, state=state or str(described.get("group_state", "")), kind=kind, note=note, members=tuple(members),
        partitions=tuple(
            GroupPartition(at[0], at[1], committed.get(at), ended.get(at), held.get(at))
            for at in sorted(committed.keys() | held.keys())
        ),
    )  # fmt: skip


def _message(record: Any, limit: int) -> Message:  # noqa: ANN401 - kafka-python's ConsumerRecord
    headers: list[tuple[str, Text]] = [(str(name), decode(value, limit)) for name, value in record.headers]
    return Message(
        partition=record.partition, offset=record.offset,
        time_ms=record.timestamp if record.timestamp is not None and record.timestamp >= 0 else None,
        time_kind=TIME_KINDS.get(record.timestamp_type, ""),
        key=decode(record.key, limit), value=decode(record.value, limit), headers=tuple(headers),
    )  # fmt: skip
