"""What the supervisor tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, start_http_server

from crypto_flink.rest import Checkpoints, Job

_STATES = (
    "INITIALIZING",
    "CREATED",
    "RUNNING",
    "FAILING",
    "FAILED",
    "CANCELLING",
    "CANCELED",
    "FINISHED",
    "RESTARTING",
    "SUSPENDED",
    "RECONCILING",
)


class Metrics:
    """Gauges and counters in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._state = Gauge("crypto_flink_job_state", "1 for the job's state", ["state"], registry=self.registry)
        self._up = Gauge("crypto_flink_job_up", "1 while every task of the job runs", registry=self.registry)
        self._cluster = Gauge("crypto_flink_cluster_up", "1 while the JobManager answers", registry=self.registry)
        self._restarts = Gauge(
            "crypto_flink_job_restarts", "Restarts of the current job by the cluster", registry=self.registry
        )
        self._submissions = Counter(
            "crypto_flink_submissions", "Submissions by outcome", ["outcome"], registry=self.registry
        )
        self._checkpoints = Gauge(
            "crypto_flink_checkpoints", "Checkpoints of the current job by outcome", ["outcome"], registry=self.registry
        )
        # Known from the start, so that the first of each is seen as a change.
        for outcome in ("resumed", "fresh", "failed"):
            self._submissions.labels(outcome)
        self._age = Gauge(
            "crypto_flink_last_checkpoint_age_seconds", "Since the last complete checkpoint", registry=self.registry
        )
        # The age stands still while nobody can be asked; this does not.
        self._completed = Gauge(
            "crypto_flink_last_checkpoint_timestamp_seconds",
            "When the last checkpoint was complete, epoch s; 0 before the first",
            registry=self.registry,
        )
        self._duration = Gauge(
            "crypto_flink_last_checkpoint_duration_seconds", "Of the last complete checkpoint", registry=self.registry
        )
        self._size = Gauge(
            "crypto_flink_last_checkpoint_size_bytes", "Of the last complete checkpoint", registry=self.registry
        )

    def serve(self, host: str, port: int) -> None:
        """Answer on host:port from a thread.

        Raises:
            OSError: the address cannot be had.
        """
        start_http_server(port, addr=host, registry=self.registry)

    def job(self, job: Job | None) -> None:
        """Note the job's state; None where there is no job."""
        self._up.set(job is not None and job.is_up)
        for state in _STATES:
            self._state.labels(state).set(job is not None and job.state == state)

    def cluster(self, *, up: bool) -> None:
        """Note whether the JobManager answers."""
        self._cluster.set(up)

    def restarts(self, count: int) -> None:
        """Note the restarts of the current job."""
        self._restarts.set(count)

    def submission(self, outcome: str) -> None:
        """Count a submission: `resumed`, `fresh` or `failed`."""
        self._submissions.labels(outcome).inc()

    def checkpoints(self, checkpoints: Checkpoints, now_ms: float) -> None:
        """Note the checkpoint figures of the current job at `now_ms` (epoch)."""
        self._checkpoints.labels("completed").set(checkpoints.completed)
        self._checkpoints.labels("failed").set(checkpoints.failed)
        if checkpoints.latest_completed_ms is not None:
            self._completed.set(checkpoints.latest_completed_ms / 1000)
            self._age.set(max(0.0, (now_ms - checkpoints.latest_completed_ms) / 1000))
            self._duration.set((checkpoints.latest_duration_ms or 0) / 1000)
            self._size.set(checkpoints.latest_size_bytes or 0)
