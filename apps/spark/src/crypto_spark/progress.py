"""Reading Spark's progress reports: offsets, lag, and partitions that nobody reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

Offsets = dict[int, int]


def parse_offsets(text: str | None, topic: str) -> Offsets:
    """Return partition -> offset from a progress report's ``{"topic": {"0": 42}}``; empty where there is none."""
    if not text:
        return {}
    try:
        by_topic = json.loads(text)
    except ValueError:
        return {}
    found = by_topic.get(topic) if isinstance(by_topic, dict) else None
    return {int(partition): int(offset) for partition, offset in (found or {}).items()}


def lag(end: Mapping[int, int], latest: Mapping[int, int]) -> Offsets:
    """Return how many records each partition has beyond ``end``; a partition not yet read counts from its start."""
    return {partition: max(0, offset - end.get(partition, 0)) for partition, offset in latest.items()}


@dataclass
class StarvationWatch:
    """Finds partitions that stand still while they have records to read.

    Real-Time Mode reads a partition only while a task slot serves it. With too few slots the rest waits, without an
    error. So a partition starves if it did not move during a whole batch although there were records before it began.
    """

    latest_at_start: Offsets = field(default_factory=dict)

    def update(self, start: Mapping[int, int], end: Mapping[int, int], latest: Mapping[int, int]) -> list[int]:
        """Take one batch: its start and end offsets, and the topic's latest offsets now. Returns who starved."""
        starving = [
            partition
            for partition, offset in sorted(end.items())
            if offset == start.get(partition) and self.latest_at_start.get(partition, 0) > offset
        ]
        self.latest_at_start = dict(latest)
        return starving
