"""Settings of the DAGs: one TOML file, named by $CRYPTO_AIRFLOW_CONFIG. It holds no secret."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

VARIABLE = "CRYPTO_AIRFLOW_CONFIG"
DEFAULT_PATH = "/etc/airflow/pipeline.toml"


class Section(BaseModel):
    """A table of the file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class EngineTables(Section):
    """Where an engine writes."""

    prices: str
    candles: str


class Quality(Section):
    """Limits of the DAG data_quality."""

    window_s: PositiveInt = 3600
    """How far back the checks look."""
    settle_s: PositiveInt = 180
    """Both engines must have written what is older than that; younger rows are not compared."""
    freshness_s: PositiveFloat = 120
    """How old an engine's newest row may be."""


class Report(Section):
    """Where the DAG comparison_report writes."""

    path: Path = Path("/var/lib/airflow/reports")
    keep: PositiveInt = 30


class Retention(Section):
    """Defaults of the DAG retention."""

    days: PositiveInt = 14
    batch_rows: PositiveInt = Field(default=2000, le=10_000)
    max_rows: PositiveInt = 20_000_000
    """How many rows a run deletes at most; the next one goes on. A day of all trades is some millions in both tables:
    with less than that a lab that takes them all would never be done."""
    pause_s: float = Field(default=0.05, ge=0)
    """Between two batches, so that the writers come first."""


class RestartTarget(Section):
    """A unit on a node."""

    node: str
    unit: str


class Restart(Section):
    """How the DAG pipeline_restart reaches the services."""

    user: str = "lab-restart"
    key_file: Path = Path("/var/lib/airflow/ssh/id_ed25519")
    known_hosts_file: Path = Path("/var/lib/airflow/ssh/known_hosts")
    timeout_s: PositiveInt = 330
    rows_timeout_s: PositiveInt = 240
    services: dict[str, list[RestartTarget]] = {}
    """What can be asked for, and the units that it means, in the order in which they are restarted."""


class Settings(Section):
    """The whole file."""

    bootstrap_servers: list[str] = Field(min_length=1)
    topic: str = "crypto_prices"
    symbols: list[str] = Field(min_length=1)
    candle_window_s: PositiveInt = 60
    candle_watermark_delay_s: PositiveInt = 120
    engines: dict[str, EngineTables] = Field(min_length=2, max_length=2)
    rejected_table: str = "rejected_messages"
    quality_table: str = "data_quality_results"
    quality: Quality = Quality()
    report: Report = Report()
    retention: Retention = Retention()
    restart: Restart = Restart()


def load(path: Path | None = None) -> Settings:
    """Read the file; OSError where there is none, ValueError where it is wrong."""
    path = path or Path(os.environ.get(VARIABLE) or DEFAULT_PATH)
    return Settings.model_validate(tomllib.loads(path.read_text()))
