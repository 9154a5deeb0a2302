"""What a session's runs say together: estimates over repetitions, the answer in words, differences between sessions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compare.hist import Latencies
from compare.stats import PUBLISHED_REPETITIONS, Difference, Estimate, difference, estimate
from compare.store import FinishedRun

Key = tuple[str, str, str, str, str]
# The rate at which modes are compared in one line; where it was not measured, the nearest one that was.
REFERENCE_PER_S = 1000.0
ENGINES = {"spark": "Spark", "flink": "Flink"}
# Metrics of which more is better: of all others less is.
MORE_IS_BETTER = {"sustained_per_s", "drain_per_s", "share_of_ceiling"}


@dataclass(frozen=True)
class Summary:
    """Estimates by (experiment, configuration, engine, point, metric), of valid runs alone; the rest is listed."""

    values: Mapping[Key, Sequence[float]]
    titles: Mapping[str, str]
    runs: Sequence[FinishedRun]
    excluded: Sequence[FinishedRun] = field(default_factory=list)

    def estimate(self, key: Key) -> Estimate | None:
        """Return a figure's estimate, or None where it was not measured."""
        return estimate(self.values.get(key, ()))

    def points(self, experiment: str, configuration: str, engine: str) -> list[str]:
        """Return the points of an experiment at which something was measured, in the order of their numbers."""
        found = {key[3] for key in self.values if key[:3] == (experiment, configuration, engine)}
        return sorted(found, key=number_of)

    def configurations(self, experiment: str) -> list[tuple[str, str]]:
        """Return (configuration, engine) of an experiment, in the order in which they were run."""
        return list(dict.fromkeys((key[1], key[2]) for key in self.values if key[0] == experiment))

    def reference_point(self) -> str | None:
        """Return the point of the latency experiment that is nearest to the reference rate and common to most."""
        counts: dict[str, int] = {}
        for key in self.values:
            if key[0] == "latency" and key[4] == "p50_ms":
                counts[key[3]] = counts.get(key[3], 0) + 1
        if not counts:
            return None
        return min(counts, key=lambda point: (-counts[point], abs(number_of(point) - REFERENCE_PER_S)))

    @property
    def repetitions(self) -> int:
        """The fewest repetitions of any figure; 0 without figures."""
        return min((len(found) for found in self.values.values()), default=0)

    @property
    def is_result(self) -> bool:
        """Whether every figure has the repetitions that a published one needs."""
        return self.repetitions >= PUBLISHED_REPETITIONS


def number_of(point: str) -> float:
    """Return the number that a point begins with, 0 without one: by what points are ordered."""
    digits = "".join(char if char.isdigit() or char in ".e+" else " " for char in point).split()
    try:
        return float(digits[0]) if digits else 0.0
    except ValueError:
        return 0.0


def summarise(runs: Iterable[FinishedRun]) -> Summary:
    """Return the summary of finished runs."""
    found = list(runs)
    values: dict[Key, list[float]] = {}
    for run in found:
        if run.verdict == "valid":
            for figure in run.figures:
                values.setdefault(figure.key, []).append(figure.value)
    return Summary(
        values, {run.plan.configuration: run.plan.title for run in found}, found,
        [run for run in found if run.verdict != "valid"],
    )  # fmt: skip


def merged(runs: Iterable[FinishedRun], experiment: str, point: str) -> dict[tuple[str, str], Latencies]:
    """Return (configuration, engine) => the latencies of all valid repetitions at a point, as one histogram."""
    found: dict[tuple[str, str], Latencies] = {}
    for run in runs:
        if run.verdict != "valid" or not any(step.experiment == experiment for step in run.plan.steps):
            continue
        histograms = run.histograms()
        for engine in run.plan.engines:
            one = histograms.get(f"{experiment} {point} {engine}")
            if one is not None and len(one):
                found.setdefault((run.plan.configuration, engine), Latencies()).merge(one)
    return found


# In words


def number(value: float) -> str:
    """Return a number as people read it: three digits, thousands apart."""
    if math.isnan(value):
        return "-"
    size = abs(value)
    if size >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.0f}" if size >= 100 else f"{value:.3g}"


