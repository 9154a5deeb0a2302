"""What the supervisor does next, as a function of what it sees: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crypto_flink.rest import Job
from crypto_flink.state import RestorePoint, State

EXIT_CONFIG = 2
EXIT_CHECKPOINT = 3
EXIT_DUPLICATE = 4

TOPIC_CHANGED = "belongs to another topic"
# What Kafka's client says when the topic has been cut off, or made anew, behind the job's offsets.
_EVENTS_GONE = ("OffsetOutOfRangeException", "NoOffsetForPartitionException")
# What Flink says when state cannot be read, found or mapped to the job.
_RESTORE_FAILURES = (
    TOPIC_CHANGED,
    *_EVENTS_GONE,
    "tryRestoreExecutionGraphFromSavepoint",
    "Failed to rollback to checkpoint/savepoint",
    "Cannot map checkpoint/savepoint state",
    "StateMigrationException",
    "Could not restore keyed state backend",
    "Could not restore operator state backend",
    "Exception while creating StreamOperatorStateContext",
    "Cannot find checkpoint or savepoint file/directory",
    "Could not load checkpoint/savepoint",
)


@dataclass(frozen=True)
class Wait:
    """Do nothing now."""

    reason: str


@dataclass(frozen=True)
class Fail:
    """Give up: a person has to decide."""

    reason: str
    exit_code: int


@dataclass(frozen=True)
class Adopt:
    """Remember a job that somebody else started."""

    job: Job


@dataclass(frozen=True)
class Watch:
    """All is as it should be."""

    job: Job


@dataclass(frozen=True)
class Replace:
    """Stop the job with a savepoint, so that it can be resumed with a new definition."""

    job: Job
    reason: str


@dataclass(frozen=True)
class Stop:
    """Stop the job with a savepoint, since it should not run."""

    job: Job
    reason: str


@dataclass(frozen=True)
class Submit:
    """Give the job to the cluster."""

    restore: RestorePoint | None
    reason: str


Action = Wait | Fail | Adopt | Watch | Replace | Stop | Submit


def is_restore_failure(failure: str) -> bool:
    """Tell whether a stack trace says that the job could not take its state back, or not go on from it."""
    return any(sign in failure for sign in _RESTORE_FAILURES)


def is_data_loss(failure: str) -> bool:
    """Tell whether a stack trace says that Kafka no longer has what the job wants to read."""
    return any(sign in failure for sign in _EVENTS_GONE)


def decide(
    jobs: Sequence[Job],
    free_slots: int,
    state: State,
    restore: RestorePoint | None,
    *,
    fingerprint: str,
    parallelism: int,
    start_fresh: bool = False,
    last_failure: str = "",
) -> Action:
    """Return the next action.

    Args:
        jobs: the cluster's jobs of this name, newest first, finished ones included
        free_slots: task slots that no job holds
        state: what the supervisor remembers
        restore: the youngest complete checkpoint or savepoint
        fingerprint: of the definition that should run
        parallelism: slots that the job needs
        start_fresh: whether the job may start without its state when that cannot be used
        last_failure: stack trace of the last failure of the last submission
    """
    active = [job for job in jobs if not job.is_terminal]
    if len(active) > 1:
        listed = ", ".join(f"{job.job_id} ({job.state})" for job in active)
        return Fail(
            f"{len(active)} jobs named {active[0].name} run at once: {listed}. None was cancelled, since which one is"
            " right cannot be told from here; cancel all but one and start the supervisor again",
            EXIT_DUPLICATE,
        )
    if state.desired == "stopped":
        if active:
            return _decide_unwanted(active[0])
        return Wait("stopped on request; start the supervisor again to resume")
    if active:
        return _decide_active(active[0], state, fingerprint)
    return _decide_absent(jobs, free_slots, state, restore, parallelism, start_fresh, last_failure)


def _decide_unwanted(job: Job) -> Action:
    # Somebody submitted it after the request, or the one who was to stop it has died.
    if job.is_up or job.state == "RESTARTING":
        return Stop(job, "it runs although a stop was requested")
    return Wait(f"job {job.job_id} is {job.state}; it will be stopped, as requested, once it runs")


def _decide_active(job: Job, state: State, fingerprint: str) -> Action:
    known = state.submission(job.job_id)
    if known is None:
        return Adopt(job)
    # A job on its way up or down is left alone until it has arrived.
    if known.fingerprint not in {None, fingerprint} and job.state in {"RUNNING", "RESTARTING"}:
        return Replace(job, f"its definition has changed ({known.fingerprint} -> {fingerprint})")
    return Watch(job)


def _decide_absent(
    jobs: Sequence[Job],
    free_slots: int,
    state: State,
    restore: RestorePoint | None,
    parallelism: int,
    start_fresh: bool,
    last_failure: str,
) -> Action:
    last = state.submissions[-1] if state.submissions else None
    if last is not None and last.restored_from is not None and is_restore_failure(last_failure):
        if not start_fresh:
            return Fail(
                f"job {last.job_id} could not resume from {last.restored_from}: it was not started anew, because"
                " that would lose open candles. Bring back what this checkpoint was made with, or set"
                ' flink.on_incompatible_checkpoint = "start_fresh" to read the topic again from'
                f" kafka.starting_offsets. Cause: {_cause(last_failure)}",
                EXIT_CHECKPOINT,
            )
        restore = None
    elif restore is None and state.last_checkpoint is not None and not start_fresh:
        return Fail(
            f"checkpoint {state.last_checkpoint} was complete and is gone, and no younger one is there: is the shared"
            ' directory mounted? To give the state up, set flink.on_incompatible_checkpoint = "start_fresh"',
            EXIT_CHECKPOINT,
        )
    if free_slots < parallelism:
        return Wait(f"the job needs {parallelism} task slots, {free_slots} are free")
    return Submit(restore, _reason(jobs, state))


def _reason(jobs: Sequence[Job], state: State) -> str:
    if not state.submissions:
        return f"job {jobs[0].job_id} is {jobs[0].state}" if jobs else "first start"
    last = state.submissions[-1].job_id
    found = next((job for job in jobs if job.job_id == last), None)
    return f"job {last} is {found.state}" if found else f"the cluster does not know job {last}"


def _cause(failure: str) -> str:
    lines = [line.strip() for line in failure.strip().splitlines()]
    causes = [line for line in lines if line.startswith("Caused by:")]
    signs = [line for line in lines if is_data_loss(line) or TOPIC_CHANGED in line]
    return signs[0] if signs else (causes or lines[:1])[-1]
