"""Latency histograms: HdrHistogram, filled from numpy arrays. Values are microseconds, 1 us to 1 hour, 3 digits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

LOWEST_US = 1
HIGHEST_US = 3_600_000_000
DIGITS = 3
# With three digits a power of two has so many (as bits) steps that are told apart.
SUB_BUCKET_BITS = 10
# What a report shows, by its name.
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}


class Latencies:
    """A histogram, and beside it what it cannot hold: negative values are counted, never dropped.

    A negative value is recorded as 1 us, so that the number of values stays that of events; one above an hour as an
    hour, and counted too.
    """

    def __init__(self) -> None:
        self.histogram = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
        self.negative = 0
        self.overflow = 0

    def __len__(self) -> int:
        """How many values were recorded."""
        return int(self.histogram.get_total_count())

    def record(self, values_us: npt.NDArray[np.int64]) -> None:
        """Record many values (shape: any)."""
        self.negative += int(np.count_nonzero(values_us < 0))
        self.overflow += int(np.count_nonzero(values_us > HIGHEST_US))
        # The library takes (value, count). Values that it does not tell apart are made one before: of millions,
        # thousands are left.
        clipped = np.clip(values_us, LOWEST_US, HIGHEST_US)
        shift = np.maximum(np.frexp(clipped)[1] - 1 - SUB_BUCKET_BITS, 0)
        for value, count in zip(*np.unique((clipped >> shift) << shift, return_counts=True), strict=True):
            self.histogram.record_value(int(value), int(count))

    def record_counts(self, counts: Iterable[tuple[int, int]]) -> None:
        """Record values with their counts: (value in us, how many)."""
        for value, count in counts:
            if value < 0:
                self.negative += count
            elif value > HIGHEST_US:
                self.overflow += count
            self.histogram.record_value(min(max(value, LOWEST_US), HIGHEST_US), count)

    def merge(self, other: Latencies) -> None:
        """Take in another histogram, as if its values had been recorded here."""
        if len(other):
            self.histogram.add(other.histogram)
        self.negative += other.negative
        self.overflow += other.overflow

    def at_ms(self, percentile: float) -> float | None:
        """Return a percentile in milliseconds, or None without values."""
        return self.histogram.get_value_at_percentile(percentile) / 1000 if len(self) else None

    def summary(self) -> dict[str, float | int | None]:
        """Return count, negative, the percentiles and the maximum in milliseconds."""
        return {
            "count": len(self),
            "negative": self.negative,
            **{f"{name}_ms": self.at_ms(percentile) for name, percentile in PERCENTILES.items()},
            "max_ms": self.histogram.get_max_value() / 1000 if len(self) else None,
        }

    def curve(self) -> list[tuple[float, float]]:
        """Return the distribution as (milliseconds, fraction at or below), for a CDF."""
        total, reached, found = len(self), 0, []
        for item in self.histogram.get_recorded_iterator():
            reached += item.count_added_in_this_iter_step
            found.append((item.value_iterated_to / 1000, reached / total))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` makes the same histogram of: HdrHistogram's own encoding, and the counts beside."""
        return {"hdr": self.histogram.encode().decode(), "negative": self.negative, "overflow": self.overflow}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Latencies:
        """Read a histogram that was written by `to_json`."""
        made = cls()
        made.histogram.decode_and_add(found["hdr"].encode())
        made.negative, made.overflow = found["negative"], found["overflow"]
        return made
