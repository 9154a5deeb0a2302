"""The open-loop schedule: every event has its time, whatever the shape of the load."""

from __future__ import annotations

import pytest
from compare.identity import MAX_TAG, decode, event_id, ranges
from compare.load import Burst, GeneratorSpec, Piece, Ramp, Schedule, Steady, is_malformed
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError


def test_steady_event_i_is_intended_at_i_over_rate() -> None:
    schedule = Schedule(Steady(rate_per_s=1000, duration_s=2).pieces())
    assert schedule.count == 2000
    assert [schedule.offset_us(index) for index in (0, 1, 2, 1999)] == [0, 1000, 2000, 1_999_000]


def test_rate_that_is_no_divisor_of_a_second_does_not_drift() -> None:
    schedule = Schedule(Steady(rate_per_s=3, duration_s=1000).pieces())
    assert schedule.count == 3000
    assert schedule.offset_us(2997) == 999_000_000


def test_ramp_reaches_its_rates() -> None:
    schedule = Schedule(Ramp(from_per_s=100, to_per_s=300, duration_s=10).pieces())
    assert schedule.count == 2000
    # After half the time: 5 s at 100 on average 150.
    assert schedule.due(5_000_000) == 751
    first, last = (schedule.offset_us(index + 1) - schedule.offset_us(index) for index in (0, 1998))
    assert first == pytest.approx(10_000, rel=0.02)
    assert last == pytest.approx(1e6 / 300, rel=0.02)


def test_single_burst() -> None:
    load = Burst(base_per_s=10, burst_per_s=100, first_s=2, burst_s=1, duration_s=5)
    assert load.pieces() == [Piece(2, 10, 10), Piece(1, 100, 100), Piece(2, 10, 10)]
    assert Schedule(load.pieces()).count == 140


def test_periodic_bursts_end_with_the_base_rate() -> None:
    load = Burst(base_per_s=10, burst_per_s=100, first_s=1, burst_s=1, period_s=3, duration_s=9)
    assert [(piece.duration_s, piece.from_per_s) for piece in load.pieces()] == [
        (1, 10), (1, 100), (2, 10), (1, 100), (2, 10), (1, 100), (1, 10),
    ]  # fmt: skip
    assert sum(piece.duration_s for piece in load.pieces()) == 9


def test_burst_that_is_cut_off_is_refused() -> None:
    with pytest.raises(ValidationError, match="cut off"):
        Burst(base_per_s=1, burst_per_s=2, first_s=5, burst_s=6, duration_s=10)
    with pytest.raises(ValidationError, match="no base rate between"):
        Burst(base_per_s=1, burst_per_s=2, first_s=1, burst_s=2, period_s=2, duration_s=10)


pieces = st.lists(
    st.builds(Piece, st.floats(0.1, 20), st.floats(0.5, 500), st.floats(0.5, 500)), min_size=1, max_size=4
)


@settings(deadline=None)
@given(pieces)
def test_due_and_offset_are_inverse(found: list[Piece]) -> None:
    schedule = Schedule(found)
    offsets = [schedule.offset_us(index) for index in range(schedule.count)]
    assert offsets == sorted(offsets)
    assert offsets[0] == 0
    assert offsets[-1] <= schedule.duration_us
    for index in range(0, schedule.count, max(1, schedule.count // 50)):
        # Microseconds are whole: an event is due at the latest in the one after its own.
        assert schedule.due(offsets[index] + 2) >= index + 1
        if offsets[index] > 2:
            assert schedule.due(offsets[index] - 2) <= index + 1
    assert schedule.due(schedule.duration_us + 1) == schedule.count


@settings(deadline=None)
@given(pieces, st.data())
def test_many_offsets_are_those_of_one_by_one(found: list[Piece], data: st.DataObject) -> None:
    schedule = Schedule(found)
    first = data.draw(st.integers(0, schedule.count - 1))
    end = data.draw(st.integers(first + 1, schedule.count))
    one_by_one = [schedule.offset_us(index) for index in range(first, end)]
    assert all(abs(one - other) <= 1 for one, other in zip(schedule.offsets_us(first, end), one_by_one, strict=True))


@settings(deadline=None)
@given(st.integers(0, MAX_TAG), st.integers(0, 2**48 - 1), st.integers(0, 2**47))
def test_identity_tells_run_and_index(tag: int, index: int, intended_us: int) -> None:
    made = event_id(tag, index, intended_us)
    assert made.version == 7
    assert decode(str(made)) == (tag, index)
    assert made.int >> 80 == intended_us // 1000


def test_identity_of_others_is_refused() -> None:
    with pytest.raises(ValueError, match="no UUIDv7"):
        decode("5f0c8a0e-3c3f-5f0e-9d7b-6d1f0b6f3a11")
    with pytest.raises(ValueError, match="26 bits"):
        event_id(MAX_TAG + 1, 0, 0)


def test_neighbours_are_written_as_ranges() -> None:
    assert ranges([0, 1, 2, 7, 9, 10]) == [(0, 3), (7, 8), (9, 11)]


def test_malformed_events_are_every_nth() -> None:
    assert [index for index in range(10) if is_malformed(index, 4)] == [3, 7]
    assert not any(is_malformed(index, 0) for index in range(10))


def test_spec_of_the_generator_survives_json() -> None:
    spec = GeneratorSpec(tag=7, load=Burst(base_per_s=1, burst_per_s=2, first_s=1, burst_s=1, duration_s=3))
    assert GeneratorSpec.model_validate_json(spec.model_dump_json()) == spec
