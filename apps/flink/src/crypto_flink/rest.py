"""The part of Flink's REST API that the supervisor needs."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

# A state in which a job is done for good; every other one means that it runs or may run again.
TERMINAL_STATES = frozenset({"FAILED", "CANCELED", "FINISHED", "SUSPENDED"})
_REASON_CHARS = 500


class ClusterUnavailableError(Exception):
    """The JobManager does not answer, or not yet sensibly."""


class ClusterRefusedError(Exception):
    """The JobManager answered that it will not do it."""


@dataclass(frozen=True)
class Job:
    """One line of the cluster's list of jobs."""

    job_id: str
    name: str
    state: str
    start_time_ms: int
    tasks_total: int
    tasks_running: int

    @property
    def is_terminal(self) -> bool:
        """Whether the job is done for good."""
        return self.state in TERMINAL_STATES

    @property
    def is_up(self) -> bool:
        """Whether each of its tasks runs."""
        return self.state == "RUNNING" and 0 < self.tasks_total == self.tasks_running


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoint figures of a job; None where there was no checkpoint."""

    completed: int
    failed: int
    latest_path: str | None
    latest_completed_ms: int | None
    latest_duration_ms: int | None
    latest_size_bytes: int | None


def _reason(text: str) -> str:
    """Return what an answer of an error says, without the places in Flink's code that it came from."""
    try:
        errors = [str(error) for error in json.loads(text)["errors"]]
    except (ValueError, KeyError, TypeError):
        errors = [text]
    lines = [line.strip() for error in errors for line in error.splitlines()]
    said = [line for line in lines if line and not line.startswith(("at ", "... ", "End of exception"))]
    return "; ".join(said)[:_REASON_CHARS]


class FlinkRest:
    """Client of one JobManager; every call may raise ClusterUnavailableError or ClusterRefusedError."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s

    def _call(self, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:  # noqa: ANN401 - JSON
        request = urllib.request.Request(  # noqa: S310 - the configuration admits http:// only
            self._url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:  # noqa: S310 - as above
                content = response.read()
        except urllib.error.HTTPError as error:
            reason = _reason(error.read().decode(errors="replace"))
            if error.code in {502, 503, 504}:
                raise ClusterUnavailableError(f"{path}: HTTP {error.code}: {reason}") from error
            raise ClusterRefusedError(f"{path}: HTTP {error.code}: {reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise ClusterUnavailableError(f"{self._url}{path}: {error}") from error
        try:
            return json.loads(content) if content else {}
        except ValueError as error:
            raise ClusterUnavailableError(f"{path}: the answer is no JSON") from error

    def jobs(self, name: str) -> list[Job]:
        """Return the jobs of this name, the newest first, finished ones included."""
        jobs = [
            Job(
                job_id=job["jid"],
                name=job["name"],
                state=job["state"],
                start_time_ms=job["start-time"],
                tasks_total=job["tasks"]["total"],
                tasks_running=job["tasks"]["running"],
            )
            for job in self._call("/jobs/overview")["jobs"]
            if job["name"] == name
        ]
        return sorted(jobs, key=lambda job: job.start_time_ms, reverse=True)

    def free_slots(self) -> int:
        """Return the number of task slots that no job holds."""
        return int(self._call("/overview")["slots-available"])

    def checkpoints(self, job_id: str) -> Checkpoints:
        """Return the job's checkpoint figures."""
        answer = self._call(f"/jobs/{job_id}/checkpoints")
        latest = (answer.get("latest") or {}).get("completed") or {}
        counts = answer.get("counts") or {}
        return Checkpoints(
            completed=counts.get("completed", 0),
            failed=counts.get("failed", 0),
            latest_path=latest.get("external_path"),
            latest_completed_ms=latest.get("latest_ack_timestamp"),
            latest_duration_ms=latest.get("end_to_end_duration"),
            latest_size_bytes=latest.get("state_size"),
        )

    def restarts(self, job_id: str) -> int:
        """Return how often the cluster has restarted the job."""
        metrics = self._call(f"/jobs/{job_id}/metrics?get=numRestarts")
        return int(float(metrics[0]["value"])) if metrics else 0

    def failure(self, job_id: str) -> str:
        """Return the stack trace of the last failure, or an empty text."""
        entries = (
            self._call(f"/jobs/{job_id}/exceptions?maxExceptions=1").get("exceptionHistory", {}).get("entries", [])
        )
        return str(entries[0].get("stacktrace", "")) if entries else ""

    def cancel(self, job_id: str) -> None:
        """Ask for the job's cancellation."""
        self._call(f"/jobs/{job_id}?mode=cancel", body={}, method="PATCH")

    def start_stop_with_savepoint(self, job_id: str, directory: str) -> str:
        """Ask the job to write a savepoint and stop; return the id of the request."""
        body = {"targetDirectory": directory, "drain": False}
        return str(self._call(f"/jobs/{job_id}/stop", body=body)["request-id"])

    def savepoint_result(self, job_id: str, request_id: str) -> str | None:
        """Return the savepoint's path, or None while it is being written.

        Raises:
            ClusterRefusedError: it failed.
        """
        answer = self._call(f"/jobs/{job_id}/savepoints/{request_id}")
        if answer["status"]["id"] != "COMPLETED":
            return None
        operation = answer.get("operation") or {}
        if "location" in operation:
            return str(operation["location"])
        raise ClusterRefusedError(str((operation.get("failure-cause") or {}).get("stack-trace", operation))[:2000])
