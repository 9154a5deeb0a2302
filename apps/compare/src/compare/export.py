"""Figures and time series as tables, for other tools: CSV and Parquet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from compare.store import FinishedRun


def figures(runs: Iterable[FinishedRun]) -> pl.DataFrame:
    """Return a row for each figure of each run, with the run's verdict: red and invalid runs are there too."""
    rows: list[dict[str, Any]] = [
        {"run": run.plan.id, "verdict": run.verdict, "repetition": run.plan.repetition, **asdict(figure)}
        for run in runs
        for figure in run.figures
    ]
    return pl.DataFrame(rows, schema={
        "run": pl.String, "verdict": pl.String, "repetition": pl.Int64, "experiment": pl.String,
        "configuration": pl.String, "engine": pl.String, "point": pl.String, "metric": pl.String, "value": pl.Float64,
    })  # fmt: skip


def series(runs: Iterable[FinishedRun]) -> pl.DataFrame:
    """Return a row for each second of each window of each run."""
    rows: list[dict[str, Any]] = [
        {"run": run.plan.id, "window": window, **second}
        for run in runs
        for window, seconds in run.series().items()
        for second in seconds
    ]
    numbers = ("second", "intended", "committed", "lag", "p50_ms", "p99_ms")
    return pl.DataFrame(rows, schema={"run": pl.String, "window": pl.String, **dict.fromkeys(numbers, pl.Float64)})


def percentiles(runs: Iterable[FinishedRun]) -> pl.DataFrame:
    """Return every histogram as (milliseconds, fraction at or below)."""
    rows: list[dict[str, Any]] = [
        {"run": run.plan.id, "window": window, "ms": value, "fraction": fraction}
        for run in runs
        for window, found in run.histograms().items()
        for value, fraction in found.curve()
    ]
    return pl.DataFrame(
        rows, schema={"run": pl.String, "window": pl.String, "ms": pl.Float64, "fraction": pl.Float64}
    )  # fmt: skip


def export(runs: Iterable[FinishedRun], folder: Path) -> list[Path]:
    """Write all tables in both forms; returns the files."""
    found = list(runs)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in (("figures", figures(found)), ("series", series(found)), ("percentiles", percentiles(found))):
        table.write_csv(folder / f"{name}.csv")
        table.write_parquet(folder / f"{name}.parquet")
        written += [folder / f"{name}.csv", folder / f"{name}.parquet"]
    return written
