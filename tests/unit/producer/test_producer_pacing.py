"""Schedule, backoff, rate limit and Retry-After, on clocks of their own."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from crypto_producer.pacing import STABLE_AFTER_S, Backoff, Schedule, TokenBucket, retry_after_s
from hypothesis import given
from hypothesis import strategies as st


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def test_rounds_do_not_drift() -> None:
    schedule = Schedule(10, 100)
    now_s, due = 100.0, []
    for work_s in (0.1, 3.0, 9.9, 0.0):
        due.append(schedule.next_due_s(now_s))
        now_s = max(now_s, due[-1]) + work_s
    assert due == [100, 110, 120, 130]
    assert schedule.skipped == 0


def test_a_late_round_skips_and_stays_on_the_grid() -> None:
    schedule = Schedule(10, 100)
    assert schedule.next_due_s(100) == 100
    assert schedule.next_due_s(147) == 140
    assert schedule.skipped == 3
    assert schedule.next_due_s(147) == 150


@given(st.integers(0, 2**32), st.floats(0.01, 10), st.floats(10, 100))
def test_backoff_grows_to_its_cap_and_no_further(seed: int, base_s: float, cap_s: float) -> None:
    backoff = Backoff(base_s, cap_s, random.Random(seed))
    delays = [backoff.next_delay_s() for _ in range(60)]
    assert all(base_s / 2 <= delay <= min(cap_s, base_s * 2**n) for n, delay in enumerate(delays))
    assert max(delays[30:]) > cap_s / 2


class Longest(random.Random):
    def uniform(self, _: float, b: float) -> float:
        return b


def test_backoff_begins_anew_only_after_a_connection_that_stood() -> None:
    clock = Clock()
    backoff = Backoff(1, 100, Longest(), clock)

    def connection(lasts_s: float) -> float:
        backoff.connected()
        clock.now_s += lasts_s
        # A later sign of life does not make the connection a younger one.
        backoff.connected()
        return backoff.next_delay_s()

    assert [connection(STABLE_AFTER_S - 1) for _ in range(3)] == [1, 2, 4]
    clock.now_s += STABLE_AFTER_S
    assert backoff.next_delay_s() == 8, "waiting is not standing"
    assert [connection(STABLE_AFTER_S), connection(0)] == [1, 2]


@given(st.floats(0.5, 50), st.integers(1, 20), st.lists(st.floats(0, 3), min_size=1, max_size=200))
def test_bucket_never_gives_more_than_its_rate(rate_per_s: float, burst: int, pauses: list[float]) -> None:
    clock = Clock()
    bucket = TokenBucket(rate_per_s, burst, clock)
    taken: list[float] = []
    for pause in pauses:
        wait_s = bucket.take()
        if wait_s == 0:
            taken.append(clock.now_s)
        clock.now_s += pause
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - taken[first]) * rate_per_s + 1e-6


def test_bucket_says_when_to_come_back() -> None:
    clock = Clock()
    bucket = TokenBucket(10, 2, clock)
    assert [bucket.take(), bucket.take()] == [0, 0]
    wait_s = bucket.take()
    assert wait_s == pytest.approx(0.1)
    clock.now_s += wait_s + 1e-9
    assert bucket.take() == 0


def test_bucket_pauses_for_retry_after_without_a_burst_behind_it() -> None:
    clock = Clock()
    bucket = TokenBucket(10, 5, clock)
    bucket.pause(7)
    assert bucket.take() == pytest.approx(7)
    clock.now_s += 7
    assert bucket.take() == 0
    assert bucket.take() > 0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        (" 12 ", 12.0),
        ("999999999999", 300.0),
        (None, 1.5),
        ("soon", 1.5),
        ("-4", 1.5),
        ("Fri, 10 Jul 2026 00:00:30 GMT", 30.0),
        ("Fri, 10 Jul 2020 00:00:30 GMT", 0.0),
    ],
)
def test_retry_after(header: str | None, seconds: float) -> None:
    assert retry_after_s(header, 1.5, now=datetime(2026, 7, 10, tzinfo=UTC)) == seconds
