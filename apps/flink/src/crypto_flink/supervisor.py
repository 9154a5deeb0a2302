"""Keeps the job running: looks for it by name, and submits it again from its newest complete checkpoint.

The job is never given to the cluster twice. The supervisor holds a lock in the shared directory, which the submitting
process inherits; it draws the job id itself and writes it down first; and it submits only when the JobManager answers
and lists no job of that name that might still run. A second lock lets only one process at a time submit or stop the
job, so that a `stop` cannot pass by a submission that is under way.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from crypto_flink.config import Config, ConfigError, load_config
from crypto_flink.decision import (
    EXIT_CONFIG,
    Action,
    Adopt,
    Fail,
    Replace,
    Stop,
    Submit,
    Wait,
    Watch,
    decide,
    is_data_loss,
    is_restore_failure,
)
from crypto_flink.fingerprint import fingerprint
from crypto_flink.job import client_environment
from crypto_flink.metrics import Metrics
from crypto_flink.notify import notify
from crypto_flink.rest import ClusterRefusedError, ClusterUnavailableError, FlinkRest, Job
from crypto_flink.state import RestorePoint, State, StateError, StateStore, Submission, newest_restore_point

log = logging.getLogger("crypto_flink.supervisor")

_CHILD_POLL_S = 0.2
_MAX_BACKOFF_S = 60.0
_OUTPUT_TAIL_BYTES = 16384
# systemd waits this much longer for READY=1 after each sign of life.
_START_EXTENSION_US = 120_000_000


class GaveUpError(Exception):
    """A person has to decide; `exit_code` says on what."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


def newest(config: Config, state: State) -> RestorePoint | None:
    """Return the youngest complete checkpoint or savepoint of the job.

    Raises:
        StateError: the shared directory cannot be read.
    """
    job_ids = [submission.job_id for submission in state.submissions]
    known = (state.last_checkpoint,) if state.last_checkpoint else ()
    return newest_restore_point(config.job.checkpoint_dir, job_ids, (*state.savepoints, *known))


def stop_with_savepoint(
    config: Config, rest: FlinkRest, store: StateStore, job: Job, beat: Callable[[], None] = lambda: None
) -> str:
    """Stop the job with a savepoint, remember it, and return its path.

    Raises:
        ClusterRefusedError: there is no savepoint, and the job may run on.
        ClusterUnavailableError: the JobManager went away.
    """
    request = rest.start_stop_with_savepoint(job.job_id, config.savepoint_dir.as_uri())
    deadline = time.monotonic() + config.flink.savepoint_timeout_s
    while (path := rest.savepoint_result(job.job_id, request)) is None:
        if time.monotonic() > deadline:
            raise ClusterRefusedError(f"no savepoint within {config.flink.savepoint_timeout_s} s")
        beat()
        time.sleep(_CHILD_POLL_S)
    store.update(
        lambda state: state.model_copy(
            update={"savepoints": (*state.savepoints, path)[-10:], "last_checkpoint": path},
        ),
    )
    return path


