"""A cluster without Kafka: two topics, three groups, and messages made as they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

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
    Topic,
)

NOW_MS = 1_795_655_065_178
TOPIC = "crypto_prices"
HOSTILE = '<script>alert("x")</script>'

CLUSTER = Cluster(
    name="MkU3OEVBNTcwNTJENDM2Qg",
    brokers=(Broker(1, "kafka-1:9092", controller=True), Broker(2, "kafka-2:9092", controller=False)),
    topics=(
        Topic(
            TOPIC,
            internal=False,
            partitions=(
                Partition(0, 1, (1, 2), (1, 2), 100, 500),
                Partition(1, 2, (2, 1), (2,), 0, 0),
                Partition(2, None, (2,), (), None, None),
            ),
        ),
        Topic("dead.letters", internal=False, partitions=(Partition(0, 1, (1,), (1,), 0, 3),)),
        Topic("__consumer_offsets", internal=True, partitions=(Partition(0, 1, (1,), (1,), 0, 9),)),
    ),
    groups=(
        Group(
            "crypto-prices-flink",
            "Empty",
            "classic",
            partitions=(
                GroupPartition(TOPIC, 0, 440, 500, None),
                GroupPartition(TOPIC, 1, 7, 0, None),
                GroupPartition(TOPIC, 2, 50, None, None),
            ),
        ),
        Group(
            "team/readers & co",
            "Stable",
            "classic",
            members=(Member("reader-1", "10.0.0.9", ((TOPIC, 0),)),),
            partitions=(GroupPartition(TOPIC, 0, None, 500, "reader-1"),),
        ),
        Group("idle", "Empty", "share", note="A group of the type share keeps no offsets that this page could show."),
    ),
    read_ms=NOW_MS,
)


def config(**limits: float) -> Config:
    """Return a small configuration."""
    return Config.model_validate({"kafka": {"bootstrap_servers": ["kafka-1:9092"]}, "limits": limits})


def message(partition: int, offset: int, limit: int = 400) -> Message:
    """Return a message whose value names its place; every seventh is hostile."""
    value = HOSTILE if offset % 7 == 0 else f'{{"symbol": "BTC-USD", "place": "{partition}/{offset}"}}'
    return Message(
        partition, offset, NOW_MS + offset, "producer", decode(b"BTC-USD", limit), decode(value.encode(), limit)
    )


class FakeKafka:
    """Answers as Kafka does, counts what it is asked, and can be away."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.wanted: list[dict[int, tuple[int, int]]] = []
        self.away = ""
        self.note = ""

    def _ask(self, what: str) -> None:
        self.asked[what] += 1
        if self.away:
            raise SourceError(self.away)

    def cluster(self) -> Cluster:
        self._ask("cluster")
        return CLUSTER

    def settings(self, topic: str) -> dict[str, str]:
        self._ask("settings")
        return {"retention.ms": "604800000"} if topic == TOPIC else {}

    def offsets_at(self, topic: str, partitions: list[int], time_ms: int) -> dict[int, int | None]:
        self._ask("offsets_at")
        assert topic == TOPIC
        return {number: max(100, time_ms - NOW_MS) if number == 0 else None for number in partitions}

    def messages(self, topic: str, wanted: Mapping[int, tuple[int, int]], *, whole: bool = False) -> Reading:
        self._ask("messages")
        assert topic == TOPIC
        self.wanted.append(dict(wanted))
        limit = 65536 if whole else 400
        found = [message(at, offset, limit) for at, (first, last) in wanted.items() for offset in range(first, last)]
        return Reading(found, self.note)

    def close(self) -> None:
        self.asked["close"] += 1
