"""Tells one definition of the job from another."""

from __future__ import annotations

import hashlib
from pathlib import Path

from crypto_flink.config import Config, ConfigError

# What the supervisor or the client alone use: the running job is the same without them.
_NOT_THE_JOBS = {
    "rest_url",
    "home",
    "jars_dir",
    "functions_jar",
    "state_dir",
    "client_heap_mib",
    "poll_interval_ms",
    "submit_timeout_s",
    "savepoint_timeout_s",
    "on_incompatible_checkpoint",
    "stop_job_on_exit",
}
_SOURCES = ("transform.py", "job.py", "functions.py")


def fingerprint(config: Config) -> str:
    """Return a digest of all that the running job is made of: settings, password, SQL and Java functions.

    Raises:
        ConfigError: a file named in the configuration cannot be read.
    """
    digest = hashlib.sha256()
    digest.update(config.model_dump_json(exclude={"metrics": True, "flink": _NOT_THE_JOBS}).encode())
    digest.update(config.password().encode())
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    try:
        digest.update(config.flink.functions_jar.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"flink.functions_jar: cannot read {config.flink.functions_jar} ({error.strerror}); build it with Maven in"
            " apps/flink/jvm and give its path",
        ) from error
    return digest.hexdigest()[:32]
