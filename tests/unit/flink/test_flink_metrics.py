"""What Prometheus reads of the supervisor."""

from __future__ import annotations

from crypto_flink.metrics import Metrics
from crypto_flink.rest import Checkpoints, Job


def test_checkpoints() -> None:
    metrics = Metrics()
    value = metrics.registry.get_sample_value
    assert value("crypto_flink_last_checkpoint_timestamp_seconds") == 0
    metrics.checkpoints(Checkpoints(7, 2, "path", 1_000_000, 250, 4096), now_ms=1_030_000)
    assert value("crypto_flink_last_checkpoint_timestamp_seconds") == 1000
    assert value("crypto_flink_last_checkpoint_age_seconds") == 30
    assert value("crypto_flink_checkpoints", {"outcome": "completed"}) == 7
    assert value("crypto_flink_checkpoints", {"outcome": "failed"}) == 2
    # A job that was submitted anew has none yet: the last one is still the one to resume from.
    metrics.checkpoints(Checkpoints(0, 0, None, None, None, None), now_ms=1_060_000)
    assert value("crypto_flink_last_checkpoint_timestamp_seconds") == 1000


def test_job_is_up_only_with_all_tasks() -> None:
    metrics = Metrics()
    value = metrics.registry.get_sample_value
    metrics.job(Job("id", "j", "RUNNING", 0, 3, 3))
    assert (value("crypto_flink_job_up"), value("crypto_flink_job_state", {"state": "RUNNING"})) == (1, 1)
    metrics.job(Job("id", "j", "RUNNING", 0, 3, 2))
    assert (value("crypto_flink_job_up"), value("crypto_flink_job_state", {"state": "RUNNING"})) == (0, 1)
    metrics.job(None)
    assert (value("crypto_flink_job_up"), value("crypto_flink_job_state", {"state": "RUNNING"})) == (0, 0)


def test_submissions_are_counted_from_zero() -> None:
    metrics = Metrics()
    value = metrics.registry.get_sample_value
    assert value("crypto_flink_submissions_total", {"outcome": "failed"}) == 0
    metrics.submission("failed")
    assert value("crypto_flink_submissions_total", {"outcome": "failed"}) == 1


def test_process_is_measured_too() -> None:
    assert Metrics().registry.get_sample_value("process_resident_memory_bytes")
