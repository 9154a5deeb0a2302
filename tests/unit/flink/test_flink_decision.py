from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from crypto_flink.decision import (
    EXIT_CHECKPOINT,
    EXIT_DUPLICATE,
    Adopt,
    Fail,
    Replace,
    Stop,
    Submit,
    Wait,
    Watch,
    decide,
    is_restore_failure,
)
from crypto_flink.rest import TERMINAL_STATES, Job
from crypto_flink.state import RestorePoint, State, Submission
from hypothesis import given
from hypothesis import strategies as st

ALL_STATES = (
    "INITIALIZING", "CREATED", "RUNNING", "FAILING", "FAILED", "CANCELLING", "CANCELED", "FINISHED", "RESTARTING",
    "SUSPENDED", "RECONCILING",
)  # fmt: skip
POINT = RestorePoint(Path("/state/a/chk-7"), 1)
ROLLBACK = "JobInitializationException\nCaused by: Failed to rollback to checkpoint/savepoint file:/state/a/chk-7"


def job(job_id: str = "a", state: str = "RUNNING", running: int = 3) -> Job:
    return Job(job_id, "j", state, 0, 3, running)


def remembered(*job_ids: str, restored: str | None = None, **changes: str) -> State:
    submissions = tuple(
        Submission(job_id=job_id, submitted_at_ms=0, fingerprint="now", restored_from=restored, reason="")
        for job_id in job_ids
    )
    return State(job_name="j", submissions=submissions).model_copy(update=changes)


def next_action(jobs: list[Job], state: State, **changes: object) -> object:
    arguments: dict[str, Any] = {
        "free_slots": 3, "restore": None, "fingerprint": "now", "parallelism": 3, **changes,
    }  # fmt: skip
    return decide(jobs, arguments.pop("free_slots"), state, arguments.pop("restore"), **arguments)


def test_the_first_start_begins_at_the_offsets() -> None:
    assert next_action([], remembered()) == Submit(None, "first start")


def test_a_running_job_is_watched() -> None:
    assert next_action([job()], remembered("a")) == Watch(job())


@pytest.mark.parametrize("state", sorted(set(ALL_STATES) - TERMINAL_STATES))
def test_a_job_that_may_run_again_is_never_doubled(state: str) -> None:
    assert next_action([job(state=state)], remembered("a")) == Watch(job(state=state))


@pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
def test_a_job_that_ended_is_resumed(state: str) -> None:
    assert next_action([job(state=state)], remembered("a"), restore=POINT) == Submit(POINT, f"job a is {state}")


def test_a_job_that_the_cluster_forgot_is_resumed() -> None:
    assert next_action([], remembered("a"), restore=POINT) == Submit(POINT, "the cluster does not know job a")


def test_a_job_without_slots_waits() -> None:
    assert next_action([], remembered("a"), restore=POINT, free_slots=2) == Wait(
        "the job needs 3 task slots, 2 are free"
    )


def test_two_jobs_are_left_alone_and_reported() -> None:
    action = next_action([job("a"), job("b", "RESTARTING")], remembered("a"))
    assert isinstance(action, Fail)
    assert action.exit_code == EXIT_DUPLICATE
    assert "a (RUNNING), b (RESTARTING)" in action.reason


def test_a_strangers_job_is_adopted_and_not_replaced() -> None:
    assert next_action([job("x")], remembered("a")) == Adopt(job("x"))
    adopted = remembered("a").with_submission(
        Submission(job_id="x", submitted_at_ms=0, fingerprint=None, restored_from=None, reason="")
    )
    assert next_action([job("x")], adopted) == Watch(job("x"))


def test_a_changed_definition_replaces_the_job() -> None:
    action = next_action([job()], remembered("a"), fingerprint="next")
    assert isinstance(action, Replace)
    assert action.job == job()


@pytest.mark.parametrize("state", ["INITIALIZING", "CREATED", "FAILING", "CANCELLING", "RECONCILING"])
def test_a_job_on_its_way_is_not_replaced_yet(state: str) -> None:
    assert next_action([job(state=state)], remembered("a"), fingerprint="next") == Watch(job(state=state))


def test_a_stop_on_request_stays() -> None:
    stopped = remembered("a", desired="stopped")
    for jobs in ([], [job(state="FINISHED")]):
        assert isinstance(next_action(jobs, stopped, restore=POINT), Wait)


@pytest.mark.parametrize("known", ["a", "another"])
@pytest.mark.parametrize("fingerprint", ["now", "next"])
def test_a_job_that_runs_after_a_stop_on_request_is_stopped(known: str, fingerprint: str) -> None:
    stopped = remembered(known, desired="stopped")
    for unwanted in (job(), job(state="RESTARTING", running=0)):
        action = next_action([unwanted], stopped, restore=POINT, fingerprint=fingerprint)
        assert isinstance(action, Stop)
        assert action.job == unwanted
    # Only a job that is up can write a savepoint.
    for unwanted in (job(running=2), job(state="INITIALIZING"), job(state="CANCELLING")):
        assert isinstance(next_action([unwanted], stopped, restore=POINT), Wait)


