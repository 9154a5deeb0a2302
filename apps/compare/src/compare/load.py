"""When each event is to be sent: declared loads, and the open-loop schedule that they make.

A schedule knows nothing of what comes back. Event i is intended at the time at which the integral of the declared rate
reaches i; for a steady rate that is t0 + i / rate. Whatever delays an event later counts as its latency (no coordinated
omission: Gil Tene, "How NOT to Measure Latency").
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Prices walk through this many steps: cheap, and no two neighbours are alike.
PRICE_STEPS = 9_973

Rate = Annotated[float, Field(gt=0, le=1_000_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a schedule in which the rate (events per second) goes linearly from one value to another."""

    duration_s: float
    from_per_s: float
    to_per_s: float

    @property
    def events(self) -> float:
        """The integral of the rate: how many events the piece has, not rounded."""
        return self.duration_s * (self.from_per_s + self.to_per_s) / 2

    def events_until(self, elapsed_s: float) -> float:
        """Return the integral of the rate from the piece's begin to `elapsed_s` of it."""
        change = (self.to_per_s - self.from_per_s) / self.duration_s
        return elapsed_s * (self.from_per_s + change * elapsed_s / 2)

    def time_of(self, events: float) -> float:
        """Return after how many seconds of the piece the integral reaches `events`: the inverse of events_until."""
        if self.from_per_s == self.to_per_s:
            return events / self.from_per_s
        change = (self.to_per_s - self.from_per_s) / self.duration_s
        # The root of change/2 t^2 + from t - events = 0 that is right for both signs, in its stable form.
        root = math.sqrt(max(0.0, self.from_per_s**2 + 2 * change * events))
        return 2 * events / (self.from_per_s + root) if events else 0.0