class Supervisor:
    """The loop of `run`."""

    def __init__(self, config: Config, config_path: Path, lock: IO[Any] | None = None) -> None:
        self._config = config
        self._config_path = config_path
        self._lock = lock
        self._rest = FlinkRest(config.flink.rest_url)
        self._store = StateStore(config.state_dir, config.job.name)
        self._fingerprint = fingerprint(config)
        self._metrics = Metrics()
        self._stop = threading.Event()
        self._ready = False
        self._status = ""
        self._failed_submissions = 0
        self._not_before_s = 0.0
        self._client_failure = ""

    def request_stop(self, *_: object) -> None:
        """Leave the loop; may be called from a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Watch the job until told to stop.

        Raises:
            GaveUpError: a person has to decide.
            StateError: another supervisor runs, or the shared directory is not usable.
            OSError: the address for metrics cannot be had.
        """
        with self._store.exclusive() as lock:
            self._lock = lock
            self._store.update(lambda state: state.model_copy(update={"desired": "running"}))
            self._metrics.serve(self._config.metrics.host, self._config.metrics.port)
            log.info("watching %s at %s", self._config.job.name, self._config.flink.rest_url)
            while not self._stop.is_set():
                self._beat()
                self._step()
                self._stop.wait(self._config.flink.poll_interval_ms / 1000)
            notify("STOPPING=1")
            if self._config.flink.stop_job_on_exit:
                self._stop_job()

    def _beat(self) -> None:
        if self._ready:
            notify("WATCHDOG=1")
        else:
            notify("WATCHDOG=1", f"EXTEND_TIMEOUT_USEC={_START_EXTENSION_US}")

    def _say(self, status: str) -> None:
        if status != self._status:
            self._status = status
            log.info("%s", status)
            notify(f"STATUS={status}")

    def _step(self) -> None:
        try:
            state = self._store.read()
            jobs = self._rest.jobs(self._config.job.name)
            self._metrics.cluster(up=True)
            self._metrics.job(jobs[0] if jobs else None)
            self._act(self._decide(state, jobs), state)
        except ClusterUnavailableError as error:
            self._metrics.cluster(up=False)
            self._metrics.job(None)
            self._say(f"waiting for the JobManager: {error}")
        except ClusterRefusedError as error:
            self._say(f"the JobManager refused: {error}")
        except StateError as error:
            # A shared directory may come back; until then nothing is submitted.
            self._say(f"waiting for the shared directory: {error}")

    def _decide(self, state: State, jobs: list[Job]) -> Action:
        last = state.submissions[-1].job_id if state.submissions else None
        failed = any(job.job_id == last and job.state == "FAILED" for job in jobs)
        failure = self._rest.failure(last) if failed and last else ""
        return decide(
            jobs,
            self._rest.free_slots(),
            state,
            newest(self._config, state),
            fingerprint=self._fingerprint,
            parallelism=self._config.job.parallelism,
            start_fresh=self._config.flink.on_incompatible_checkpoint == "start_fresh",
            last_failure=failure or self._client_failure,
        )

    def _act(self, action: Action, state: State) -> None:
        match action:
            case Fail(reason, exit_code):
                raise GaveUpError(reason, exit_code)
            case Wait(reason):
                self._say(reason)
                if state.desired == "stopped":
                    self._become_ready()  # what was asked for is the case
            case Adopt(job):
                log.warning("job %s runs and is not of this supervisor's making: watching it as it is", job.job_id)
                self._remember(job.job_id, None, None, "found running")
            case Watch(job):
                self._watch(job, state)
            case Replace(job, reason) | Stop(job, reason):
                self._end_job(job, reason, state)
            case Submit(restore, reason):
                if time.monotonic() >= self._not_before_s:
                    self._submit(restore, reason)

    def _become_ready(self) -> None:
        if not self._ready:
            self._ready = True
            notify("READY=1")

    def _watch(self, job: Job, state: State) -> None:
        self._say(f"job {job.job_id} is {'up' if job.is_up else job.state}")
        if job.is_up:
            self._failed_submissions = 0
            self._become_ready()
        elif job.state in {"RUNNING", "RESTARTING"}:
            self._look_for_restore_failure(job, state)
        checkpoints = self._rest.checkpoints(job.job_id)
        self._metrics.checkpoints(checkpoints, time.time() * 1000)
        self._metrics.restarts(self._rest.restarts(job.job_id))
        path = checkpoints.latest_path
        if path is not None and path != state.last_checkpoint:
            self._store.update(lambda current: current.model_copy(update={"last_checkpoint": path}))

    def _look_for_restore_failure(self, job: Job, state: State) -> None:
        """State that tasks cannot read, or not go on from, makes the cluster restart the job for ever: end that.

        A job that has written checkpoints has read its state, and fails for some other reason.
        """
        submission = state.submission(job.job_id)
        if submission is None:
            return
        failure = self._rest.failure(job.job_id)
        checkpoints = self._rest.checkpoints(job.job_id).completed
        resumes = submission.restored_from is not None and not checkpoints
        if (resumes and is_restore_failure(failure)) or is_data_loss(failure):
            log.error("job %s cannot go on from its state: %s", job.job_id, failure.partition("\n")[0])
            self._client_failure = failure
            self._rest.cancel(job.job_id)

    def _end_job(self, job: Job, reason: str, state: State) -> None:
        with self._store.changing_job(block=False) as lock:
            if lock is None:
                self._say(f"another process is stopping job {job.job_id}")
                return
            # Meanwhile a `stop` may have come and gone.
            active = [found.job_id for found in self._rest.jobs(job.name) if not found.is_terminal]
            if self._store.read().desired != state.desired or active != [job.job_id]:
                return
            self._say(f"stopping job {job.job_id} with a savepoint: {reason}")
            try:
                path = stop_with_savepoint(self._config, self._rest, self._store, job, self._beat)
                log.info("job %s stopped with savepoint %s", job.job_id, path)
            except ClusterRefusedError as error:
                # Its last checkpoint is retained: what was read since is read again, and written once all the same.
                log.warning("no savepoint of job %s (%s): cancelling it; its checkpoint stays", job.job_id, error)
                self._rest.cancel(job.job_id)

    def _remember(self, job_id: str, definition: str | None, restored_from: str | None, reason: str) -> None:
        submission = Submission(
            job_id=job_id,
            submitted_at_ms=time.time_ns() // 1_000_000,
            fingerprint=definition,
            restored_from=restored_from,
            reason=reason,
        )
        self._store.update(lambda state: state.with_submission(submission))

    def _submit(self, restore: RestorePoint | None, reason: str) -> None:
        with self._store.changing_job(block=False) as lock:
            if lock is None:
                self._say("another process is stopping the job")
            elif self._store.read().desired == "running":  # a `stop` may have come since the decision
                self._submit_locked(restore, reason, lock)

    def _submit_locked(self, restore: RestorePoint | None, reason: str, lock: IO[str]) -> None:
        job_id = secrets.token_hex(16)
        source = restore.uri if restore else None
        self._say(
            f"submitting job {job_id} because {reason}; "
            f"from {source or self._config.kafka.starting_offsets + ' offsets'}"
        )
        self._remember(job_id, self._fingerprint, source, reason)
        self._client_failure = ""
        exit_code, output = self._run_client(job_id, source, lock)
        if exit_code == 0:
            self._metrics.submission("resumed" if restore else "fresh")
            log.info("submitted job %s", job_id)
            return
        self._metrics.submission("failed")
        self._client_failure = output
        delay_s = min(_MAX_BACKOFF_S, 2.0**self._failed_submissions)
        self._failed_submissions += 1
        self._not_before_s = time.monotonic() + delay_s
        log.error(
            "submission of job %s failed (exit code %s), next try in %.0f s:\n%s", job_id, exit_code, delay_s, output
        )

    def _run_client(self, job_id: str, restore_from: str | None, lock: IO[str]) -> tuple[int, str]:
        """Run the submitting client; return its exit code and the end of its output."""
        command = [sys.executable, "-m", "crypto_flink.client", "--config", str(self._config_path), "--job-id", job_id]
        if restore_from is not None:
            command += ["--restore-from", restore_from]
        with tempfile.TemporaryFile() as output:
            # The client holds the locks too: should this process be killed, no other one starts, submits or stops
            # before the client is done.
            client = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **client_environment(self._config)},
                pass_fds=[held.fileno() for held in (self._lock, lock) if held],
                start_new_session=True,
            )
            deadline = time.monotonic() + self._config.flink.submit_timeout_s
            while client.poll() is None:
                self._beat()
                if self._stop.is_set() or time.monotonic() > deadline:
                    os.killpg(client.pid, signal.SIGKILL)
                    client.wait()
                    break
                time.sleep(_CHILD_POLL_S)
            output.seek(max(0, output.seek(0, os.SEEK_END) - _OUTPUT_TAIL_BYTES))
            return client.returncode, output.read().decode(errors="replace")

    def _stop_job(self) -> None:
        try:
            with self._store.changing_job(block=True):
                for job in self._rest.jobs(self._config.job.name):
                    if not job.is_terminal:
                        path = stop_with_savepoint(self._config, self._rest, self._store, job)
                        log.info("job %s stopped with savepoint %s", job.job_id, path)
        except (ClusterRefusedError, ClusterUnavailableError, StateError) as error:
            log.error("the job was not stopped: %s", error)


