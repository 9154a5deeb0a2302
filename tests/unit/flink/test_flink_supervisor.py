"""The supervisor with a JobManager and a client that are the test's own."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest
from crypto_flink import supervisor
from crypto_flink.config import Config
from crypto_flink.decision import Action
from crypto_flink.rest import Checkpoints, ClusterRefusedError, ClusterUnavailableError, Job
from crypto_flink.state import State, StateStore, Submission


class FakeCluster:
    """What the supervisor and `stop` ask a JobManager for."""

    def __init__(self) -> None:
        self.listed: list[Job] = []
        self.savepoints = 0
        self.refuses_savepoints = False
        self.refuses_to_cancel = False
        self.is_away = False
        self.last_failure = ""

    def start(self, job_id: str, running: int = 3, state: str = "RUNNING") -> None:
        self.listed.append(Job(job_id, "j", state, 0, 3, running))

    def _end(self, job_id: str, state: str) -> None:
        self.listed = [replace(job, state=state) if job.job_id == job_id else job for job in self.listed]

    def jobs(self, name: str) -> list[Job]:
        """Return the jobs; from one time to the next, one more task of each has started."""
        if self.is_away:
            raise ClusterUnavailableError("connection refused")
        answer = [job for job in self.listed if job.name == name]
        self.listed = [replace(job, tasks_running=min(3, job.tasks_running + 1)) for job in self.listed]
        return answer

    def free_slots(self) -> int:
        return 3

    def failure(self, _: str) -> str:
        return self.last_failure

    def checkpoints(self, _: str) -> Checkpoints:
        return Checkpoints(5, 0, None, None, None, None)

    def restarts(self, _: str) -> int:
        return 1

    def start_stop_with_savepoint(self, job_id: str, directory: str) -> str:
        job = next(job for job in self.listed if job.job_id == job_id)
        if self.refuses_savepoints or not job.is_up:
            raise ClusterRefusedError("not all tasks are running")
        self.savepoints += 1
        self._end(job_id, "FINISHED")
        return directory

    def savepoint_result(self, job_id: str, request: str) -> str:
        return f"{request}/savepoint-{job_id}"

    def cancel(self, job_id: str) -> None:
        if self.refuses_to_cancel:
            raise ClusterRefusedError("not now")
        self._end(job_id, "CANCELED")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    made = FakeCluster()
    monkeypatch.setattr(supervisor, "FlinkRest", lambda _: made)
    return made


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "supervisor").mkdir()
    for name in ("connector.jar", "functions.jar"):
        (tmp_path / name).touch()
    (tmp_path / "password").write_text("s3cret")
    return Config.model_validate({
        "kafka": {"bootstrap_servers": "kafka-1:9092", "topic": "t"},
        "postgres": {"host": "h", "database": "d", "user": "u", "password_file": tmp_path / "password"},
        "tables": {"prices": "p", "candles": "c", "rejected": "r"},
        "events": {"symbols": ["BTC-USD"]},
        "job": {"name": "j", "checkpoint_dir": tmp_path / "checkpoints"},
        "flink": {
            "rest_url": "http://127.0.0.1:1", "jars_dir": tmp_path, "functions_jar": tmp_path / "functions.jar",
        },
    })  # fmt: skip


@pytest.fixture
def watcher(config: Config, cluster: FakeCluster) -> supervisor.Supervisor:
    del cluster
    return supervisor.Supervisor(config, Path("config.toml"))


@pytest.fixture
def store(config: Config) -> StateStore:
    return StateStore(config.state_dir, config.job.name)


def wish(store: StateStore, desired: str) -> None:
    store.update(lambda state: state.model_copy(update={"desired": desired}))


def test_failed_submissions_do_not_hide_the_checkpoint(
    config: Config, watcher: supervisor.Supervisor, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one that is younger than the last one seen: Flink has deleted that one."""
    store.update(
        lambda state: state.with_submission(
            Submission(job_id="owner", submitted_at_ms=0, fingerprint="f", restored_from=None, reason="")
        ).model_copy(update={"last_checkpoint": (config.job.checkpoint_dir / "owner" / "chk-7").as_uri()})
    )
    checkpoint = config.job.checkpoint_dir / "owner" / "chk-8"
    checkpoint.mkdir(parents=True)
    (checkpoint / "_metadata").write_bytes(b"x")
    asked: list[str | None] = []

    def fail(_: str, source: str | None, __: IO[str]) -> tuple[int, str]:
        asked.append(source)
        return 1, "the JobManager is full"

    monkeypatch.setattr(watcher, "_run_client", fail)
    for _ in range(120):
        watcher._not_before_s = 0.0
        watcher._step()
    assert asked == [checkpoint.as_uri()] * 120


