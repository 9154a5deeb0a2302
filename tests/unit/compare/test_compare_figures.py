"""Histograms, rows, accounts, statistics and the search for the sustainable rate: each against known answers."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest
from compare import stats, sustain
from compare.account import TopicFacts, account, topic_complaints
from compare.hist import HIGHEST_US, Latencies
from compare.identity import event_id
from compare.load import Schedule, Steady
from compare.rows import EPOCH_2000_US, NO_TIME, Rows, copy_statement, join, parse_copy, series
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

T0 = 1_790_000_000_000_000

# Histograms


def filled(values: list[int]) -> Latencies:
    made = Latencies()
    made.record(np.array(values, np.int64))
    return made


def test_percentiles_of_known_values() -> None:
    found = filled([index * 1000 for index in range(1, 1001)])
    assert found.at_ms(50) == pytest.approx(500, rel=0.002)
    assert found.at_ms(99) == pytest.approx(990, rel=0.002)
    assert found.summary()["max_ms"] == pytest.approx(1000, rel=0.002)


def test_negative_latencies_are_counted_and_not_dropped() -> None:
    found = filled([-5, -1, 10, 20])
    assert (found.negative, len(found)) == (2, 4)
    assert found.summary()["negative"] == 2


def test_an_empty_histogram_has_no_percentile() -> None:
    assert Latencies().summary()["p99_ms"] is None
    assert Latencies().curve() == []


@settings(deadline=None)
@given(st.lists(st.integers(-10, 10_000_000)), st.lists(st.integers(-10, 10_000_000)))
def test_merged_histograms_are_those_of_all_values(one: list[int], other: list[int]) -> None:
    merged = filled(one)
    merged.merge(filled(other))
    assert merged.summary() == filled(one + other).summary()


@settings(deadline=None)
@given(st.lists(st.integers(-10, 5_000_000_000)))
def test_a_histogram_survives_its_file(values: list[int]) -> None:
    found = filled(values)
    assert Latencies.from_json(found.to_json()).summary() == found.summary()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, HIGHEST_US), max_size=20))
def test_many_values_are_recorded_as_one_by_one(values: list[int]) -> None:
    one_by_one = Latencies()
    one_by_one.record_counts((value, 1) for value in values)
    assert filled(values).curve() == one_by_one.curve()


def test_counts_are_recorded_as_values_are() -> None:
    made = Latencies()
    made.record_counts([(-3, 2), (100, 5), (4_000_000_000, 1)])
    assert (len(made), made.negative, made.overflow) == (8, 2, 1)


def test_curve_ends_with_all_values() -> None:
    curve = filled([1000, 2000, 3000, 4000]).curve()
    assert [round(fraction, 2) for _, fraction in curve] == [0.25, 0.5, 0.75, 1.0]


# Rows


def wire(rows: list[tuple[int, int, int, int]]) -> bytes:
    """A binary COPY of rows (tag, index, produced_us, commit_us), as PostgreSQL writes it."""
    made = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
    for tag, index, produced, commit in rows:
        stamp = commit if commit == NO_TIME else commit - EPOCH_2000_US
        made += struct.pack(">hi", 5, 16) + event_id(tag, index, produced).bytes
        made += struct.pack(">iqiqiiiq", 8, produced, 8, stamp, 4, 1, 8, 77)
    return made + b"\xff\xff"


@pytest.mark.parametrize("size", [1, 7, 66, 67, 10_000])
def test_copy_is_read_in_blocks_of_any_size(size: int) -> None:
    stream = wire([(9, index, T0 + index, T0 + index + 500) for index in range(40)] + [(8, 1, T0, T0)])
    rows = parse_copy((stream[at : at + size] for at in range(0, len(stream), size)), 9)
    assert rows.index.tolist() == list(range(40))
    assert rows.latency_us.tolist() == [500] * 40
    assert rows.foreign == 1


def test_row_without_commit_time_has_no_latency_and_is_known() -> None:
    rows = parse_copy([wire([(9, 0, T0, NO_TIME), (9, 1, T0, T0 + 3)])], 9)
    assert rows.commit_us.tolist() == [NO_TIME, T0 + 3]
    assert rows.latency_us.tolist() == [3]


def test_a_cut_off_stream_is_no_result() -> None:
    stream = wire([(9, index, T0, T0) for index in range(10)])
    for cut in (5, 19, 100, len(stream) - 2, len(stream) - 1):
        with pytest.raises(ValueError, match="connection was lost"):
            parse_copy([stream[:cut]], 9)
    with pytest.raises(ValueError, match="no binary COPY"):
        parse_copy([b"psql: error: connection refused ....."], 9)


def test_an_empty_table_is_read() -> None:
    assert len(parse_copy([wire([])], 9)) == 0


def test_both_engines_are_read_by_the_same_statement() -> None:
    spark, flink = (copy_statement(table) for table in ("crypto_prices_realtime", "crypto_prices_flink"))
    assert spark.replace("crypto_prices_realtime", "T") == flink.replace("crypto_prices_flink", "T")
    assert "pg_xact_commit_timestamp(xmin)" in spark


def rows_of(latency_us: list[int], gap_us: int = 1000, first: int = 0) -> Rows:
    index = np.arange(first, first + len(latency_us), dtype=np.int64)
    produced = T0 + index * gap_us
    return Rows(index, produced, produced + np.array(latency_us, np.int64))


def test_series_counts_each_second() -> None:
    schedule = Schedule(Steady(rate_per_s=1000, duration_s=3).pieces())
    # Every row half a second after its event.
    found = series(rows_of([500_000] * 3000), schedule, T0)
    assert found.intended.tolist() == [1000, 1000, 1000, 0]
    assert found.committed.tolist() == [500, 1000, 1000, 500]
    assert found.lag.tolist() == [500, 500, 500, 0]
    assert found.p99_ms[1] == pytest.approx(500)
    assert [second["second"] for second in found] == [0, 1, 2, 3]


def test_series_of_a_dead_engine_shows_its_lag() -> None:
    schedule = Schedule(Steady(rate_per_s=100, duration_s=2).pieces())
    found = series(rows_of([]), schedule, T0)
    assert found.lag.tolist() == [100, 200]
    assert list(found)[1]["p99_ms"] is None


def test_ranges_of_events_are_joined_and_cut() -> None:
    rows = join([rows_of([1, 2]), rows_of([3, 4], first=2)])
    assert rows.between(1, 3).latency_us.tolist() == [2, 3]


# The account


def account_of(rows: Rows, events: int = 10, **more: object) -> object:
    defaults: dict[str, object] = {
        "unacknowledged": (), "topic": TopicFacts(events), "rejected": [], "late_after_us": 1_000_000,
    }  # fmt: skip
    return account(events, rows=rows, **(defaults | more))  # type: ignore[arg-type]


def test_all_delivered() -> None:
    found = account_of(rows_of([5] * 10))
    assert (found.delivered, found.ok, found.complaints("spark")) == (10, True, [])


def test_deleted_rows_are_lost_and_red() -> None:
    rows = rows_of([5] * 10)
    kept = Rows(*(np.delete(part, [3, 7]) for part in (rows.index, rows.produced_us, rows.commit_us)))
    found = account_of(kept)
    assert (found.delivered, found.lost, found.lost_examples) == (8, 2, [3, 7])
    assert not found.ok
    assert found.complaints("spark") == [
        "spark: 2 events are in the topic and not in the table (for example number 3, 7)"
    ]


def test_late_is_told_and_is_no_loss() -> None:
    found = account_of(rows_of([5] * 9 + [1_000_001]))
    assert (found.delivered, found.late, found.lost, found.ok) == (9, 1, 0, True)


def test_unsent_is_the_generators() -> None:
    found = account_of(rows_of([5] * 8), unacknowledged=[(8, 10)], topic=TopicFacts(8, missing=[(8, 10)]))
    assert (found.delivered, found.unsent, found.lost, found.ok) == (8, 2, 0, True)


def test_unacknowledged_and_yet_in_the_topic_has_to_arrive() -> None:
    found = account_of(rows_of([5] * 9), unacknowledged=[(9, 10)])
    assert (found.lost, found.ok) == (1, False)


def test_acknowledged_and_not_in_the_topic_is_a_loss() -> None:
    topic = TopicFacts(9, missing=[(9, 10)])
    found = account_of(rows_of([5] * 9), topic=topic)
    assert (found.lost, found.ok) == (1, False)
    assert topic_complaints(topic, ()) == ["topic: 1 events were acknowledged and are not there"]
    assert topic_complaints(topic, [(9, 10)]) == []


def test_malformed_events_have_to_be_rejected() -> None:
    rows = rows_of([5] * 10)
    good = Rows(*(np.delete(part, [4, 9]) for part in (rows.index, rows.produced_us, rows.commit_us)))
    found = account_of(good, rejected=[4, 9], malformed_every=5)
    assert (found.delivered, found.rejected, found.ok) == (8, 2, True)
    # One of them in silence dropped, a good one rejected, one stored.
    found = account_of(rows, rejected=[0], malformed_every=5)
    assert (found.lost, found.wrongly_rejected, found.wrongly_stored, found.ok) == (2, 1, 2, False)


def test_doubled_foreign_and_timeless_rows_are_red() -> None:
    doubled = join([rows_of([5] * 10), rows_of([7], first=2)])
    assert (account_of(doubled).duplicated, account_of(doubled).ok) == (1, False)
    rows = rows_of([5] * 10)
    foreign = Rows(rows.index, rows.produced_us, rows.commit_us, foreign=3)
    assert (account_of(foreign).foreign, account_of(foreign).ok) == (3, False)
    assert account_of(rows, rejected=[-1]).foreign == 1
    rows.commit_us[0] = NO_TIME
    assert (account_of(rows).without_commit_time, account_of(rows).ok) == (1, False)


def test_topic_with_doubles_and_strangers_is_red() -> None:
    assert topic_complaints(TopicFacts(12, duplicated=[(1, 3)], foreign=4), ()) == [
        "topic: 2 events are there more than once", "topic: 4 messages are of no event of this run",
    ]  # fmt: skip


@settings(deadline=None)
@given(
    hnp.arrays(np.bool_, 40), hnp.arrays(np.bool_, 40), hnp.arrays(np.bool_, 40), hnp.arrays(np.bool_, 40),
    st.sampled_from([0, 3, 7]),
)  # fmt: skip
def test_every_event_is_in_exactly_one_class(
    missing: np.ndarray, unacknowledged: np.ndarray, stored: np.ndarray, rejected: np.ndarray, malformed: int
) -> None:
    def spans(found: np.ndarray) -> list[tuple[int, int]]:
        return [(int(index), int(index) + 1) for index in np.flatnonzero(found)]

    index = np.flatnonzero(stored & ~missing).astype(np.int64)
    rows = Rows(index, T0 + index, T0 + index + index * 50_000)
    found = account(
        40, unacknowledged=spans(unacknowledged), topic=TopicFacts(0, missing=spans(missing)), rows=rows,
        rejected=[int(number) for number in np.flatnonzero(rejected & ~missing)], malformed_every=malformed,
        late_after_us=1_000_000,
    )  # fmt: skip
    # A malformed event that was stored and rejected is mistaken, and still rejected.
    assert found.delivered + found.late + found.lost + found.rejected + found.unsent == 40


# Statistics


def test_interval_holds_the_median_and_is_repeatable() -> None:
    found = stats.estimate([10.0, 11, 12, 13, 50])
    assert found is not None
    assert found.median == 12
    assert found.low <= 12 <= found.high <= 50
    assert found.publishable
    assert stats.estimate([10.0, 11, 12, 13, 50]) == found
    assert stats.estimate([]) is None
    one = stats.estimate([7.0])
    assert one is not None
    assert (one.low, one.high, one.publishable) == (7, 7, False)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        found = stats.estimate(list(random.normal(100, 10, 15)))
        assert found is not None
        hits += found.low <= 100 <= found.high
    assert hits >= 85


def test_a_real_difference_and_noise() -> None:
    random = np.random.default_rng(3)
    a, b, c = (list(random.normal(mean, 2, 8)) for mean in (100, 130, 100))
    assert stats.difference(a, b).verdict == "real"
    assert stats.difference(a, b).ratio == pytest.approx(1.3, abs=0.05)
    assert stats.difference(a, c).verdict == "noise"
    assert stats.difference(a[:3], b[:3]).verdict == "too few runs"


def test_a_difference_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="both sides"):
        stats.difference([], [1.0])
    with pytest.raises(ValueError, match="positive"):
        stats.difference([0.0], [1.0])


# The sustainable rate, on simulated systems


def lag_of_queue(rate: float, capacity: float, cycle_s: int, seconds: int, noise: float = 0.0) -> list[float]:
    """Lag second by second of an engine that commits once a cycle all that it could read by then."""
    random = np.random.default_rng(int(rate))
    arrived = done = 0.0
    found = []
    for second in range(seconds):
        arrived += rate
        if (second + 1) % cycle_s == 0:
            done = min(arrived, done + capacity * cycle_s)
        found.append(max(0.0, arrived - done + noise * rate * random.normal()))
    return found


def prober(capacity: float, cycle_s: int = 1, noise: float = 0.0) -> Iterator[None]:
    def probe(rate: float) -> sustain.Judgement:
        lag = lag_of_queue(rate, capacity, cycle_s, max(20, cycle_s * 5), noise)
        # As in a real engine, p99 alone does not tell: it stays low for a while.
        return sustain.judge(rate, lag, 10.0, bound_ms=1000, cycle_s=cycle_s)

    return probe  # type: ignore[return-value]


@pytest.mark.parametrize("capacity", [300, 4_000, 23_456, 150_000])
@pytest.mark.parametrize(("cycle_s", "noise"), [(1, 0.0), (1, 0.01), (15, 0.0)])
def test_search_finds_a_known_capacity(capacity: float, cycle_s: int, noise: float) -> None:
    found = sustain.search(
        prober(capacity, cycle_s, noise), start_per_s=1000, max_per_s=1_000_000, max_probes=20  # type: ignore[arg-type]
    )  # fmt: skip
    assert found.sustained_per_s is not None
    # To the resolution of 10 %, and the 2 % of growth that are allowed.
    assert capacity / 1.12 <= found.sustained_per_s <= capacity * 1.03
    assert found.failed_per_s is not None
    assert found.failed_per_s > found.sustained_per_s


def test_search_ends_at_the_highest_rate_that_is_offered() -> None:
    found = sustain.search(prober(1e9), start_per_s=1000, max_per_s=10_000)  # type: ignore[arg-type]
    assert (found.sustained_per_s, found.failed_per_s) == (10_000, None)


def test_search_that_finds_nothing_says_so() -> None:
    found = sustain.search(prober(1), start_per_s=1000, max_per_s=10_000)  # type: ignore[arg-type]
    assert found.sustained_per_s is None
    assert found.failed_per_s is not None


def test_p99_bounds_the_rate_where_the_lag_does_not() -> None:
    def probe(rate: float) -> sustain.Judgement:
        return sustain.judge(rate, [rate] * 10, rate / 100, bound_ms=50)

    found = sustain.search(probe, start_per_s=1000, max_per_s=100_000)
    assert found.sustained_per_s is not None
    assert 5000 / 1.11 <= found.sustained_per_s <= 5000


def test_saw_teeth_of_batches_are_no_growth() -> None:
    steady = lag_of_queue(1000, 2000, 15, 90)
    assert sustain.growth_per_s(steady, 15) == pytest.approx(0)
    with pytest.raises(ValueError, match="measure for longer"):
        sustain.growth_per_s(steady[:30], 15)


def test_no_rows_are_not_sustained() -> None:
    found = sustain.judge(100, [0] * 10, None, bound_ms=50)
    assert (found.sustained, found.reason) == (False, "no row was committed")