def _run(config: Config, config_path: Path) -> int:
    supervisor = Supervisor(config, config_path)
    signal.signal(signal.SIGTERM, supervisor.request_stop)
    signal.signal(signal.SIGINT, supervisor.request_stop)
    supervisor.run()
    return 0


def _status(config: Config) -> int:
    store = StateStore(config.state_dir, config.job.name)
    state = store.read()
    restore = newest(config, state)
    report: dict[str, Any] = {
        "job_name": config.job.name,
        "desired": state.desired,
        "submissions": len(state.submissions),
        "newest_restore_point": restore.uri if restore else None,
        "jobs": [],
    }
    up = False
    try:
        jobs = [job for job in FlinkRest(config.flink.rest_url).jobs(config.job.name) if not job.is_terminal]
        report["cluster"] = "up"
        report["jobs"] = [
            {
                "job_id": job.job_id,
                "state": job.state,
                "tasks": f"{job.tasks_running}/{job.tasks_total}",
                "definition": _definition(state, job, config),
            }
            for job in jobs
        ]
        up = len(jobs) == 1 and jobs[0].is_up
    except (ClusterUnavailableError, ClusterRefusedError) as error:
        report["cluster"] = str(error)
    print(json.dumps(report, indent=1))
    return 0 if up else 1


