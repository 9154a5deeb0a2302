"""The configuration file: its keys, their defaults, and readable complaints about it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Port = Annotated[int, Field(ge=1, le=65535)]
AnyPort = Annotated[int, Field(ge=0, le=65535)]
TableName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$", max_length=63)]
Memory = Annotated[str, Field(pattern=r"^[1-9][0-9]*[mg]$")]
Text = Annotated[str, Field(min_length=1)]

MIN_REALTIME_BATCH_MS = 5_000
"""Spark refuses shorter batches in Real-Time Mode."""

_CONNECTOR_JARS = (
    "spark-sql-kafka-0-10_*.jar",
    "spark-token-provider-kafka-0-10_*.jar",
    "kafka-clients-*.jar",
    "commons-pool2-*.jar",
    "postgresql-*.jar",
)
_WRITER_JAR = "crypto-spark-writer-*.jar"


class ConfigError(Exception):
    """The configuration cannot be used; the text says which file, which key, what is wrong and what to do."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Kafka(_Section):
    """Where the events come from."""

    bootstrap_servers: Text
    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
    starting_offsets: Literal["earliest", "latest"] = "earliest"


class Postgres(_Section):
    """Where the rows go."""

    host: Text
    port: Port = 5432
    database: Text
    user: Text
    password_file: Text

    @property
    def jdbc_url(self) -> str:
        """URL for the JDBC driver, without credentials."""
        # stringtype: event_id is a string in Spark and a uuid in the table; the server converts.
        return (
            f"jdbc:postgresql://{self.host}:{self.port}/{self.database}"
            "?reWriteBatchedInserts=true&stringtype=unspecified&tcpKeepAlive=true&connectTimeout=10"
        )

    def read_password(self) -> str:
        """Return the password.

        Raises:
            ConfigError: the file cannot be read or is empty.
        """
        try:
            password = Path(self.password_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"postgres.password_file: cannot read {self.password_file}: {error}. "
                "Give the path of a file that this user may read and that holds the password alone."
            ) from error
        if not password:
            raise ConfigError(f"postgres.password_file: {self.password_file} is empty. Write the password into it.")
        return password


class Tables(_Section):
    """Tables by their role. The staging tables are emptied by this application: nothing else may use them."""

    prices: TableName = "crypto_prices_realtime"
    candles: TableName = "candles_1m_spark"
    rejected: TableName = "rejected_messages"
    staging_prices: TableName = "spark_staging_prices"
    staging_candles: TableName = "spark_staging_candles"
    staging_rejected: TableName = "spark_staging_rejected"


class Events(_Section):
    """What an event may be."""

    symbols: Annotated[list[Text], Field(min_length=1)]
    max_event_bytes: Annotated[int, Field(gt=0)] = 65_536
    log_events: bool = True
    log_rows: Annotated[int, Field(gt=0, le=1000)] = 20


class Candles(_Section):
    """Windows by event time."""

    window_s: Annotated[int, Field(gt=0)] = 60
    watermark_delay_s: Annotated[int, Field(ge=0)] = 120


class Job(_Section):
    """How the job runs, in terms that both engines share."""

    name: Text = "crypto-prices-spark"
    parallelism: Annotated[int, Field(gt=0)] = 3
    checkpoint_dir: Text
    checkpoint_interval_ms: Annotated[int, Field(gt=0)] = 15_000


class Metrics(_Section):
    """Where Prometheus finds the metrics."""

    host: Text = "127.0.0.1"
    port: Port = 9109


class Spark(_Section):
    """Settings of Spark alone."""

    master: Text
    mode: Literal["microbatch", "continuous", "realtime"] = "microbatch"
    trigger_interval_ms: Annotated[int, Field(gt=0)] = 15_000
    max_offsets_per_trigger: Annotated[int, Field(gt=0)] = 5_000_000
    realtime_flush_interval_ms: Annotated[int, Field(gt=0)] = 10
    realtime_flush_rows: Annotated[int, Field(gt=0)] = 1_000
    jars_dir: Text
    driver_memory: Memory = "768m"
    driver_host: Text | None = None
    driver_bind_address: Text | None = None
    driver_port: AnyPort = 0
    driver_block_manager_port: AnyPort = 0
    executor_memory: Memory = "1g"
    executor_cores: Annotated[int, Field(gt=0)] | None = None
    max_cores: Annotated[int, Field(gt=0)] | None = None
    executor_wait_s: Annotated[int, Field(gt=0)] = 60
    ui_port: Port = 4040
    local_dir: Text = "/tmp/spark"  # noqa: S108 - scratch space, not an exchange
    event_log_dir: Text | None = None
    state_store: Literal["rocksdb", "memory"] = "rocksdb"
    stall_timeout_s: Annotated[int, Field(gt=0)] = 300
    conf: dict[str, str] = Field(default_factory=dict)


class Settings(_Section):
    """The whole file."""

    kafka: Kafka
    postgres: Postgres
    tables: Tables = Tables()
    events: Events
    candles: Candles = Candles()
    job: Job
    metrics: Metrics = Metrics()
    spark: Spark

    @model_validator(mode="after")
    def _realtime_batch_is_long_enough(self) -> Self:
        if self.spark.mode == "realtime" and self.job.checkpoint_interval_ms < MIN_REALTIME_BATCH_MS:
            raise ValueError(
                f"job.checkpoint_interval_ms is {self.job.checkpoint_interval_ms}, but spark.mode 'realtime' needs at "
                f"least {MIN_REALTIME_BATCH_MS}: raise it or choose another mode"
            )
        return self

    def find_jars(self) -> list[Path]:
        """Return the jars this mode needs, exactly one for each.

        Raises:
            ConfigError: one of them is missing or there twice.
        """
        patterns = (*_CONNECTOR_JARS, _WRITER_JAR) if self.spark.mode == "realtime" else _CONNECTOR_JARS
        jars = []
        for pattern in patterns:
            found = sorted(Path(self.spark.jars_dir).glob(pattern))
            if len(found) != 1:
                names = ", ".join(jar.name for jar in found) or "none"
                raise ConfigError(
                    f"spark.jars_dir: exactly one {pattern} is needed in {self.spark.jars_dir}, there is: {names}. "
                    "Install the artifacts again."
                )
            jars.append(found[0])
        return jars


def load(path: Path) -> Settings:
    """Read and check the configuration file.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or a key is missing, unknown or wrong.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}. Give an existing file with --config.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is no valid TOML: {error}. Correct that line.") from error
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: {'; '.join(_complaints(error))}.") from error


def _complaints(error: ValidationError) -> list[str]:
    complaints = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            complaints.append(f"{key}: unknown key: remove it or correct its spelling")
        elif problem["type"] == "missing":
            complaints.append(f"{key}: missing: add it")
        elif problem["type"] == "value_error":
            complaints.append(str(problem["ctx"]["error"]))
        else:
            complaints.append(f"{key}: {problem['msg']}, but it is {problem['input']!r}: correct it")
    return complaints
