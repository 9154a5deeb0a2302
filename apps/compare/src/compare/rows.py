"""Rows of PostgreSQL's binary COPY as numpy arrays, and what they say about latency and lag.

The end of an event's latency is the commit of its row, `pg_xact_commit_timestamp(xmin)`: one clock, one definition for
both engines, and neither has a part in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compare.identity import MAX_INDEX
from compare.load import Schedule

SIGNATURE = b"PGCOPY\n\xff\r\n\0"
# PostgreSQL counts microseconds from 2000-01-01 (binary timestamptz), everybody else from 1970-01-01.
EPOCH_2000_US = 946_684_800_000_000
# A row as COPY writes it: a count of fields, then each as length and value, all big-endian. No column can be NULL, so
# every row is of the same length.
WIRE = np.dtype([
    ("fields", ">i2"), ("l0", ">i4"), ("id_high", ">u8"), ("id_low", ">u8"), ("l1", ">i4"), ("produced_us", ">i8"),
    ("l2", ">i4"), ("commit_us", ">i8"), ("l3", ">i4"), ("partition", ">i4"), ("l4", ">i4"), ("offset", ">i8"),
])  # fmt: skip
NO_TIME = np.iinfo(np.int64).min


def copy_statement(table: str, first_id: str = "", end_id: str = "") -> str:
    """Return the statement that both engines' rows are read by, of the whole table or of a range of ids.

    Ids of a run ascend with their time, so that a range is an index scan. A row whose commit time is not known
    (written before the setting was on) has '-infinity'.
    """
    where = f" WHERE event_id >= '{first_id}' AND event_id < '{end_id}'" if first_id else ""
    return (
        "COPY (SELECT event_id, produced_at, coalesce(pg_xact_commit_timestamp(xmin), '-infinity'),"  # noqa: S608
        f" kafka_partition, kafka_offset FROM {table}{where}) TO STDOUT (FORMAT binary)"
    )


@dataclass(frozen=True)
class Rows:
    """Rows of one run: arrays of the same length. Times are epoch microseconds; commit_us is NO_TIME where unknown.

    `foreign` counts rows that are of no event of this run.
    """

    index: npt.NDArray[np.int64]
    produced_us: npt.NDArray[np.int64]
    commit_us: npt.NDArray[np.int64]
    foreign: int = 0

    def __len__(self) -> int:
        """How many rows of this run there are."""
        return len(self.index)

    def between(self, first: int, end: int) -> Rows:
        """Return the rows of the events `first` up to, not including, `end`."""
        chosen = (self.index >= first) & (self.index < end)
        return Rows(self.index[chosen], self.produced_us[chosen], self.commit_us[chosen])

    @property
    def latency_us(self) -> npt.NDArray[np.int64]:
        """Commit time - intended send time, of rows with a known commit time."""
        known = self.commit_us != NO_TIME
        latency: npt.NDArray[np.int64] = self.commit_us[known] - self.produced_us[known]
        return latency


def parse_copy(blocks: Iterable[bytes], tag: int) -> Rows:
    """Make rows of a binary COPY stream, block by block as it comes.

    Raises ValueError where the stream is none, is cut off, or has rows of another shape.
    """
    parts: list[np.ndarray[Any, Any]] = []
    rest, ended, begun = b"", False, False
    for block in blocks:
        rest += block
        if not begun:
            if len(rest) < 19:
                continue
            if not rest.startswith(SIGNATURE):
                raise ValueError(f"this is no binary COPY of PostgreSQL: {rest[:40]!r}")
            rest = rest[19 + int.from_bytes(rest[15:19], "big") :]
            begun = True
        whole = len(rest) // WIRE.itemsize
        if whole:
            found = np.frombuffer(rest, WIRE, whole)
            if not (found["fields"] == 5).all() or not (found["l2"] == 8).all():
                raise ValueError("a row has not the five columns that were asked for")
            parts.append(_compact(found, tag))
            rest = rest[whole * WIRE.itemsize :]
        ended = rest == b"\xff\xff"
    if not ended:
        raise ValueError("the COPY stream ended in the middle: the connection was lost")
    foreign = sum(int(part["foreign"][0]) for part in parts if len(part))
    kept = [part[1:] for part in parts]
    joined = np.concatenate(kept) if kept else np.empty(0, _COMPACT)
    return Rows(
        joined["index"].astype(np.int64), joined["produced_us"].astype(np.int64), joined["commit_us"].astype(np.int64),
        foreign,
    )  # fmt: skip


_COMPACT = np.dtype([("index", "i8"), ("produced_us", "i8"), ("commit_us", "i8"), ("foreign", "i8")])


def _compact(found: np.ndarray[Any, Any], tag: int) -> np.ndarray[Any, Any]:
    # The first entry carries the count of rows that are not this run's.
    high, low = found["id_high"].astype(np.uint64), found["id_low"].astype(np.uint64)
    tags = ((high & np.uint64(0xFFF)) << np.uint64(14)) | ((low >> np.uint64(48)) & np.uint64(0x3FFF))
    own = (tags == np.uint64(tag)) & ((high >> np.uint64(12)) & np.uint64(0xF) == np.uint64(7))
    made = np.zeros(int(np.count_nonzero(own)) + 1, _COMPACT)
    made["foreign"][0] = len(found) - np.count_nonzero(own)
    made["index"][1:] = (low[own] & np.uint64(MAX_INDEX)).astype(np.int64)
    made["produced_us"][1:] = found["produced_us"][own]
    commit = found["commit_us"][own].astype(np.int64)
    # '-infinity' is the least value there is, and stays so.
    made["commit_us"][1:] = np.where(commit == NO_TIME, NO_TIME, commit + EPOCH_2000_US * (commit != NO_TIME))
    return made


def join(parts: Iterable[Rows]) -> Rows:
    """Return the rows of several reads as one."""
    found = list(parts)
    return Rows(
        np.concatenate([part.index for part in found]), np.concatenate([part.produced_us for part in found]),
        np.concatenate([part.commit_us for part in found]), sum(part.foreign for part in found),
    )  # fmt: skip


@dataclass(frozen=True)
class Series:
    """A run second by second: arrays of the same length, entry k is of [start + k s, start + k + 1 s).

    `intended` and `committed` are events of that second, `lag` is how many intended ones had no row at its end,
    `p50_ms` and `p99_ms` are of the rows committed in it (NaN without rows).
    """

    start_us: int
    intended: npt.NDArray[np.int64]
    committed: npt.NDArray[np.int64]
    lag: npt.NDArray[np.int64]
    p50_ms: npt.NDArray[np.float64]
    p99_ms: npt.NDArray[np.float64]

    def __iter__(self) -> Iterator[dict[str, float | int | None]]:
        """Give the seconds as dictionaries, for tables."""
        for number in range(len(self.lag)):
            yield {
                "second": number, "intended": int(self.intended[number]), "committed": int(self.committed[number]),
                "lag": int(self.lag[number]), "p50_ms": _number(self.p50_ms[number]),
                "p99_ms": _number(self.p99_ms[number]),
            }  # fmt: skip


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 3)


def series(rows: Rows, schedule: Schedule, start_us: int, expected: int | None = None) -> Series:
    """Return the time series of a load that began at `start_us` (epoch us), up to the last commit.

    `expected` is how many of the load's events should become rows (all, without malformed ones); the lag is reckoned in
    those.
    """
    commits = np.sort(rows.commit_us[rows.commit_us != NO_TIME])
    end_us = max(start_us + schedule.duration_us, int(commits[-1]) + 1 if len(commits) else 0)
    seconds = max(1, -(-(end_us - start_us) // 1_000_000))
    edges_us = start_us + np.arange(1, seconds + 1) * 1_000_000
    share = 1.0 if expected is None else expected / schedule.count
    due = np.array([schedule.due(int(edge) - start_us - 1) for edge in edges_us])
    reached = np.round(due * share).astype(np.int64)
    done = np.searchsorted(commits, edges_us, side="left").astype(np.int64)
    committed = np.diff(done, prepend=0)
    p50, p99 = np.full(seconds, np.nan), np.full(seconds, np.nan)
    known = rows.commit_us != NO_TIME
    second = np.clip((rows.commit_us[known] - start_us) // 1_000_000, 0, seconds - 1)
    latency_ms = (rows.commit_us[known] - rows.produced_us[known]) / 1000
    order = np.argsort(second, kind="stable")
    bounds = np.searchsorted(second[order], np.arange(seconds + 1))
    for number in range(seconds):
        part = latency_ms[order[bounds[number] : bounds[number + 1]]]
        if len(part):
            p50[number], p99[number] = np.percentile(part, [50, 99])
    return Series(start_us, np.diff(due, prepend=0), committed, reached - done, p50, p99)
