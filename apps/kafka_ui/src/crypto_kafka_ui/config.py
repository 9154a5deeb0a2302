"""The TOML configuration: its keys, their defaults, and one readable message for all that is wrong with a file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class ConfigError(Exception):
    """The configuration cannot be used; the text names the file, the keys and what to do."""


Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
Server = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+:[0-9]{1,5}$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerConfig(_Table):
    """Where the pages are."""

    host: str = "127.0.0.1"
    port: Port = 8000


class KafkaConfig(_Table):
    """Which cluster is shown, and how long an answer of its may take."""

    bootstrap_servers: Annotated[list[Server], Field(min_length=1)]
    timeout_s: Seconds = 5.0


class LimitsConfig(_Table):
    """What one page may cost."""

    # A page within so many seconds after another one says the same, and asks nobody.
    refresh_s: Seconds = 2.0
    # Messages on a page: unless asked for otherwise, and at most.
    messages: Annotated[int, Field(ge=1, le=1000)] = 50
    max_messages: Annotated[int, Field(ge=1, le=1000)] = 200
    # Read for a page of messages, at most.
    read_bytes: Annotated[int, Field(ge=65536)] = 8 * 1024 * 1024
    # Shown of a key or a value on a page of its own; in a list it is a line.
    value_bytes: Annotated[int, Field(ge=256)] = 65536
    # Questions that wait for Kafka at a time; who comes then is told to come back.
    waiting: Annotated[int, Field(ge=1)] = 16


class Config(_Table):
    """The whole file."""

    lab: str = "lab"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    server: ServerConfig = ServerConfig()
    kafka: KafkaConfig
    limits: LimitsConfig = LimitsConfig()


def load_config(path: Path) -> Config:
    """Read and validate `path`.

    Raises ConfigError with one message that lists everything that is wrong with the file.
    """
    try:
        return Config.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}. Name an existing file with --config.") from error
    except ValidationError as error:
        problems = "\n".join(
            f"  {'.'.join(str(part) for part in detail['loc'])}: {_WORDS.get(detail['type'], detail['msg'])}"
            for detail in error.errors()
        )
        raise ConfigError(f"{path}: the configuration is not valid:\n{problems}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}. Correct the line named.") from error


_WORDS = {
    "extra_forbidden": "there is no such key; remove it or correct its name",
    "missing": "is missing; add it",
}