def _definition(state: State, job: Job, config: Config) -> str:
    known = state.submission(job.job_id)
    if known is None or known.fingerprint is None:
        return "unknown"
    return "current" if known.fingerprint == fingerprint(config) else "outdated"


def _stop(config: Config, *, or_cancel: bool = False) -> int:
    store = StateStore(config.state_dir, config.job.name)
    rest = FlinkRest(config.flink.rest_url)
    stop = _stop_or_cancel_locked if or_cancel else _stop_locked
    with store.changing_job(block=False) as lock:
        if lock is not None:
            return stop(config, store, rest)
    print("waiting for a submission or a stop that is under way", file=sys.stderr)
    with store.changing_job(block=True):
        return stop(config, store, rest)


def _stop_locked(config: Config, store: StateStore, rest: FlinkRest) -> int:
    jobs = [job for job in rest.jobs(config.job.name) if not job.is_terminal]
    if len(jobs) > 1:
        print(f"{len(jobs)} jobs named {config.job.name} run: cancel all but one first", file=sys.stderr)
        return 1
    # First the wish, then the deed: a supervisor that runs must not bring the job back.
    previous = store.read().desired
    store.update(lambda state: state.model_copy(update={"desired": "stopped"}))
    if not jobs:
        print(f"no job named {config.job.name} runs")
        return 0
    try:
        _await_start(config, rest, jobs[0])
        path = stop_with_savepoint(config, rest, store, jobs[0])
    except (ClusterRefusedError, ClusterUnavailableError) as error:
        store.update(lambda state: state.model_copy(update={"desired": previous}))
        print(f"job {jobs[0].job_id} was not stopped: {error}", file=sys.stderr)
        return 1
    print(f"job {jobs[0].job_id} stopped with savepoint {path}")
    return 0


