"""The highest rate that an engine sustains: searched, not guessed.

A rate is sustained when the lag does not grow and the p99 of latency stays below a bound (ShuffleBench and Theodolite
define it so). The lag of an engine that works in batches goes up and down with each of them: it is looked at once per
batch, at its highest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

# The lag may grow by this share of the rate: what a clock or a second's edge can make.
GROWTH_SHARE = 0.02
MIN_CYCLES = 4


@dataclass(frozen=True)
class Judgement:
    """Whether a rate was sustained, and by what that was told."""

    rate_per_s: float
    sustained: bool
    growth_per_s: float
    p99_ms: float | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the judgement as a dictionary."""
        return asdict(self)


def growth_per_s(lag: Sequence[float], cycle_s: int) -> float:
    """Return by how many events per second the lag grows: the median slope (Theil and Sen) of each cycle's highest lag.

    `lag` is second by second. Raises ValueError where it is shorter than four cycles, of which no growth can be told.
    """
    cycle_s = max(1, cycle_s)
    cycles = len(lag) // cycle_s
    if cycles < MIN_CYCLES:
        raise ValueError(f"{len(lag)} s are fewer than {MIN_CYCLES} cycles of {cycle_s} s: measure for longer")
    # The last whole cycles: the first seconds are the nearest to the warm-up.
    tail = np.asarray(lag[len(lag) - cycles * cycle_s :], np.float64)
    peaks = tail.reshape(cycles, cycle_s).max(axis=1)
    first, second = np.triu_indices(cycles, 1)
    return float(np.median((peaks[second] - peaks[first]) / ((second - first) * cycle_s)))


def judge(
    rate_per_s: float, lag: Sequence[float], p99_ms: float | None, *, bound_ms: float, cycle_s: int = 1
) -> Judgement:
    """Judge one probe by its lag (second by second, without the warm-up) and its p99."""
    growth = growth_per_s(lag, cycle_s)
    reasons = []
    if growth > GROWTH_SHARE * rate_per_s:
        reasons.append(f"the lag grows by {growth:.0f} events/s")
    if p99_ms is None:
        reasons.append("no row was committed")
    elif p99_ms > bound_ms:
        reasons.append(f"p99 {p99_ms:.0f} ms is above {bound_ms:.0f} ms")
    return Judgement(rate_per_s, not reasons, growth, p99_ms, "; ".join(reasons) or "sustained")


@dataclass(frozen=True)
class Search:
    """What a search found: the highest sustained rate (None: not even the lowest), the lowest that was not (None: all
    were), and every probe in its order."""

    sustained_per_s: float | None
    failed_per_s: float | None
    probes: tuple[Judgement, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the search as a dictionary."""
        return asdict(self)


def search(
    probe: Callable[[float], Judgement],
    *,
    start_per_s: float,
    max_per_s: float,
    resolution: float = 0.1,
    max_probes: int = 12,
) -> Search:
    """Find the highest sustained rate up to `max_per_s`, to a share of `resolution` of itself.

    The rate is doubled until a probe fails, or halved until one succeeds, and the gap is then halved on a logarithmic
    scale. `probe` has to leave the system without a backlog.
    """
    probes: list[Judgement] = []

    def sustained(rate: float) -> bool:
        probes.append(probe(rate))
        return probes[-1].sustained

    good: float | None = None
    bad: float | None = None
    rate = min(start_per_s, max_per_s)
    floor = start_per_s / 16
    while len(probes) < max_probes:
        if sustained(rate):
            good = rate
        else:
            bad = rate
        if bad is None:
            if good == max_per_s:
                break
            rate = min(rate * 2, max_per_s)
        elif good is None:
            if rate / 2 < floor:
                break
            rate /= 2
        elif bad / good <= 1 + resolution:
            break
        else:
            rate = math.sqrt(good * bad)
    return Search(good, bad, tuple(probes))