def with_interval(found: Estimate | None, unit: str = "") -> str:
    """Return an estimate with its interval, "-" where there is none."""
    if found is None:
        return "-"
    text = number(found.median) + unit
    return text if found.repetitions < 2 else f"{text} ({number(found.low)} to {number(found.high)})"


def _best(summary: Summary, experiment: str, engine: str, point: str, metric: str) -> tuple[str, Estimate] | None:
    """Return the configuration of an engine with the best median of a metric."""
    found = [
        (key[1], one)
        for key in summary.values
        if (key[0], key[2], key[3], key[4]) == (experiment, engine, point, metric)
        and (one := summary.estimate(key)) is not None
    ]
    sign = -1 if metric in MORE_IS_BETTER else 1
    return min(found, key=lambda entry: sign * entry[1].median, default=None)


def answer(summary: Summary) -> list[str]:
    """Return the answer in three sentences: latency, throughput, cost. Each says so where it was not measured."""
    return [_latency_sentence(summary), _throughput_sentence(summary), _cost_sentence(summary)]


def _latency_sentence(summary: Summary) -> str:
    point = summary.reference_point()
    parts = []
    for engine, name in ENGINES.items():
        best = _best(summary, "latency", engine, point, "p50_ms") if point else None
        if best is None or point is None:
            continue
        p99 = summary.estimate(("latency", best[0], engine, point, "p99_ms"))
        parts.append((
            best[1].median,
            f"{number(best[1].median)} ms after its intended time with {name} at its quickest"
            f" ({summary.titles[best[0]]}; p99 {number(p99.median) if p99 else '-'} ms)",
        ))  # fmt: skip
    if not parts:
        return "Latency was not measured."
    parts.sort()
    return f"At {point} half of the events have their row " + ", and ".join(text for _, text in parts) + "."


def _throughput_sentence(summary: Summary) -> str:
    parts = []
    for engine, name in ENGINES.items():
        best = _best(summary, "sustainable", engine, "", "sustained_per_s")
        if best is not None:
            share = summary.estimate(("sustainable", best[0], engine, "", "share_of_ceiling"))
            parts.append((
                -best[1].median,
                f"{name} keeps up with {number(best[1].median)} events/s"
                + (f", {share.median:.0%} of what PostgreSQL's COPY takes" if share else "")
                + f" ({summary.titles[best[0]]})",
            ))  # fmt: skip
    if not parts:
        return "The sustainable rate was not measured."
    parts.sort()
    return "; ".join(text for _, text in parts) + "."


def _cost_sentence(summary: Summary) -> str:
    parts = []
    for engine, name in ENGINES.items():
        points = {key[3] for key in summary.values if key[0] == "resources" and key[2] == engine}
        for point in sorted(points, key=number_of)[-1:]:
            best = _best(summary, "resources", engine, point, f"cpu_s_per_million {engine}")
            if best is not None:
                peak = summary.estimate(("resources", best[0], engine, point, f"peak_mib {engine}"))
                parts.append((
                    best[1].median,
                    f"{number(best[1].median)} CPU-seconds of {name}'s own"
                    + (f" and {number(peak.median)} MiB at their peak" if peak else "")
                    + f" ({summary.titles[best[0]]}, {point})",
                ))  # fmt: skip
    if not parts:
        return "Cost was not measured."
    parts.sort()
    return "A million events cost " + ", against ".join(text for _, text in parts) + "."


HEADLINE = [
    "Configuration", "p50, ms", "p99, ms", "sustained, events/s", "share of COPY", "CPU-s per million", "peak, MiB",
    "back after a kill, s",
]  # fmt: skip