def test_an_unusable_checkpoint_is_no_start_from_scratch() -> None:
    state = remembered("a", restored="file:/state/a/chk-7")
    failed = [job(state="FAILED", running=0)]
    action = next_action(failed, state, restore=POINT, last_failure=ROLLBACK)
    assert isinstance(action, Fail)
    assert action.exit_code == EXIT_CHECKPOINT
    assert "Failed to rollback" in action.reason
    assert "start_fresh" in action.reason
    allowed = next_action(failed, state, restore=POINT, last_failure=ROLLBACK, start_fresh=True)
    assert allowed == Submit(None, "job a is FAILED")


@pytest.mark.parametrize(
    "cause",
    [
        "file:/state/a/chk-7 belongs to another topic: to one with id x, while t has id y",
        "Caused by: x.OffsetOutOfRangeException: Fetch position FetchPosition{offset=7} is out of range for t-0",
    ],
)
def test_skipped_events_are_no_detail(cause: str) -> None:
    state = remembered("a", restored="file:/state/a/chk-7")
    failure = f"Picked up JAVA_TOOL_OPTIONS: -Xmx1g\n{cause}\nCaused by: something further down"
    action = next_action([], state, restore=POINT, last_failure=failure)
    assert isinstance(action, Fail)
    assert action.exit_code == EXIT_CHECKPOINT
    assert action.reason.endswith(cause)
    assert "start_fresh" in action.reason
    assert isinstance(next_action([], state, restore=POINT, last_failure=failure, start_fresh=True), Submit)


def test_another_failure_is_tried_again_with_its_state() -> None:
    state = remembered("a", restored="file:/state/a/chk-7")
    failed = [job(state="FAILED", running=0)]
    assert next_action(failed, state, restore=POINT, last_failure="OutOfMemoryError") == Submit(
        POINT, "job a is FAILED"
    )


def test_a_checkpoint_that_vanished_is_no_start_from_scratch() -> None:
    state = remembered("a", last_checkpoint="file:/state/a/chk-7")
    action = next_action([], state)
    assert isinstance(action, Fail)
    assert action.exit_code == EXIT_CHECKPOINT
    assert "mounted" in action.reason
    assert isinstance(next_action([], state, start_fresh=True), Submit)


@pytest.mark.parametrize(
    "failure",
    [
        ROLLBACK,
        "java.lang.IllegalStateException: ... Cannot map checkpoint/savepoint state for operator x to the new program",
        "Unexpected magic number\n\tat DefaultExecutionGraphFactory.tryRestoreExecutionGraphFromSavepoint(D.java:217)",
        "Caused by: org.apache.flink.util.StateMigrationException: The new key serializer must be compatible.",
        "file:/state/a/chk-7 belongs to another topic: to one with id x, while t has id y",
        "Caused by: org.apache.kafka.clients.consumer.OffsetOutOfRangeException: Fetch position 7 is out of range",
    ],
)
def test_restore_failures_are_known(failure: str) -> None:
    assert is_restore_failure(failure)
    assert not is_restore_failure("Writing records to JDBC failed.")


JOBS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(ALL_STATES)), max_size=3, unique_by=lambda pair: pair[0]
)


@given(
    JOBS, st.lists(st.sampled_from("abc"), max_size=3, unique=True), st.integers(0, 5), st.booleans(), st.booleans(),
    st.sampled_from(["running", "stopped"]), st.sampled_from(["now", "next"]), st.sampled_from(["", ROLLBACK]),
)  # fmt: skip
def test_no_view_of_the_world_makes_a_second_job(
    listed: list[tuple[str, str]],
    known: list[str],
    free_slots: int,
    has_point: bool,
    start_fresh: bool,
    desired: str,
    fingerprint: str,
    failure: str,
) -> None:
    jobs = [job(job_id, state) for job_id, state in listed]
    action = next_action(
        jobs, remembered(*known, restored="x", desired=desired), free_slots=free_slots,
        restore=POINT if has_point else None, start_fresh=start_fresh, fingerprint=fingerprint, last_failure=failure,
    )  # fmt: skip
    active = [entry for entry in jobs if not entry.is_terminal]
    if isinstance(action, Submit):
        assert not active
        assert free_slots >= 3
        assert desired == "running"
        if has_point and action.restore is None:
            assert start_fresh
    if len(active) > 1:
        assert isinstance(action, Fail)
