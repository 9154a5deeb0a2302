"""Time-related decisions, free of threads and sleeping: schedule, backoff, rate limit. Clocks are passed in."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

Clock = Callable[[], float]

# A connection that is answered and then lost again and again stays shorter than this.
STABLE_AFTER_S = 30.0


class Schedule:
    """Rounds at `start + n * interval_s`: a late round does not push the ones after it back."""

    def __init__(self, interval_s: float, start_s: float) -> None:
        self._interval_s = interval_s
        self._start_s = start_s
        self._next_round = 0
        self.skipped = 0

    def next_due_s(self, now_s: float) -> float:
        """The due time of the next round; rounds that are over altogether are skipped and counted."""
        current = math.floor((now_s - self._start_s) / self._interval_s)
        if current > self._next_round:
            self.skipped += current - self._next_round
            self._next_round = current
        due_s = self._start_s + self._next_round * self._interval_s
        self._next_round += 1
        return due_s


class Backoff:
    """Exponential backoff with full jitter: the n-th delay is uniform in [base/2, min(cap, base * 2^n)].

    It begins anew once a connection has stood for STABLE_AFTER_S, not when one is merely made.
    """

    def __init__(
        self, base_s: float, cap_s: float, rng: random.Random | None = None, clock: Clock = time.monotonic
    ) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._clock = clock
        self._stands_since_s: float | None = None
        # Jitter only keeps clients apart; it guards nothing.
        self._rng = rng or random.Random()  # noqa: S311
        self._attempt = 0

    def next_delay_s(self) -> float:
        """How long to wait before the next attempt: the one before has failed now."""
        if self._stands_since_s is not None and self._clock() - self._stands_since_s >= STABLE_AFTER_S:
            self._attempt = 0
        self._stands_since_s = None
        ceiling_s = min(self._cap_s, self._base_s * 2 ** min(self._attempt, 32))
        self._attempt += 1
        return self._rng.uniform(min(self._base_s / 2, ceiling_s), ceiling_s)

    def connected(self) -> None:
        """The connection stands; of several calls until it fails the first one counts."""
        if self._stands_since_s is None:
            self._stands_since_s = self._clock()


class TokenBucket:
    """At most `rate_per_s` on average and `burst` at once; `pause` honours a server's Retry-After. Thread-safe."""

    def __init__(self, rate_per_s: float, burst: int, clock: Clock = time.monotonic) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = float(burst)
        self._filled_at_s = clock()
        self._paused_until_s = -math.inf

    def take(self) -> float:
        """Take a token: 0.0 when there was one, else the seconds after which to ask again."""
        with self._lock:
            now_s = self._clock()
            if now_s < self._paused_until_s:
                return self._paused_until_s - now_s
            self._tokens = min(self._burst, self._tokens + (now_s - self._filled_at_s) * self._rate_per_s)
            self._filled_at_s = now_s
            if self._tokens >= 1:
                self._tokens -= 1
                return 0.0
            return (1 - self._tokens) / self._rate_per_s

    def pause(self, seconds: float) -> None:
        """Give out nothing for `seconds`, and no burst right after."""
        with self._lock:
            now_s = self._clock()
            self._paused_until_s = max(self._paused_until_s, now_s + seconds)
            self._tokens = min(self._tokens, 1.0)
            self._filled_at_s = max(self._filled_at_s, self._paused_until_s)


def retry_after_s(header: str | None, default_s: float, now: datetime | None = None, limit_s: float = 300.0) -> float:
    """The seconds a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date), within [0, limit_s]."""
    if header is None:
        return default_s
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), limit_s))
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return default_s
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return min(max(0.0, (when - (now or datetime.now(UTC))).total_seconds()), limit_s)
