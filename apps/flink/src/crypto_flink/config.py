"""Configuration: one TOML file, checked as a whole before anything starts. Times carry their unit in the name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Port = Annotated[int, Field(ge=1, le=65535)]
Text = Annotated[str, Field(min_length=1)]
# These end up inside SQL: a quote must not get that far.
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=63)]
Symbol = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]


class ConfigError(Exception):
    """The configuration cannot be used; the text says which file, which key, what is wrong and what to do."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaConfig(_Section):
    """Where the events come from."""

    bootstrap_servers: Annotated[str, Field(pattern=r"^[^\s',:]+:\d+(,[^\s',:]+:\d+)*$")]
    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=249)]
    starting_offsets: Literal["earliest", "latest"] = "earliest"


class PostgresConfig(_Section):
    """Where the rows go."""

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_\[\]-]+$")]
    port: Port = 5432
    database: Identifier
    user: Identifier
    password_file: Path


class TablesConfig(_Section):
    """Names of the tables."""

    prices: Identifier
    candles: Identifier
    rejected: Identifier


class EventsConfig(_Section):
    """What counts as an event."""

    symbols: Annotated[tuple[Symbol, ...], Field(min_length=1)]
    max_event_bytes: Annotated[int, Field(ge=1, le=64 * 1024 * 1024)] = 65536
    log_events: bool = True


class CandlesConfig(_Section):
    """Windows of event time."""

    window_s: Annotated[int, Field(ge=1, le=86400)] = 60
    watermark_delay_s: Annotated[int, Field(ge=0, le=86400)] = 120


class JobConfig(_Section):
    """The job as both engines know it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    parallelism: Annotated[int, Field(ge=1, le=1024)] = 3
    checkpoint_dir: Path
    checkpoint_interval_ms: Annotated[int, Field(ge=100)] = 15000
    delivery_guarantee: Literal["at_least_once", "exactly_once"] = "at_least_once"


class MetricsConfig(_Section):
    """Where the supervisor answers Prometheus."""

    host: Text = "127.0.0.1"
    port: Port = 9110


class FlinkConfig(_Section):
    """What only Flink has."""

    rest_url: Annotated[str, Field(pattern=r"^http://[A-Za-z0-9.-]+:\d+$")]
    # None: the Flink that belongs to the installed PyFlink.
    home: Path | None = None
    jars_dir: Path
    functions_jar: Path
    # Shared by the nodes, like checkpoint_dir; None: siblings of it.
    savepoint_dir: Path | None = None
    state_dir: Path | None = None
    sink_flush_interval_ms: Annotated[int, Field(ge=1)] = 10
    sink_flush_max_rows: Annotated[int, Field(ge=1)] = 1000
    sink_max_retries: Annotated[int, Field(ge=0)] = 3
    fetch_max_wait_ms: Annotated[int, Field(ge=1)] = 10
    source_idle_timeout_ms: Annotated[int, Field(ge=0)] = 10000
    buffer_timeout_ms: Annotated[int, Field(ge=0)] = 10
    state_backend: Literal["hashmap", "rocksdb"] = "hashmap"
    checkpoints_retained: Annotated[int, Field(ge=1)] = 2
    restart_delay_initial_ms: Annotated[int, Field(ge=1)] = 1000
    restart_delay_max_ms: Annotated[int, Field(ge=1)] = 10000
    client_heap_mib: Annotated[int, Field(ge=128)] = 512
    poll_interval_ms: Annotated[int, Field(ge=100)] = 1000
    submit_timeout_s: Annotated[int, Field(ge=10)] = 180
    savepoint_timeout_s: Annotated[int, Field(ge=1)] = 60
    on_incompatible_checkpoint: Literal["fail", "start_fresh"] = "fail"
    stop_job_on_exit: bool = False


class Config(_Section):
    """The whole file."""

    kafka: KafkaConfig
    postgres: PostgresConfig
    tables: TablesConfig
    events: EventsConfig
    candles: CandlesConfig = CandlesConfig()
    job: JobConfig
    metrics: MetricsConfig = MetricsConfig()
    flink: FlinkConfig

    @model_validator(mode="after")
    def _paths_are_absolute(self) -> Config:
        paths = {
            "job.checkpoint_dir": self.job.checkpoint_dir,
            "flink.savepoint_dir": self.savepoint_dir,
            "flink.state_dir": self.state_dir,
        }
        for key, path in paths.items():
            if not re.fullmatch(r"/[A-Za-z0-9._/-]+", str(path)):
                raise ValueError(
                    f"{key} is {str(path)!r}, but every node must read it the same way: give an absolute path of"
                    " letters, digits and ._/-",
                )
        return self

    @property
    def savepoint_dir(self) -> Path:
        """Directory of savepoints, shared by the nodes."""
        return self.flink.savepoint_dir or self.job.checkpoint_dir.parent / "savepoints"

    @property
    def state_dir(self) -> Path:
        """Directory of the supervisor's own state, shared by the nodes."""
        return self.flink.state_dir or self.job.checkpoint_dir.parent / "supervisor"

    def password(self) -> str:
        """Read the database password; a trailing line break is not part of it.

        Raises:
            ConfigError: the file cannot be read or is empty.
        """
        path = self.postgres.password_file
        try:
            password = path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"postgres.password_file: cannot read {path} ({_reason(error)}); give a file that this user can read",
            ) from error
        if not password:
            raise ConfigError(f"postgres.password_file: {path} is empty; write the password into it")
        return password


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def load_config(path: Path) -> Config:
    """Read and check the file.

    Raises:
        ConfigError: with everything that is wrong in one text.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({_reason(error)}); give another file with --config") from error
    try:
        document = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}; correct that line") from error
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        raise ConfigError(_describe(path, error)) from error


def _describe(path: Path, error: ValidationError) -> str:
    problems = []
    for detail in error.errors(include_url=False):
        key = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            problems.append(f"{key}: no such key; remove it or correct its name")
        elif detail["type"] == "missing":
            problems.append(f"{key}: missing; add it")
        elif detail["type"] == "value_error":
            problems.append(detail["msg"].removeprefix("Value error, "))
        else:
            problems.append(f"{key}: {detail['msg']} (got {detail['input']!r}); correct the value")
    return f"{path}: " + "; ".join(problems)
