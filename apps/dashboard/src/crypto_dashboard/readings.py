"""What is read of the lab, as plain values: times are epoch milliseconds, latencies milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


class SourceError(Exception):
    """A source does not answer; the text is one line that a person can read."""


@dataclass(frozen=True)
class Quote:
    """The newest row of a symbol."""

    price: float
    user: str
    timestamp_ms: int
    produced_ms: float


@dataclass(frozen=True)
class EngineRows:
    """What an engine's table says about now.

    `rows` were committed in the last minute; `capped` says that there were more than are looked at, and then `rows` is
    a lower bound and the percentiles are of the newest ones. `offsets`: partition => highest offset stored,
    as a row or as a reject.
    `inserted`: the server's counter of rows ever inserted, from which a rate is told where `rows` is capped.
    """

    rows: int = 0
    capped: bool = False
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    committed_ms: float | None = None
    offsets: Mapping[int, int] = field(default_factory=dict)
    quotes: Mapping[str, Quote] = field(default_factory=dict)
    inserted: int | None = None


@dataclass(frozen=True)
class Rows:
    """Both engines now, by PostgreSQL's clock."""

    now_ms: float
    engines: Mapping[str, EngineRows]


# [start ms, rows, p50 ms, p99 ms] of one step of the last quarter of an hour.
Step = tuple[float, int, float, float]
History = Mapping[str, Sequence[Step]]
# [window start ms, open, high, low, close]
Candle = tuple[int, float, float, float, float]
# engine => symbol => candles, oldest first
Candles = Mapping[str, Mapping[str, Sequence[Candle]]]


@dataclass(frozen=True)
class Alert:
    """An alert of Prometheus that is pending or firing."""

    name: str
    state: str
    severity: str
    summary: str
    since_ms: float | None


@dataclass(frozen=True)
class Metrics:
    """What Prometheus knows: value name (prometheus.EXPRESSIONS) => label value => number; '' without that label."""

    values: Mapping[str, Mapping[str, float]]
    alerts: Sequence[Alert]

    def value(self, name: str) -> float | None:
        """Return a value that has no label, or None where the metric is missing."""
        return self.values.get(name, {}).get("")
