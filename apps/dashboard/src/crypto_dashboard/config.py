"""The TOML configuration: its keys, their defaults, and one readable message for all that is wrong with a file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD")
ENGINES = ("spark", "flink")


class ConfigError(Exception):
    """The configuration cannot be used; the text names the file, the keys and what to do."""


def _url(value: str) -> str:
    parts = urlsplit(value)
    if value and (parts.scheme not in {"http", "https"} or not parts.hostname):
        raise ValueError("must be a URL that starts with http:// or https://, or empty for no Prometheus")
    return value.rstrip("/")


OptionalUrl = Annotated[str, AfterValidator(_url)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
Symbol = Annotated[str, Field(pattern=r"^[A-Z0-9]+-[A-Z]+$")]
# They become a part of statements and of PromQL.
TableName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$", max_length=63)]
NodeName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9.-]*$")]
TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerConfig(_Table):
    """Where the page is, and where the files of uPlot are."""

    host: str = "127.0.0.1"
    port: Port = 8050
    # uPlot's WebJar, or a folder with one (uplot-*.jar).
    uplot: Path


class PostgresConfig(_Table):
    """Where the tables are."""

    host: Annotated[str, Field(min_length=1)]
    port: Port = 5432
    database: str = "crypto_db"
    user: str = "lab_reader"
    password_file: Path
    timeout_s: Seconds = 3.0


class PrometheusConfig(_Table):
    """Where Prometheus answers; without a URL the page does without."""

    url: OptionalUrl = ""
    timeout_s: Seconds = 3.0


class EngineConfig(_Table):
    """One engine: its tables, and the nodes whose CPU and memory are its own."""

    prices: TableName
    candles: TableName
    nodes: list[NodeName] = []


class EnginesConfig(_Table):
    """Both engines, and the table that both write messages to which are no events."""

    rejected: TableName = "rejected_messages"
    spark: EngineConfig = EngineConfig(prices="crypto_prices_realtime", candles="candles_1m_spark")
    flink: EngineConfig = EngineConfig(prices="crypto_prices_flink", candles="candles_1m_flink")


class RefreshConfig(_Table):
    """How often is asked while somebody looks, in seconds."""

    rows_s: Seconds = 2.0
    candles_s: Seconds = 5.0
    history_s: Seconds = 30.0
    metrics_s: Seconds = 10.0


class Config(_Table):
    """The whole file."""

    lab: str = "lab"
    symbols: Annotated[list[Symbol], Field(min_length=1, max_length=12)] = list(SYMBOLS)
    topic: TopicName = "crypto_prices"
    # An engine that has written nothing for so long, while there is something to write, counts as down.
    stale_after_s: Annotated[float, Field(ge=10)] = 60.0
    server: ServerConfig
    postgres: PostgresConfig
    prometheus: PrometheusConfig = PrometheusConfig()
    engines: EnginesConfig = EnginesConfig()
    refresh: RefreshConfig = RefreshConfig()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="after")
    def _symbols_are_distinct(self) -> Config:
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError("symbols: each symbol may be named once")
        return self

    def engine(self, name: str) -> EngineConfig:
        """Return the settings of `spark` or `flink`."""
        return {"spark": self.engines.spark, "flink": self.engines.flink}[name]


def load_config(path: Path) -> Config:
    """Read and validate `path`.

    Raises ConfigError with one message that lists everything that is wrong with the file.
    """
    try:
        with path.open("rb") as file:
            raw = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}. Name an existing file with --config.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}. Correct the line named.") from error
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        problems = "\n".join(f"  {_problem(detail['loc'], detail['type'], detail['msg'])}" for detail in error.errors())
        raise ConfigError(f"{path}: the configuration is not valid:\n{problems}") from error


def _problem(loc: tuple[int | str, ...], kind: str, message: str) -> str:
    key = ".".join(str(part) for part in loc) or "(file)"
    if kind == "extra_forbidden":
        return f"{key}: there is no such key; remove it or correct its name"
    if kind == "missing":
        return f"{key}: is missing; add it"
    return f"{key}: {message.removeprefix('Value error, ')}"
