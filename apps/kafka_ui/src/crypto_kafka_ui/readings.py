"""What is read from Kafka, as plain values, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass, field


class SourceError(Exception):
    """Kafka does not answer, or not with what was asked for; the text says what it is."""


@dataclass(frozen=True)
class Broker:
    """A broker that the cluster knows."""

    number: int
    address: str
    controller: bool


@dataclass(frozen=True)
class Partition:
    """A partition, from the offset of its oldest message to that of the next one to come; None without a leader."""

    number: int
    leader: int | None
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]
    start: int | None
    end: int | None

    @property
    def messages(self) -> int | None:
        """Offsets in use: more than there are messages, where some were compacted or mark transactions."""
        return None if self.start is None or self.end is None else self.end - self.start

    @property
    def state(self) -> str:
        """`ok`, `warn` where a copy is missing, `down` without a leader."""
        if self.leader is None:
            return "down"
        return "ok" if len(self.in_sync) == len(self.replicas) else "warn"


@dataclass(frozen=True)
class Topic:
    """A topic with its partitions, by their numbers."""

    name: str
    internal: bool
    partitions: tuple[Partition, ...]

    @property
    def messages(self) -> int | None:
        """Messages in all partitions; None where one has no leader."""
        counts = [partition.messages for partition in self.partitions]
        return None if None in counts else sum(count or 0 for count in counts)

    @property
    def state(self) -> str:
        """The worst of its partitions'."""
        states = {partition.state for partition in self.partitions}
        return next((state for state in ("down", "warn") if state in states), "ok")

    def partition(self, number: int) -> Partition | None:
        """Return one partition; None where there is none of that number."""
        return next((partition for partition in self.partitions if partition.number == number), None)


@dataclass(frozen=True)
class GroupPartition:
    """How far a group has come in a partition: `committed` is the next offset that it wants, None if there is none."""

    topic: str
    number: int
    committed: int | None
    end: int | None
    member: str | None

    @property
    def lag(self) -> int | None:
        """Messages that wait; None where it is not known."""
        if self.committed is None or self.end is None or self.committed > self.end:
            return None
        return self.end - self.committed

    @property
    def note(self) -> str:
        """Why there is no lag."""
        if self.committed is None:
            return "nothing committed"
        if self.end is None:
            return "the partition is not there or has no leader"
        # The topic was deleted and made again.
        return "committed beyond the end: of an earlier topic of that name" if self.committed > self.end else ""


@dataclass(frozen=True)
class Member:
    """A consumer that is in a group now."""

    client: str
    host: str
    partitions: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Group:
    """A consumer group. `kind` is Kafka's type: classic, consumer, share or streams."""

    name: str
    state: str
    kind: str
    members: tuple[Member, ...] = ()
    partitions: tuple[GroupPartition, ...] = ()
    # What could not be found out about it.
    note: str = ""

    @property
    def lag(self) -> int | None:
        """Messages that wait in all partitions whose lag is known; None where that is none."""
        lags = [partition.lag for partition in self.partitions if partition.lag is not None]
        return sum(lags) if lags else None

    @property
    def topics(self) -> list[str]:
        """The topics that it reads."""
        return sorted({partition.topic for partition in self.partitions})


@dataclass(frozen=True)
class Cluster:
    """Everything but messages, at one moment."""

    name: str
    brokers: tuple[Broker, ...]
    topics: tuple[Topic, ...]
    groups: tuple[Group, ...]
    read_ms: int

    def topic(self, name: str) -> Topic | None:
        """Return a topic by its name; None where there is none."""
        return next((topic for topic in self.topics if topic.name == name), None)

    def group(self, name: str) -> Group | None:
        """Return a group by its name; None where there is none."""
        return next((group for group in self.groups if group.name == name), None)

    def groups_of(self, topic: str) -> list[Group]:
        """Return the groups that read a topic."""
        return [group for group in self.groups if topic in group.topics]


@dataclass(frozen=True)
class Text:
    """A key, value or header as it is shown: `form` is json, text, bytes (in hex), or null."""

    text: str
    form: str
    size: int
    # Whether there is more than is shown.
    cut: bool = False


@dataclass(frozen=True)
class Message:
    """A message, decoded. `time_kind` says whose clock gave the time: its producer's, or the broker's."""

    partition: int
    offset: int
    time_ms: int | None
    time_kind: str
    key: Text
    value: Text
    headers: tuple[tuple[str, Text], ...] = ()


@dataclass(frozen=True)
class Reading:
    """Messages that were read, in the order of partitions and offsets, and why there are no more of them."""

    messages: list[Message] = field(default_factory=list)
    note: str = ""