def test_the_last_checkpoint_is_found_without_its_job(config: Config) -> None:
    checkpoint = config.job.checkpoint_dir / "forgotten" / "chk-7"
    checkpoint.mkdir(parents=True)
    (checkpoint / "_metadata").write_bytes(b"x")
    found = supervisor.newest(config, State(job_name="j", last_checkpoint=checkpoint.as_uri()))
    assert found is not None
    assert found.path == checkpoint


def test_a_stop_waits_for_a_submission_under_way(
    config: Config,
    watcher: supervisor.Supervisor,
    cluster: FakeCluster,
    store: StateStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[int] = []
    stopping = threading.Thread(target=lambda: answers.append(supervisor._stop(config)))

    def submit(job_id: str, *_: object) -> tuple[int, str]:
        stopping.start()
        stopping.join(timeout=1)
        assert stopping.is_alive(), "`stop` has reported success while the job was being submitted"
        cluster.start(job_id, running=0)
        return 0, ""

    monkeypatch.setattr(watcher, "_run_client", submit)
    watcher._step()
    stopping.join(timeout=30)
    assert answers == [0]
    assert [job.state for job in cluster.listed] == ["FINISHED"]
    assert store.read().desired == "stopped"


def test_a_stop_between_decision_and_submission_is_heard(
    config: Config, watcher: supervisor.Supervisor, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = watcher._decide

    def decide_then_stop(state: State, jobs: list[Job]) -> Action:
        action = decide(state, jobs)
        assert supervisor._stop(config) == 0
        return action

    monkeypatch.setattr(watcher, "_decide", decide_then_stop)
    monkeypatch.setattr(watcher, "_run_client", lambda *_: pytest.fail("a job was submitted after the stop"))
    watcher._step()
    assert store.read().submissions == ()


@pytest.mark.parametrize("refuses", [False, True])
def test_a_job_that_runs_after_a_stop_is_stopped(
    watcher: supervisor.Supervisor, cluster: FakeCluster, store: StateStore, refuses: bool
) -> None:
    wish(store, "stopped")
    cluster.start("a")
    cluster.refuses_savepoints = refuses
    watcher._step()
    assert [job.state for job in cluster.listed] == ["CANCELED" if refuses else "FINISHED"]
    assert len(store.read().savepoints) == (0 if refuses else 1)
    assert store.read().desired == "stopped"


def test_stop_or_cancel_prefers_a_savepoint(
    config: Config, cluster: FakeCluster, store: StateStore, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.start("a", running=0)
    assert supervisor._stop(config, or_cancel=True) == 0
    assert [job.state for job in cluster.listed] == ["FINISHED"]
    assert capsys.readouterr().out.startswith("job a stopped with savepoint ")
    assert store.read().desired == "stopped"
    assert supervisor._stop(config, or_cancel=True) == 0
    assert capsys.readouterr().out == "no job named j runs\n"


def test_stop_without_a_savepoint_leaves_the_job(config: Config, cluster: FakeCluster, store: StateStore) -> None:
    cluster.start("a")
    cluster.refuses_savepoints = True
    assert supervisor._stop(config) == 1
    assert [job.state for job in cluster.listed] == ["RUNNING"]
    assert store.read().desired == "running"


def test_stop_or_cancel_cancels_where_there_is_no_savepoint(
    config: Config, cluster: FakeCluster, store: StateStore, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = config.job.checkpoint_dir / "a" / "chk-7"
    checkpoint.mkdir(parents=True)
    (checkpoint / "_metadata").write_bytes(b"x")
    store.update(lambda state: state.model_copy(update={"last_checkpoint": checkpoint.as_uri()}))
    cluster.start("a", state="RESTARTING", running=0)
    assert supervisor._stop(config, or_cancel=True) == 0
    assert [job.state for job in cluster.listed] == ["CANCELED"]
    assert f"without a savepoint; the next `run` resumes from {checkpoint.as_uri()}" in capsys.readouterr().out
    assert store.read().desired == "stopped"


def test_stop_or_cancel_ends_a_doubled_job(config: Config, cluster: FakeCluster) -> None:
    cluster.start("a")
    cluster.start("b")
    assert supervisor._stop(config) == 1
    assert supervisor._stop(config, or_cancel=True) == 0
    assert [job.state for job in cluster.listed] == ["CANCELED", "CANCELED"]


def test_stop_or_cancel_does_without_the_jobmanager(
    config: Config, cluster: FakeCluster, store: StateStore, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.is_away = True
    with pytest.raises(ClusterUnavailableError):
        supervisor._stop(config)
    assert store.read().desired == "running"
    assert supervisor._stop(config, or_cancel=True) == 0
    assert "the next `run` resumes from earliest offsets" in capsys.readouterr().out
    assert store.read().desired == "stopped"


def test_stop_or_cancel_does_not_claim_what_is_not_so(config: Config, cluster: FakeCluster) -> None:
    cluster.start("a")
    cluster.refuses_savepoints = cluster.refuses_to_cancel = True
    with pytest.raises(ClusterRefusedError):
        supervisor._stop(config, or_cancel=True)


def test_two_do_not_stop_the_job_at_once(
    watcher: supervisor.Supervisor, cluster: FakeCluster, store: StateStore
) -> None:
    wish(store, "stopped")
    cluster.start("a")
    with store.changing_job(block=True):
        watcher._step()
    assert cluster.savepoints == 0
    watcher._step()
    assert cluster.savepoints == 1


def test_the_client_holds_the_lock_beyond_its_supervisors_death(
    watcher: supervisor.Supervisor, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    inherited: list[int] = []

    class Client:
        returncode = 0

        def __init__(self, _: list[str], *, pass_fds: list[int], **__: object) -> None:
            inherited.extend(os.dup(number) for number in pass_fds)

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(supervisor.subprocess, "Popen", Client)
    with store.changing_job(block=True) as lock:
        assert lock is not None
        watcher._run_client("a", None, lock)
    with store.changing_job(block=False) as other:
        assert other is None
    for number in inherited:
        os.close(number)
    with store.changing_job(block=False) as other:
        assert other is not None


def test_a_job_whose_next_events_are_gone_is_given_up(
    watcher: supervisor.Supervisor, cluster: FakeCluster, store: StateStore
) -> None:
    """Also one that has long since taken its state back."""
    store.update(
        lambda state: state.with_submission(
            Submission(job_id="a", submitted_at_ms=0, fingerprint=None, restored_from="file:/x/chk-1", reason="")
        )
    )
    cluster.start("a", state="RESTARTING", running=0)
    cluster.last_failure = "Writing records to JDBC failed."
    watcher._step()
    assert [job.state for job in cluster.listed] == ["RESTARTING"]
    cluster.last_failure = "x.OffsetOutOfRangeException: Fetch position 7 is out of range"
    watcher._step()
    assert [job.state for job in cluster.listed] == ["CANCELED"]
    with pytest.raises(supervisor.GaveUpError, match="out of range") as caught:
        watcher._step()
    assert caught.value.exit_code == 3
