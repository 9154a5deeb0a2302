"""Does the checkpoint belong to this topic? And what to do where it does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class OperatorNeededError(Exception):
    """Starting again will not help before somebody has acted; the text says how."""


@dataclass(frozen=True)
class Topic:
    """A topic as the brokers know it. A topic that is deleted and created again has another id."""

    name: str
    topic_id: str
    partitions: int


def check_topic(checkpoint_dir: Path, topic: Topic) -> None:
    """Make sure that a checkpoint is used for the topic it was made for.

    Spark itself notices a recreated topic only while it is shorter than the old one; later it would go on in the
    middle, in silence.

    Raises:
        OperatorNeededError: the topic is another one.
        OSError: the directory cannot be written.
    """
    checkpoint_dir.mkdir(parents=True, exist_ok=True)
    path = checkpoint_dir / "topic"
    identity = f"{topic.name} {topic.topic_id}\n"
    try:
        known = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        temporary = path.with_suffix(".new")
        temporary.write_text(identity, encoding="utf-8")
        temporary.replace(path)
        return
    if known != identity:
        name, _, topic_id = known.strip().partition(" ")
        raise OperatorNeededError(recreated(str(checkpoint_dir), Topic(name, topic_id, 0), topic))


def recreated(checkpoint_dir: str, old: Topic, new: Topic) -> str:
    """Return a message that says which topic the checkpoint belongs to, and what to do."""
    return (
        f"the checkpoint in {checkpoint_dir} belongs to topic {old.name!r} with id {old.topic_id}, but topic "
        f"{new.name!r} has id {new.topic_id}: the topic was recreated or another one is configured. "
        f"{remedy(checkpoint_dir)}"
    )


def remedy(checkpoint_dir: str) -> str:
    """Return what to do about a checkpoint that does not fit its topic."""
    return (
        f"Stop the application, move {checkpoint_dir} away and start it again: it then reads the topic from "
        "kafka.starting_offsets, and rows that are in the tables already stay as they are"
    )


def is_data_loss(text: str) -> bool:
    """Tell whether a query's error says that Kafka no longer has what the query wants to read."""
    signs = ("KAFKA_DATA_LOSS", "offset was changed from", "failOnDataLoss", "some data may have been missed")
    return any(sign in text for sign in signs)
