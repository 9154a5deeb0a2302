"""The TOML configuration of `coinbase-replay serve`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD")


class ConfigError(Exception):
    """The configuration cannot be used; the text names the file, the keys and what to do."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerConfig(_Table):
    """Where clients connect: REST and WebSocket share the port, the admin API has its own."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8090
    admin_host: str = "127.0.0.1"
    admin_port: Annotated[int, Field(ge=1, le=65535)] = 8091


class TimelineConfig(_Table):
    """What is played, since when, and how fast.

    `anchor` (epoch seconds) is when the tape's first loop began: set it once per deployment, and anew whenever tape,
    seed or speed change, for trade ids and times derive from it.
    """

    anchor: Annotated[int, Field(ge=946_684_800, lt=4_102_444_800)]
    speed: Annotated[float, Field(gt=0, le=1_000)] = 1.0
    tape: Path | None = None
    seed: int = 1
    duration_s: Annotated[int, Field(ge=1, le=86_400)] = 600


class LimitsConfig(_Table):
    """What a client may do before it gets 429 or is disconnected."""

    requests_per_s: Annotated[float, Field(gt=0)] = 10.0
    burst: Annotated[int, Field(ge=1)] = 15
    spot_requests_per_h: Annotated[float, Field(gt=0)] = 10_000.0
    subscribe_within_s: Annotated[float, Field(gt=0)] = 5.0
    max_queued_messages: Annotated[int, Field(ge=10)] = 20_000


class Config(_Table):
    """The whole file."""

    server: ServerConfig = ServerConfig()
    timeline: TimelineConfig
    limits: LimitsConfig = LimitsConfig()


def load_config(path: Path) -> Config:
    """Read and validate `path`. Raises ConfigError with one message for all that is wrong."""
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
        problems = []
        for detail in error.errors():
            key = ".".join(str(part) for part in detail["loc"])
            if detail["type"] == "extra_forbidden":
                problems.append(f"  {key}: there is no such key; remove it or correct its name")
            elif detail["type"] == "missing":
                problems.append(f"  {key}: is missing; add it")
            else:
                problems.append(f"  {key}: {detail['msg']}")
        raise ConfigError(f"{path}: the configuration is not valid:\n" + "\n".join(problems)) from error