def _stop_or_cancel_locked(config: Config, store: StateStore, rest: FlinkRest) -> int:
    """Stop the job whatever state it and the cluster are in: a savepoint where there can be one."""
    # A JobManager that is away changes nothing of the wish: the job must not come back with it.
    store.update(lambda state: state.model_copy(update={"desired": "stopped"}))
    try:
        jobs = [job for job in rest.jobs(config.job.name) if not job.is_terminal]
        if not jobs:
            print(f"no job named {config.job.name} runs")
            return 0
        if len(jobs) == 1:
            try:
                _await_start(config, rest, jobs[0])
                path = stop_with_savepoint(config, rest, store, jobs[0])
            except ClusterRefusedError as error:
                print(f"no savepoint of job {jobs[0].job_id}: {error}", file=sys.stderr)
            else:
                print(f"job {jobs[0].job_id} stopped with savepoint {path}")
                return 0
        for job in jobs:
            _cancel(config, rest, job)
    except ClusterUnavailableError as error:
        print(f"the JobManager does not answer: {error}", file=sys.stderr)
        print(f"{config.job.name} stays stopped when it does; {_resumption(config, store)}")
        return 0
    print(f"job {', '.join(job.job_id for job in jobs)} cancelled without a savepoint; {_resumption(config, store)}")
    return 0


def _cancel(config: Config, rest: FlinkRest, job: Job) -> None:
    """Cancel the job and wait for its end.

    Raises:
        ClusterRefusedError: it runs on.
        ClusterUnavailableError: the JobManager went away.
    """
    deadline = time.monotonic() + config.flink.savepoint_timeout_s
    asked = False
    while not all(found.is_terminal for found in rest.jobs(job.name) if found.job_id == job.job_id):
        if not asked:
            rest.cancel(job.job_id)
            asked = True
        elif time.monotonic() > deadline:
            raise ClusterRefusedError(f"job {job.job_id} was cancelled and has not ended")
        time.sleep(_CHILD_POLL_S)


def _resumption(config: Config, store: StateStore) -> str:
    point = newest(config, store.read())
    return f"the next `run` resumes from {point.uri if point else config.kafka.starting_offsets + ' offsets'}"


def _await_start(config: Config, rest: FlinkRest, job: Job) -> None:
    """Give a job that was just submitted the time to start, since only a job that is up can write a savepoint."""
    deadline = time.monotonic() + config.flink.savepoint_timeout_s
    while not job.is_up and job.state in {"INITIALIZING", "CREATED", "RUNNING"} and time.monotonic() < deadline:
        time.sleep(_CHILD_POLL_S)
        job = next(found for found in rest.jobs(job.name) if found.job_id == job.job_id)


def _check(config: Config) -> int:
    digest = fingerprint(config)
    client_environment(config)
    StateStore(config.state_dir, config.job.name).check()
    print(f"configuration of {config.job.name} is usable, definition {digest}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run a command and return the exit code: 2 configuration, 3 checkpoint unusable, 4 job runs twice, 1 other."""
    parser = argparse.ArgumentParser(prog="python3 -m crypto_flink.supervisor", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="TOML file")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="keep the job running; the systemd unit's command")
    commands.add_parser("status", help="print what is known as JSON; exit code 0 if the job is up")
    stop = commands.add_parser("stop", help="stop the job with a savepoint; the next `run` resumes from it")
    stop.add_argument(
        "--cancel-without-savepoint",
        action="store_true",
        help="where there can be no savepoint, cancel the job: its last checkpoint serves; a JobManager that does not"
        " answer is no failure",
    )
    commands.add_parser("check", help="check the configuration and the files it names, change nothing")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    try:
        config = load_config(arguments.config)
        match arguments.command:
            case "run":
                return _run(config, arguments.config)
            case "status":
                return _status(config)
            case "stop":
                return _stop(config, or_cancel=arguments.cancel_without_savepoint)
            case _:
                return _check(config)
    except ConfigError as error:
        print(f"configuration: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except GaveUpError as error:
        log.critical("%s", error)
        notify(f"STATUS={error}")
        return error.exit_code
    except (StateError, ClusterUnavailableError, ClusterRefusedError, OSError) as error:
        print(f"{arguments.command}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
