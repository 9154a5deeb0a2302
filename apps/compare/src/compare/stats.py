"""What repetitions say: medians with their intervals, and whether two sets of runs differ.

The interval is the percentile bootstrap of the median (Efron 1979): the repetitions are drawn again with replacement,
and the middle 95 % of the medians so obtained is the interval. With five repetitions it is as wide as they are spread,
which is what five repetitions can say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
# The same figures give the same interval, on every machine.
SEED = 6
PUBLISHED_REPETITIONS = 5


@dataclass(frozen=True)
class Estimate:
    """A median of `repetitions` values with its 95 % interval; both ends are the median where there is one value."""

    median: float
    low: float
    high: float
    repetitions: int

    @property
    def publishable(self) -> bool:
        """Whether there are enough repetitions for a published figure."""
        return self.repetitions >= PUBLISHED_REPETITIONS


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the median of the values with its interval, or None without values."""
    if not values:
        return None
    found = np.asarray(values, np.float64)
    medians = _medians(found, np.random.default_rng(SEED))
    low, high = np.percentile(medians, [2.5, 97.5])
    return Estimate(float(np.median(found)), float(low), float(high), len(found))


def _medians(
    found: np.ndarray[tuple[int], np.dtype[np.float64]], random: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    drawn = random.integers(0, len(found), (RESAMPLES, len(found)))
    return np.asarray(np.median(found[drawn], axis=1))


@dataclass(frozen=True)
class Difference:
    """How B is to A: the ratio of their medians, its 95 % interval, and what that means."""

    ratio: float
    low: float
    high: float
    verdict: str


def difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Tell whether B differs from A. Raises ValueError where a side has no values, or A's median is not positive.

    The verdict is `real` where the bootstrap interval of the ratio of medians leaves out 1, `noise` where it does not,
    and `too few runs` with fewer than five on a side: then the interval is shown and nothing is claimed.
    """
    if not a or not b:
        raise ValueError("a difference needs values on both sides")
    if np.median(a) <= 0:
        raise ValueError("a ratio needs a positive median to be compared with")
    first, second = np.random.default_rng(SEED), np.random.default_rng(SEED + 1)
    below = _medians(np.asarray(a, np.float64), first)
    above = _medians(np.asarray(b, np.float64), second)
    ratios = above / np.where(below > 0, below, np.nan)
    low, high = np.nanpercentile(ratios, [2.5, 97.5])
    verdict = "noise" if low <= 1 <= high else "real"
    if min(len(a), len(b)) < PUBLISHED_REPETITIONS:
        verdict = "too few runs"
    return Difference(float(np.median(b) / np.median(a)), float(low), float(high), verdict)
