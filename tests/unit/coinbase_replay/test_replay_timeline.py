"""The timeline: exact, contiguous, stateless, never ahead of the clock."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest
from coinbase_replay.config import SYMBOLS
from coinbase_replay.generator import generate
from coinbase_replay.tape import TapeTrade, iso_time
from coinbase_replay.timeline import IDS_PER_ANCHOR_SECOND, Timeline
from hypothesis import given
from hypothesis import strategies as st

ANCHOR = 1_783_465_000
ANCHOR_US = ANCHOR * 1_000_000

offsets = st.lists(st.integers(0, 9_999_999), min_size=1, max_size=30).map(sorted)
speeds = st.sampled_from([0.1, 0.3, 1.0, 3.0, 7.7, 20.0])


def timeline(offsets_us: list[int], speed: float, anchor: int = ANCHOR) -> Timeline:
    trades = [TapeTrade(offset, f"{1 + index}.50", "0.5", "buy") for index, offset in enumerate(offsets_us)]
    return Timeline("BTC-USD", trades, 10_000_000, anchor, speed)


@given(offsets, speeds, st.integers(0, 10**12))
def test_a_trade_has_happened_exactly_from_its_time_on(offsets_us: list[int], speed: float, index: int) -> None:
    line = timeline(offsets_us, speed)
    at_us = line.time_us(index)
    assert line.count(at_us) > index
    assert line.count(at_us - 1) <= index


@given(offsets, speeds, st.integers(0, 10**16))
def test_event_time_never_runs_ahead_of_the_clock(offsets_us: list[int], speed: float, elapsed_us: int) -> None:
    line = timeline(offsets_us, speed)
    now_us = ANCHOR_US + elapsed_us
    count = line.count(now_us)
    if count:
        assert line.time_us(count - 1) <= now_us
    assert line.time_us(count) > now_us


@given(offsets, speeds, st.integers(0, 10**9))
def test_ids_times_and_sequences_go_on_over_the_loops_end(offsets_us: list[int], speed: float, start: int) -> None:
    line = timeline(offsets_us, speed)
    trades = [line.trade(index) for index in range(start, start + 2 * len(offsets_us) + 2)]
    assert [trade.trade_id for trade in trades] == list(
        range(line.first_id + start, line.first_id + start + len(trades))
    )
    for before, after in pairwise(trades):
        assert after.time_us >= before.time_us
        assert after.sequence > before.sequence


@given(offsets, st.integers(0, 10**12))
def test_a_restart_says_the_same(offsets_us: list[int], index: int) -> None:
    assert timeline(offsets_us, 20.0).trade(index) == timeline(offsets_us, 20.0).trade(index)


@given(st.integers(0, 400), st.integers(1, 50), st.none() | st.integers(-5, 450), st.none() | st.integers(-5, 450))
def test_a_page_is_the_newest_between_its_cursors(
    count: int, limit: int, after: int | None, before: int | None
) -> None:
    line = timeline([0, 5, 5, 9], 1.0)
    cursor = [None if value is None else line.first_id + value for value in (after, before)]
    expected = [
        index for index in range(count) if (after is None or index < after) and (before is None or index > before)
    ]
    page = line.page(count, limit, *cursor)
    assert [trade.trade_id - line.first_id for trade in page] == expected[::-1][:limit]


@given(st.integers(1, 300), st.integers(1, 40))
def test_paging_back_reaches_the_anchor(count: int, limit: int) -> None:
    line = timeline([0, 5, 5, 9], 1.0)
    seen: list[int] = []
    after = None
    while page := line.page(count, limit, after, None):
        seen += [trade.trade_id for trade in page]
        after = page[-1].trade_id
    assert seen == list(range(line.first_id + count - 1, line.first_id - 1, -1))


def test_nothing_happened_before_the_anchor() -> None:
    line = timeline([0, 5], 1.0)
    assert line.count(ANCHOR_US - 1) == 0
    assert line.count(ANCHOR_US) == 1
    with pytest.raises(IndexError):
        line.trade(-1)


def test_a_new_anchor_uses_new_ids() -> None:
    old, new = timeline([0], 20.0), timeline([0], 20.0, ANCHOR + 1)
    assert old.first_id + old.count((ANCHOR + 1) * 1_000_000) <= new.first_id


def test_a_speed_that_would_use_up_the_ids_is_refused() -> None:
    with pytest.raises(ValueError, match="too fast"):
        Timeline("BTC-USD", [TapeTrade(0, "1", "1", "buy")] * IDS_PER_ANCHOR_SECOND, 1_000_000, ANCHOR, 1.0)


def test_heartbeats_name_the_last_trade_sent() -> None:
    line = timeline([0, 5_000_000], 1.0)
    message = line.heartbeat(2, ANCHOR_US + 6_500_000)
    assert message["last_trade_id"] == line.first_id + 1
    assert message["time"] == iso_time(ANCHOR_US + 6_000_000)
    assert isinstance(message["sequence"], int)
    assert line.trade(1).sequence < message["sequence"] < line.trade(2).sequence


def test_volume_is_the_sum_of_the_window() -> None:
    line = timeline([0, 5_000_000], 1.0)
    assert Decimal(line.volume(ANCHOR_US + 25_000_000, window_us=10_000_000)) == Decimal("1.0")
    assert Decimal(line.volume(ANCHOR_US + 25_000_000)) == Decimal("3.0")


def test_the_generator_depends_on_its_seed_alone() -> None:
    one, same, other = generate(1, 60, SYMBOLS), generate(1, 60, SYMBOLS), generate(2, 60, SYMBOLS)
    assert one == same
    assert one != other
    assert generate(1, 60, ["ETH-USD"]).products["ETH-USD"] == one.products["ETH-USD"]


def test_generated_trades_are_plausible() -> None:
    tape = generate(7, 600, SYMBOLS)
    assert set(tape.products) == set(SYMBOLS)
    for product, trades in tape.products.items():
        times = [trade.offset_us for trade in trades]
        assert times == sorted(times)
        assert times[-1] < tape.duration_us
        assert all(float(trade.price) > 0 and float(trade.size) > 0 for trade in trades)
        assert any(a // 1_000 == b // 1_000 for a, b in pairwise(times)), product
        prices = [float(trade.price) for trade in trades]
        assert max(prices) / min(prices) < 1.2
        # The walk ends where it began, or each loop would show a jump.
        assert prices[-1] == pytest.approx(prices[0], rel=0.02)
    assert 1_000 < len(tape.products["BTC-USD"]) < 6_000