def headline(summary: Summary) -> list[list[str]]:
    """Return the one table: a row for each configuration and engine that ran alone, its cells as HEADLINE says."""
    point = summary.reference_point() or ""
    names = dict.fromkeys(
        (key[1], key[2]) for key in summary.values if key[0] in {"latency", "sustainable", "resources", "recovery"}
    )
    rows = []
    for configuration, engine in sorted(names, key=lambda entry: (entry[1] != "spark", entry[0])):
        at = {name: (name, configuration, engine) for name in ("latency", "sustainable", "resources", "recovery")}
        load = (summary.points(*at["resources"]) or [""])[-1]
        faults = summary.points(*at["recovery"])
        back = [
            with_interval(summary.estimate((*at["recovery"], fault, "first_row_s"))) + f" {fault}" for fault in faults
        ]
        share = summary.estimate((*at["sustainable"], "", "share_of_ceiling"))
        rows.append([
            summary.titles[configuration],
            with_interval(summary.estimate((*at["latency"], point, "p50_ms"))),
            with_interval(summary.estimate((*at["latency"], point, "p99_ms"))),
            with_interval(summary.estimate((*at["sustainable"], "", "sustained_per_s"))),
            f"{share.median:.0%}" if share else "-",
            with_interval(summary.estimate((*at["resources"], load, f"cpu_s_per_million {engine}"))),
            with_interval(summary.estimate((*at["resources"], load, f"peak_mib {engine}"))),
            "; ".join(back) or "-",
        ])  # fmt: skip
    return rows


def standing(summary: Summary) -> str:
    """Return in one sentence how much the figures are worth."""
    runs, bad = len(summary.runs), len(summary.excluded)
    text = f"{runs} runs, {runs - bad} of them valid"
    if bad:
        red = sum(run.verdict == "red" for run in summary.excluded)
        text += f" ({red} red, {bad - red} invalid, left out of every figure and listed below)"
    if summary.is_result:
        return f"{text}; figures are medians of at least {PUBLISHED_REPETITIONS} repetitions, with 95 % intervals."
    return (
        f"{text}; some figures have {summary.repetitions} repetition{'s' * (summary.repetitions != 1)} only: "
        f"a look, not a result, which takes {PUBLISHED_REPETITIONS}."
    )


def machine_words(about: Mapping[str, Any]) -> str:
    """Return the machine and the lab that a session ran on."""
    lab = about.get("lab", {})
    found = lab.get("machine", {})
    machine = found if isinstance(found, str) else (
        f"{found.get('cores')} cores ({found.get('processor')}), {found.get('memory_mib', 0) // 1024} GiB, "
        f"Linux {found.get('kernel')}"
    )  # fmt: skip
    nodes = len(lab.get("nodes", {}))
    return machine + (f"; {nodes} nodes on {lab.get('target')}" if nodes else "")


def markdown(summary: Summary, about: Mapping[str, Any]) -> str:
    """Return the summary for the README: answer, table, machine."""
    lines = [*answer(summary), "", "| " + " | ".join(HEADLINE) + " |", "|" + "---|" * len(HEADLINE)]
    lines += ["| " + " | ".join(row) + " |" for row in headline(summary)]
    point = summary.reference_point()
    lines += [
        "", f"Latency at {point or 'no rate'}, from intended send time to commit. {standing(summary)}",
        f"Machine: {machine_words(about)}. {str(about.get('began', ''))[:10]}, commit {_commit(about)}.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _commit(about: Mapping[str, Any]) -> str:
    return str(about.get("lab", {}).get("commit", "unknown"))[:12]


# Differences


@dataclass(frozen=True)
class Compared:
    """A figure in two sessions."""

    key: Key
    a: Estimate
    b: Estimate
    difference: Difference | None


def compare_sessions(a: Summary, b: Summary) -> list[Compared]:
    """Return every figure that both have, with what its difference is worth; None where A's median is not positive."""
    found = []
    for key in a.values:
        one, other = a.estimate(key), b.estimate(key)
        if one is not None and other is not None:
            apart = difference(a.values[key], b.values[key]) if one.median > 0 else None
            found.append(Compared(key, one, other, apart))
    return found


def diff_lines(found: Sequence[Compared], *, only_real: bool = False) -> list[str]:
    """Return differences side by side, those that are real first."""
    order = {"real": 0, "too few runs": 1, "noise": 2}
    lines = []
    for entry in sorted(found, key=lambda one: order[one.difference.verdict] if one.difference else 3):
        verdict = entry.difference.verdict if entry.difference else "no ratio"
        if only_real and verdict != "real":
            continue
        name = " ".join(part for part in entry.key if part)
        change = ""
        if entry.difference:
            change = f"x {entry.difference.ratio:.3g} ({entry.difference.low:.3g} to {entry.difference.high:.3g})"
        lines.append(f"{verdict:<12}  {name:<64}  {with_interval(entry.a):>28}  {with_interval(entry.b):>28}  {change}")
    return lines
