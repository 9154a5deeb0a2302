"""Where results live: a folder for each session, in it one for each finished run. No name ever stands for half a run.

SESSION/session.json           what was asked: form, experiments, the lab, the engines' facts at the start
SESSION/runs/EXPERIMENT--CONFIGURATION--...--REPETITION/
    result.json                verdict, figures, windows, accounts
    manifest.json              versions, every setting as running, topology, host, commit, clocks
    histograms.json            HdrHistograms, in their own encoding
    series/WINDOW.csv          second by second: intended, committed, lag, p50, p99
    samples.csv                counters of every unit, each second
    audit.json, generator.json what was sent, and what became of it
    logs/                      the units' journals of that time
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from compare.experiments import RunPlan
from compare.hist import Latencies
from compare.lab import Usage
from compare.runner import Figure, RunOutput


class StoreError(Exception):
    """The folder is none of results, or is not what was asked for."""


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w") as stream:
        json.dump(content, stream, indent=1, allow_nan=False)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def file_name(text: str) -> str:
    """Return a name for a file from any text."""
    return re.sub(r"[^A-Za-z0-9.,_-]+", "-", text.replace("/s", "-per-s")).strip("-")


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, as it was written."""

    path: Path
    plan: RunPlan
    result: dict[str, Any]
    manifest: dict[str, Any]

    @property
    def verdict(self) -> str:
        """`valid`, `invalid` or `red`."""
        return str(self.result["verdict"])

    @property
    def figures(self) -> list[Figure]:
        """What was measured."""
        return [Figure(**found) for found in self.result["figures"]]

    def histograms(self) -> dict[str, Latencies]:
        """Return the histograms by their window."""
        found = json.loads((self.path / "histograms.json").read_text())
        return {name: Latencies.from_json(entry) for name, entry in found.items()}

    def series(self) -> dict[str, list[dict[str, float | None]]]:
        """Return the time series by their window."""
        names = json.loads((self.path / "series" / "names.json").read_text())
        found = {}
        for name, file in names.items():
            with (self.path / "series" / file).open() as stream:
                found[name] = [
                    {key: float(value) if value else None for key, value in row.items()}
                    for row in csv.DictReader(stream)
                ]
        return found

    def read(self, name: str) -> Any:  # noqa: ANN401
        """Return the content of one of the run's JSON files."""
        return json.loads((self.path / name).read_text())


class Session:
    """A folder of results."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def runs_path(self) -> Path:
        """Folder of the finished runs."""
        return self.path / "runs"

    @classmethod
    def create(cls, path: Path, about: dict[str, Any]) -> Session:
        """Begin a session. Raises StoreError where there is one already."""
        if (path / "session.json").exists():
            raise StoreError(f"{path}: there is a session already: `tools/compare resume` goes on with it")
        (path / "runs").mkdir(parents=True, exist_ok=True)
        write_json(path / "session.json", about)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Session:
        """Open a session. Raises StoreError where there is none."""
        if not (path / "session.json").is_file():
            raise StoreError(f"{path}: there are no results: `tools/compare run` makes some")
        return cls(path)

    @property
    def about(self) -> dict[str, Any]:
        """What was asked."""
        return dict(json.loads((self.path / "session.json").read_text()))

    def plans(self) -> list[RunPlan]:
        """Return the runs of the session, in their order."""
        return [RunPlan.model_validate(found) for found in self.about["plan"]]

    def _run_path(self, plan: RunPlan) -> Path:
        return self.runs_path / plan.id.replace("/", "--")

    def is_finished(self, plan: RunPlan) -> bool:
        """Tell whether a run is there. A red or invalid one is: it is a finding, and is not made again by itself."""
        return (self._run_path(plan) / "result.json").is_file()

    def pending(self) -> list[RunPlan]:
        """Return the runs that are still to be made."""
        return [plan for plan in self.plans() if not self.is_finished(plan)]

    def forget(self, plan: RunPlan) -> None:
        """Put a finished run aside, so that it is made again; it is kept beside the others."""
        path, number = self._run_path(plan), 1
        while (aside := self.path / "aside" / f"{path.name}.{number}").exists():
            number += 1
        aside.parent.mkdir(exist_ok=True)
        path.rename(aside)

    def save(self, plan: RunPlan, output: RunOutput) -> Path:
        """Write a run; its folder has its name only once it is whole."""
        path = self._run_path(plan)
        partial = path.with_name(f".{path.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "series").mkdir(parents=True)
        (partial / "logs").mkdir()
        write_json(partial / "manifest.json", output.manifest)
        write_json(partial / "audit.json", output.accounts)
        write_json(partial / "generator.json", output.generator)
        write_json(partial / "histograms.json", {name: one.to_json() for name, one in output.histograms.items()})
        names = {name: f"{file_name(name)}.csv" for name in output.series}
        write_json(partial / "series" / "names.json", names)
        for name, found in output.series.items():
            with (partial / "series" / names[name]).open("w", newline="") as stream:
                writer = csv.DictWriter(stream, ["second", "intended", "committed", "lag", "p50_ms", "p99_ms"])
                writer.writeheader()
                writer.writerows(found)
        with (partial / "samples.csv").open("w", newline="") as stream:
            table = csv.DictWriter(stream, [entry.name for entry in fields(Usage)])
            table.writeheader()
            table.writerows(asdict(sample) for sample in output.samples)
        for name, text in output.logs.items():
            (partial / "logs" / file_name(name)).write_text(text)
        write_json(partial / "result.json", output.result)
        partial.rename(path)
        return path

    def finished(self) -> Iterator[FinishedRun]:
        """Give the finished runs in the order of the plan."""
        for plan in self.plans():
            if self.is_finished(plan):
                path = self._run_path(plan)
                yield FinishedRun(
                    path, plan, json.loads((path / "result.json").read_text()),
                    json.loads((path / "manifest.json").read_text()),
                )  # fmt: skip

    def overhead_s(self, default_s: float) -> float:
        """Return what runs took beside their loads, on average; `default_s` as long as none is finished."""
        spent = [
            (run.manifest["ended_us"] - run.manifest["began_us"]) / 1e6 - run.plan.seconds(0) for run in self.finished()
        ]
        return max(0.0, sum(spent) / len(spent)) if spent else default_s
