"""The TOML configuration: its keys, their defaults, and one readable message for all that is wrong with a file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD")
EVENT_ID_NAMESPACE = UUID("5f0c8a0e-3c3f-5f0e-9d7b-6d1f0b6f3a11")

SourceKind = Literal["coinbase_rest", "coinbase_ws", "tape"]


class ConfigError(Exception):
    """The configuration cannot be used; the text names the file, the keys and what to do."""


def _url(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"must be a URL that starts with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return value.rstrip("/")

    return AfterValidator(check)


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ValueError("must be host:port, such as kafka-1:9092")
    return value


HttpUrl = Annotated[str, _url("http", "https")]
WebSocketUrl = Annotated[str, _url("ws", "wss")]
HostAndPort = Annotated[str, AfterValidator(_host_and_port)]
Symbol = Annotated[str, Field(pattern=r"^[A-Z0-9]+-[A-Z]+$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CoinbaseRestConfig(_Table):
    """Spot prices, polled."""

    base_url: HttpUrl = "https://api.coinbase.com"
    interval_s: Annotated[float, Field(gt=0)] = 10.0
    timeout_s: Annotated[float, Field(gt=0)] = 5.0


class CoinbaseWsConfig(_Table):
    """Trades, pushed; gaps are filled from the REST API of the same exchange."""

    ws_url: WebSocketUrl = "wss://ws-feed.exchange.coinbase.com"
    rest_url: HttpUrl = "https://api.exchange.coinbase.com"
    timeout_s: Annotated[float, Field(gt=0)] = 5.0
    stale_after_s: Annotated[float, Field(ge=2)] = 10.0
    requests_per_s: Annotated[float, Field(gt=0)] = 10.0
    max_fill_trades: Annotated[int, Field(ge=0)] = 100_000
    fill_timeout_s: Annotated[float, Field(gt=0)] = 300.0
    max_buffered_trades: Annotated[int, Field(ge=1)] = 100_000


class TapeConfig(_Table):
    """A recording of feed messages, one JSON object per line."""

    path: Path
    speed: Annotated[float, Field(ge=0)] = 1.0
    loop: bool = False
    rebase: bool = False


class SourceConfig(_Table):
    """Which source is read, and the settings of each."""

    kind: SourceKind = "coinbase_rest"
    coinbase_rest: CoinbaseRestConfig = CoinbaseRestConfig()
    coinbase_ws: CoinbaseWsConfig = CoinbaseWsConfig()
    tape: TapeConfig | None = None

    @model_validator(mode="after")
    def _tape_is_configured(self) -> SourceConfig:
        if self.kind == "tape" and self.tape is None:
            raise ValueError('kind = "tape" needs a table [source.tape] with at least `path`')
        return self


class KafkaConfig(_Table):
    """Where events go."""

    bootstrap_servers: Annotated[list[HostAndPort], Field(min_length=1)]
    topic: Annotated[str, Field(min_length=1)] = "crypto_prices"
    max_in_flight_events: Annotated[int, Field(ge=1)] = 5_000
    linger_ms: Annotated[int, Field(ge=0)] = 2
    delivery_timeout_s: Annotated[float, Field(ge=5)] = 120.0
    settle_s: Annotated[float, Field(ge=0)] = 0.5


class SpoolConfig(_Table):
    """The durable queue between source and Kafka."""

    dir: Path
    max_events: Annotated[int, Field(ge=10)] = 1_000_000
    max_bytes: Annotated[int, Field(ge=10_000)] = 1_073_741_824
    when_full: Literal["block", "drop_oldest"] = "block"
    durability: Literal["power", "process"] = "power"


class MetricsConfig(_Table):
    """Where Prometheus finds the metrics; port 0 switches them off."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9108


class ServiceConfig(_Table):
    """The process itself."""

    shutdown_timeout_s: Annotated[float, Field(gt=0)] = 20.0
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Config(_Table):
    """The whole file."""

    symbols: Annotated[list[Symbol], Field(min_length=1)] = list(SYMBOLS)
    event_id_namespace: UUID = EVENT_ID_NAMESPACE
    source: SourceConfig = SourceConfig()
    kafka: KafkaConfig
    spool: SpoolConfig
    metrics: MetricsConfig = MetricsConfig()
    service: ServiceConfig = ServiceConfig()

    @model_validator(mode="after")
    def _symbols_are_distinct(self) -> Config:
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError("symbols: each symbol may be named once")
        return self


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