class Schedule:
    """The intended times of all events of a load. Raises ValueError for a schedule without an event."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = tuple(pieces)
        self._starts_s = [0.0]
        self._starts_events = [0.0]
        for piece in self.pieces:
            self._starts_s.append(self._starts_s[-1] + piece.duration_s)
            self._starts_events.append(self._starts_events[-1] + piece.events)
        # An integral that misses a whole number by a rounding error is that number.
        self.count = math.ceil(self._starts_events[-1] - 1e-6)
        if self.count < 1:
            raise ValueError("a schedule needs at least one event: raise rate or duration")

    @property
    def duration_us(self) -> int:
        """From the first event to the end of the last piece, in microseconds."""
        return round(self._starts_s[-1] * 1e6)

    def offset_us(self, index: int) -> int:
        """Return the intended time of event `index`, in microseconds after the begin."""
        number = min(bisect_right(self._starts_events, index), len(self.pieces)) - 1
        return int((self._starts_s[number] + self.pieces[number].time_of(index - self._starts_events[number])) * 1e6)

    def offsets_us(self, first: int, end: int) -> list[int]:
        """Return offset_us of all events from `first` up to, not including, `end`; quick where the rate is steady."""
        number = min(bisect_right(self._starts_events, first), len(self.pieces)) - 1
        piece = self.pieces[number]
        if piece.from_per_s == piece.to_per_s and end - 1 < self._starts_events[number + 1]:
            gap_us = 1e6 / piece.from_per_s
            begin_us = self._starts_s[number] * 1e6 - self._starts_events[number] * gap_us
            return [int(begin_us + index * gap_us) for index in range(first, end)]
        return [self.offset_us(index) for index in range(first, end)]

    def due(self, elapsed_us: float) -> int:
        """Return how many events are intended at or before `elapsed_us` after the begin."""
        elapsed_s = elapsed_us / 1e6
        if elapsed_s < 0:
            return 0
        number = min(bisect_right(self._starts_s, elapsed_s), len(self.pieces)) - 1
        piece = self.pieces[number]
        within_s = min(elapsed_s - self._starts_s[number], piece.duration_s)
        reached = self._starts_events[number] + piece.events_until(within_s)
        return min(self.count, math.floor(reached + 1e-6) + 1)


class _Load(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Steady(_Load):
    """One rate, all the time."""

    kind: Literal["steady"] = "steady"
    rate_per_s: Rate
    duration_s: Seconds

    def pieces(self) -> list[Piece]:
        """Return the load as pieces of a schedule."""
        return [Piece(self.duration_s, self.rate_per_s, self.rate_per_s)]


class Ramp(_Load):
    """From one rate to another, linearly."""

    kind: Literal["ramp"] = "ramp"
    from_per_s: Rate
    to_per_s: Rate
    duration_s: Seconds

    def pieces(self) -> list[Piece]:
        """Return the load as pieces of a schedule."""
        return [Piece(self.duration_s, self.from_per_s, self.to_per_s)]


class Burst(_Load):
    """A base rate with bursts of another: one (no `period_s`), or one each `period_s`."""

    kind: Literal["burst"] = "burst"
    base_per_s: Rate
    burst_per_s: Rate
    first_s: Seconds
    burst_s: Seconds
    period_s: Seconds | None = None
    duration_s: Seconds

    @model_validator(mode="after")
    def _bursts_fit(self) -> Self:
        if self.first_s + self.burst_s > self.duration_s:
            raise ValueError("first_s + burst_s is longer than duration_s: the burst would be cut off")
        if self.period_s is not None and self.period_s <= self.burst_s:
            raise ValueError("period_s is not longer than burst_s: there would be no base rate between bursts")
        return self

    def pieces(self) -> list[Piece]:
        """Return the load as pieces of a schedule; what is left of the duration after the last burst is base rate."""
        base, burst = (Piece(0, rate, rate) for rate in (self.base_per_s, self.burst_per_s))
        found = [Piece(self.first_s, base.from_per_s, base.to_per_s)]
        at_s = self.first_s
        while True:
            found.append(Piece(self.burst_s, burst.from_per_s, burst.to_per_s))
            next_s = at_s + (self.period_s or self.duration_s)
            last = next_s + self.burst_s > self.duration_s + 1e-9
            rest_s = (self.duration_s if last else next_s) - at_s - self.burst_s
            if rest_s > 1e-9:
                found.append(Piece(rest_s, base.from_per_s, base.to_per_s))
            if last:
                return found
            at_s = next_s


Load = Annotated[Steady | Ramp | Burst, Field(discriminator="kind")]


class GeneratorSpec(BaseModel):
    """What the generator is asked for; event k of this load is event `first_index` + k of the run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tag: Annotated[int, Field(ge=0)]
    first_index: Annotated[int, Field(ge=0)] = 0
    load: Load
    # Event time runs that many times as fast as the clock: windows of a minute close in seconds.
    event_time_speed: Annotated[float, Field(gt=0, le=1000)] = 1.0
    # Every how-manieth event is no event (its price is a string); 0: none.
    malformed_every: Annotated[int, Field(ge=0)] = 0
    linger_ms: Annotated[float, Field(ge=0, le=1000)] = 1.0
    # Events of the first so many seconds warm up; how late they were is counted apart.
    warmup_s: Annotated[float, Field(ge=0)] = 0
    # Time from the start of the program to the first event: connections are made meanwhile.
    lead_s: Annotated[float, Field(ge=0, le=60)] = 2.0


def is_malformed(index: int, malformed_every: int) -> bool:
    """Tell whether event `index` of a run is a malformed one."""
    return malformed_every > 0 and index % malformed_every == malformed_every - 1


def price_parts(index: int) -> tuple[int, int]:
    """Return the price of event `index` of a run as whole dollars and cents."""
    step = index * 7 % PRICE_STEPS
    return 1 + step, step % 100


def event_time_ms(start_us: int, offset_us: int, speed: float) -> int:
    """Return the event time (epoch ms) of an event intended `offset_us` after the start (epoch us)."""
    return start_us // 1000 + int(offset_us * speed) // 1000
