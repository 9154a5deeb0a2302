"""Which messages a page asks for, and which of those that were read it shows. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from crypto_kafka_ui.readings import Message, Topic

At = Literal["newest", "oldest", "offset", "time"]


class QueryError(ValueError):
    """The address asks for something that there is not; the text says what it may ask for."""


@dataclass(frozen=True)
class Query:
    """What is asked for: `count` messages of a partition or of all, from a place on or, newest, up to the end."""

    count: int
    partition: int | None = None
    at: At = "newest"
    offset: int = 0
    time_ms: int = 0

    def parameters(self) -> dict[str, str]:
        """Return what stands in the address, for links and for the form."""
        found = {"count": str(self.count), "at": self.at}
        if self.partition is not None:
            found["partition"] = str(self.partition)
        if self.at == "offset":
            found["offset"] = str(self.offset)
        if self.at == "time":
            found["time"] = dt.datetime.fromtimestamp(self.time_ms / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return found

    def from_offset(self, offset: int) -> Query:
        """Return the same for another place."""
        return replace(self, at="offset", offset=max(0, offset))


def parse(parameters: Mapping[str, str], topic: Topic, count: int, most: int) -> Query:
    """Return what an address asks for; an empty field counts as one that is not there. Raises QueryError."""
    given = {name: value.strip() for name, value in parameters.items() if value.strip()}
    at = given.get("at", "newest")
    if at not in get_args(At):
        raise QueryError(f"at={at}: messages are shown from {', '.join(get_args(At))}")
    partition = _number(given, "partition", None)
    if partition is not None and topic.partition(partition) is None:
        raise QueryError(f"{topic.name} has no partition {partition}")
    count = _number(given, "count", count) or 0
    if not 1 <= count <= most:
        raise QueryError(f"count={count}: one page shows 1 to {most} messages")
    if at == "offset" and "offset" not in given:
        raise QueryError("at=offset needs an offset")
    time_ms = 0
    if at == "time":
        time_ms = _time_ms(given.get("time", ""))
    return Query(count, partition, at, _number(given, "offset", 0) or 0, time_ms)  # type: ignore[arg-type]


def _time_ms(text: str) -> int:
    wrong = QueryError("at=time needs a time in UTC, 1970 or later, for example time=2026-11-26T09:30")
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise wrong from error
    time_ms = round(found.replace(tzinfo=dt.UTC).timestamp() * 1000)
    # To Kafka negative times are no times, but places; and a zone would be taken for UTC.
    if time_ms < 0 or found.tzinfo not in {None, dt.UTC}:
        raise wrong
    return time_ms


def _number(given: Mapping[str, str], name: str, default: int | None) -> int | None:
    if name not in given:
        return default
    # Kafka's offsets have 64 bits.
    if not (given[name].isascii() and given[name].isdigit() and len(given[name]) < 19):
        raise QueryError(f"{name}={given[name]}: is no number that Kafka knows")
    return int(given[name])


def windows(topic: Topic, query: Query, at_time: Mapping[int, int | None]) -> dict[int, tuple[int, int]]:
    """Return partition => [first, last) offsets to read. `at_time`: where each partition was at the query's time."""
    found = {}
    for partition in topic.partitions:
        if query.partition not in {None, partition.number} or partition.start is None or partition.end is None:
            continue
        start, end = partition.start, partition.end
        if query.at == "newest":
            found[partition.number] = max(start, end - query.count), end
            continue
        first = {"oldest": start, "offset": query.offset, "time": at_time.get(partition.number)}[query.at]
        first = end if first is None else min(max(first, start), end)
        found[partition.number] = first, min(end, first + query.count)
    return found


def choose(messages: list[Message], query: Query) -> list[Message]:
    """Return what the page shows of the messages that were read: the newest first, or as they came."""

    def place(message: Message) -> tuple[int, int, int]:
        return message.time_ms or 0, message.partition, message.offset

    if query.partition is None:
        messages = sorted(messages, key=place)
    return list(reversed(messages[-query.count :])) if query.at == "newest" else messages[: query.count]
