"""What can be killed while a load goes on, and what the lag says about how long that took to heal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from compare.rows import NO_TIME, Rows, Series

# The lag is steady again when so many seconds in a row are as before.
STEADY_SECONDS = 5
STEADY_SHARE = 0.02


@dataclass(frozen=True)
class Fault:
    """A unit whose main process, or a child of it found by a pattern, is killed with SIGKILL."""

    engine: Literal["spark", "flink"]
    group: str
    unit: str
    title: str
    # Of the command line (pgrep -f); "": the unit's main process.
    process: str = ""


FAULTS = {
    "flink-taskmanager": Fault("flink", "flink_taskmanager", "flink-taskmanager", "Flink's task manager is killed"),
    "flink-jobmanager": Fault("flink", "flink_jobmanager", "flink-jobmanager", "Flink's job manager is killed"),
    "spark-driver": Fault("spark", "submitter", "spark-job", "Spark's driver is killed"),
    "spark-executor": Fault(
        "spark", "spark_worker", "spark-worker", "Spark's executor is killed", process="CoarseGrainedExecutorBackend"
    ),
}


@dataclass(frozen=True)
class Recovered:
    """How a fault healed; seconds from the kill, None where it did not while it was watched.

    `first_row_s`: to the first commit of an event that was intended after the kill. `steady_lag_s`: to the first of
    five seconds in a row whose lag is as before.
    """

    first_row_s: float | None
    steady_lag_s: float | None
    lag_before: float
    lag_highest: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a dictionary."""
        return asdict(self)


def recovered(rows: Rows, found: Series, fault_us: int, rate_per_s: float) -> Recovered:
    """Return how the load of `rows` and `found` got over a fault at `fault_us` (epoch us)."""
    after = rows.commit_us[(rows.produced_us >= fault_us) & (rows.commit_us != NO_TIME)]
    first_row_s = (int(after.min()) - fault_us) / 1e6 if len(after) else None
    second = (fault_us - found.start_us) // 1_000_000
    before = found.lag[:second]
    lag_before = float(np.percentile(before, 95)) if len(before) else 0.0
    steady = found.lag[second:] <= lag_before + STEADY_SHARE * rate_per_s
    # The second of the kill began before it.
    steady[: 1 if len(steady) else 0] = False
    # What a fault takes down shows in the lag at once, or not at all.
    runs = [
        number for number in range(len(steady) - STEADY_SECONDS + 1) if steady[number : number + STEADY_SECONDS].all()
    ]
    steady_lag_s = None
    if runs:
        steady_lag_s = max(0.0, (found.start_us + (int(second) + runs[0]) * 1_000_000 - fault_us) / 1e6)
    return Recovered(first_row_s, steady_lag_s, lag_before, int(found.lag[second:].max(initial=0)))
