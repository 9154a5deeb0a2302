"""The account of a run: every event that was to be sent is in exactly one class, for each engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compare.load import is_malformed
from compare.rows import NO_TIME, Rows

Ranges = Sequence[tuple[int, int]]
EXAMPLES = 5


@dataclass(frozen=True)
class TopicFacts:
    """What the topic holds of a run: messages, events that are not there, events that are there more than once."""

    messages: int
    missing: Ranges = ()
    duplicated: Ranges = ()
    foreign: int = 0


@dataclass(frozen=True)
class EngineAccount:
    """What became of every event at one engine.

    delivered + late + lost + rejected + unsent = all events of the run. The rest are faults beside: an event has more
    than one row, a good event among the rejects, a malformed one among the rows, rows or rejects of no event of this
    run, rows without a commit time.
    """

    delivered: int
    late: int
    lost: int
    rejected: int
    unsent: int
    duplicated: int = 0
    wrongly_rejected: int = 0
    wrongly_stored: int = 0
    foreign: int = 0
    without_commit_time: int = 0
    lost_examples: list[int] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was lost, doubled or mistaken. Late events are no loss; unsent ones are the generator's."""
        return not (
            self.lost or self.duplicated or self.wrongly_rejected or self.wrongly_stored or self.foreign
            or self.without_commit_time
        )  # fmt: skip

    def complaints(self, engine: str) -> list[str]:
        """Return in words what makes the run red; empty where nothing does."""
        texts = {
            "lost": "events are in the topic and not in the table", "duplicated": "events have more than one row",
            "wrongly_rejected": "good events were rejected", "wrongly_stored": "malformed events were stored",
            "foreign": "rows are of no event of this run", "without_commit_time": "rows have no commit time",
        }  # fmt: skip
        found = [f"{engine}: {getattr(self, name)} {text}" for name, text in texts.items() if getattr(self, name)]
        if self.lost_examples:
            found[0] += f" (for example number {', '.join(map(str, self.lost_examples))})"
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the account with its verdict."""
        return {**asdict(self), "ok": self.ok}


def mask(found: Ranges, size: int) -> npt.NDArray[np.bool_]:
    """Return an array of `size` that is true within the ranges."""
    made = np.zeros(size, np.bool_)
    for first, end in found:
        made[first:end] = True
    return made


def account(
    events: int,
    *,
    unacknowledged: Ranges,
    topic: TopicFacts,
    rows: Rows,
    rejected: Iterable[int],
    malformed_every: int = 0,
    late_after_us: int,
) -> EngineAccount:
    """Account for the events 0 .. `events` - 1 of a run at one engine.

    `rejected` are the indices in rejected_messages, as often as they are there; one that is no index of this run (-1)
    counts as foreign. An event that Kafka did not acknowledge and that is not in the topic was not sent: neither engine
    could have it.
    """
    unsent = mask(topic.missing, events)
    # Acknowledged, and yet not in the topic: that is a loss, of Kafka, and both engines' accounts show it.
    unsent &= mask(unacknowledged, events)
    malformed = np.zeros(events, np.bool_)
    if malformed_every:
        malformed[malformed_every - 1 :: malformed_every] = True
        assert not events or is_malformed(malformed_every - 1, malformed_every)
    inside = (rows.index >= 0) & (rows.index < events)
    times = np.bincount(rows.index[inside], minlength=events)
    stored = times > 0
    reject_list = np.fromiter(rejected, np.int64)
    reject_inside = (reject_list >= 0) & (reject_list < events)
    refused = np.zeros(events, np.bool_)
    refused[reject_list[reject_inside]] = True
    known = inside & (rows.commit_us != NO_TIME)
    late = np.zeros(events, np.bool_)
    late[rows.index[known & (rows.commit_us - rows.produced_us > late_after_us)]] = True
    good = stored & ~malformed
    lost = ~unsent & ~np.where(malformed, refused, stored)
    return EngineAccount(
        delivered=int(np.count_nonzero(good & ~late & ~unsent)),
        late=int(np.count_nonzero(good & late & ~unsent)),
        lost=int(np.count_nonzero(lost)),
        rejected=int(np.count_nonzero(refused & malformed & ~unsent)),
        unsent=int(np.count_nonzero(unsent)),
        duplicated=int(np.count_nonzero(times > 1)),
        wrongly_rejected=int(np.count_nonzero(refused & ~malformed)),
        wrongly_stored=int(np.count_nonzero(stored & malformed)),
        foreign=rows.foreign + int(np.count_nonzero(~inside)) + int(np.count_nonzero(~reject_inside)),
        without_commit_time=int(np.count_nonzero(inside & (rows.commit_us == NO_TIME))),
        lost_examples=[int(index) for index in np.flatnonzero(lost)[:EXAMPLES]],
    )


def topic_complaints(facts: TopicFacts, unacknowledged: Ranges) -> list[str]:
    """Return what is wrong with the topic itself: neither engine's fault, and yet the run's."""
    found = []
    doubled = sum(end - first for first, end in facts.duplicated)
    if doubled:
        found.append(f"topic: {doubled} events are there more than once")
    if facts.foreign:
        found.append(f"topic: {facts.foreign} messages are of no event of this run")
    size = max((end for _, end in [*facts.missing, *unacknowledged]), default=0)
    gone = int(np.count_nonzero(mask(facts.missing, size) & ~mask(unacknowledged, size)))
    if gone:
        found.append(f"topic: {gone} events were acknowledged and are not there")
    return found
