"""The report: one HTML file that needs nothing else, and the summary in Markdown. All that it says is from the runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from compare import charts, summary
from compare.charts import Bar, Line, Styles
from compare.hist import PERCENTILES, Latencies
from compare.store import FinishedRun, Session
from compare.summary import Summary

CDF_POINTS = 160
TAIL = [0.5, 0.9, 0.95, 0.99, 0.999]
SECTIONS = {
    "latency": "How long until a row is there", "throughput": "What can be kept up, as a share of the ceiling",
    "burst": "What a burst does", "cost": "What a million events cost", "recovery": "After a kill",
    "candles": "Candles", "together": "Both engines on the machine",
}  # fmt: skip
WITHOUT = [
    "Not which engine is better: which one, for this stream, this sink and these settings, on this machine.",
    "Nothing of large state, joins, many topics, long runs or other sinks. PostgreSQL is a good part of what is "
    "measured.",
    "All nodes share the cores of one machine, generator and Kafka included: rates are this machine's, and no capacity "
    "plan.",
    "Doubles that the key has absorbed are not counted: how often an engine wrote in vain is not seen.",
    "A commit's time is taken before others can see the row, for both engines alike.",
    "Of many figures, about one in twenty seems to differ by chance alone.",
]


def thinned(curve: Sequence[tuple[float, float]], points: int = CDF_POINTS) -> list[tuple[float, float]]:
    """Return a distribution with no more than about `points` points, its tail and its ends kept."""
    if len(curve) <= points:
        return list(curve)
    found, last = [curve[0]], curve[0][1]
    for value, fraction in curve[1:-1]:
        # Steps get finer towards the tail, where the axis is stretched.
        if fraction - last >= max(1e-4, (1 - last) / (points / 12)):
            found.append((value, fraction))
            last = fraction
    return [*found, curve[-1]]


def _title(found: Summary, configuration: str, engine: str) -> str:
    title = found.titles[configuration]
    return title if title.lower().startswith(engine) else f"{title}: {summary.ENGINES[engine]}"


def latency_charts(found: Summary, styles: Styles, experiment: str = "latency") -> list[tuple[str, str]]:
    """Return (heading, chart) of percentiles by rate, and of the distributions at each rate."""
    made = []
    names = found.configurations(experiment)
    for metric, title in (("p50_ms", "Median latency by rate"), ("p99_ms", "99th percentile by rate")):
        drawn = []
        for configuration, engine in names:
            estimates = [
                (summary.number_of(point), one)
                for point in found.points(experiment, configuration, engine)
                if (one := found.estimate((experiment, configuration, engine, point, metric))) is not None
            ]
            if estimates:
                drawn.append(Line(
                    _title(found, configuration, engine), engine, [x for x, _ in estimates],
                    [one.median for _, one in estimates], [one.low for _, one in estimates],
                    [one.high for _, one in estimates],
                ))  # fmt: skip
        if drawn and max(len(line.x) for line in drawn) > 1:
            chart = charts.lines(
                f"{experiment}: {title}", drawn, styles, x="events per second", y="milliseconds", log_x=True, log_y=True
            )
            made.append((title, chart))
    points = sorted({point for name in names for point in found.points(experiment, *name)}, key=summary.number_of)
    for point in points:
        curves = summary.merged(found.runs, experiment, point)
        drawn = [
            # A distribution begins where nothing is below.
            Line(_title(found, *name), name[1], [curve[0][0], *(x for x, _ in curve)], [0.0, *(y for _, y in curve)])
            for name, one in curves.items()
            if (curve := thinned(one.curve()))
        ]
        if drawn:
            title = f"Distribution at {point}"
            chart = charts.lines(
                f"{experiment}: {title}", drawn, styles, x="milliseconds", y="share of events at or below", log_x=True,
                limits=(0, 1.02),
            )  # fmt: skip
            made.append((title, chart))
    return made


def latency_table(found: Summary, experiment: str = "latency") -> dict[str, Any]:
    """Return every percentile of an experiment as a table."""
    names = [*PERCENTILES, "max"]
    rows = []
    for configuration, engine in found.configurations(experiment):
        for point in found.points(experiment, configuration, engine):
            cells = [
                summary.with_interval(found.estimate((experiment, configuration, engine, point, f"{name}_ms")))
                for name in names
            ]
            if any(cell != "-" for cell in cells):
                negative = found.values.get((experiment, configuration, engine, point, "negative"), [])
                rows.append([_title(found, configuration, engine), point, *cells, summary.number(float(sum(negative)))])
    return {"head": ["Configuration", "Load", *(f"{name}, ms" for name in names), "negative"], "rows": rows}


def figure_table(found: Summary, experiments: Sequence[str], metrics: Mapping[str, str]) -> dict[str, Any]:
    """Return chosen metrics (name => heading; `ENGINE` stands for the engine's) of experiments as a table."""
    rows = []
    for experiment in experiments:
        for configuration, engine in found.configurations(experiment):
            for point in found.points(experiment, configuration, engine):
                cells = [
                    summary.with_interval(
                        found.estimate((experiment, configuration, engine, point, metric.replace("ENGINE", engine)))
                    )
                    for metric in metrics
                ]
                if any(cell != "-" for cell in cells):
                    rows.append([experiment, _title(found, configuration, engine), point, *cells])
    return {"head": ["Experiment", "Configuration", "Load", *metrics.values()], "rows": rows}


def throughput_chart(found: Summary, styles: Styles) -> str:
    """Return the shares of the ceiling as bars, "" where none was measured."""
    drawn = []
    for experiment in ("sustainable", "drain", "scaling"):
        for configuration, engine in found.configurations(experiment):
            for point in found.points(experiment, configuration, engine):
                share = found.estimate((experiment, configuration, engine, point, "share_of_ceiling"))
                if share is not None:
                    title = _title(found, configuration, engine)
                    drawn.append(
                        Bar(f"{title}, {point or 'sustained'}", engine, title, [("share", 100 * share.median)])
                    )
    if not drawn:
        return ""
    return charts.bars("Throughput as a share of COPY", drawn, styles, x="% of COPY")


def cost_chart(found: Summary, styles: Styles) -> str:
    """Return CPU-seconds per million events as bars of engine, PostgreSQL and Kafka, "" where none was measured."""
    drawn = []
    for configuration, engine in found.configurations("resources"):
        for point in found.points("resources", configuration, engine):
            parts = [
                (name, one.median)
                for component, name in ((engine, "engine"), ("postgres", "PostgreSQL"), ("kafka", "Kafka"))
                if (one := found.estimate(
                    ("resources", configuration, engine, point, f"cpu_s_per_million {component}")
                )) is not None
            ]  # fmt: skip
            if parts:
                title = _title(found, configuration, engine)
                drawn.append(Bar(f"{title}, {point}", engine, title, parts))
    if not drawn:
        return ""
    return charts.bars("CPU-seconds per million events", drawn, styles, x="CPU-seconds per million events")


def recovery_charts(found: Summary, styles: Styles) -> list[tuple[str, str]]:
    """Return for each fault the lag around the kill, of the first valid repetition of each configuration."""
    lines: dict[str, list[Line]] = {}
    seen: set[tuple[str, str]] = set()
    for run in found.runs:
        if run.verdict != "valid":
            continue
        for step in run.plan.steps:
            if step.fault is None or (run.plan.configuration, step.fault) in seen:
                continue
            seen.add((run.plan.configuration, step.fault))
            series = run.series()
            for engine in run.plan.engines:
                name = f"{step.experiment} {step.fault}"
                window = run.result["engines"][engine]["windows"].get(name)
                seconds = series.get(f"{name} {engine}")
                if window is None or seconds is None:
                    continue
                fault_s = (window["fault_us"] - window["start_us"]) / 1e6
                lines.setdefault(step.fault, []).append(Line(
                    _title(found, run.plan.configuration, engine), engine,
                    [float(second["second"] or 0) + 1 - fault_s for second in seconds],
                    [float(second["lag"] or 0) for second in seconds],
                ))  # fmt: skip
    return [
        (f"Lag around the kill: {fault}", charts.lines(
            f"recovery: {fault}", drawn, styles, x="seconds from the kill", y="events without a row", marks=[0]
        ))
        for fault, drawn in lines.items()
    ]  # fmt: skip


def audit_table(found: Summary) -> dict[str, Any]:
    """Return what became of every event, run by run."""
    names = ["delivered", "late", "lost", "rejected", "unsent", "duplicated"]
    rows = []
    for run in found.runs:
        for engine in run.plan.engines:
            entry = run.result["engines"][engine]["account"]
            rows.append([run.plan.id, engine, run.verdict, *(f"{entry[name]:,}" for name in names)])
    return {"head": ["Run", "Engine", "Verdict", *names], "rows": rows}


def generator_table(found: Summary) -> dict[str, Any]:
    """Return how late the generator itself was, all runs of a window together."""
    delays: dict[str, Latencies] = {}
    for run in found.runs:
        for name, one in run.histograms().items():
            if name.endswith(" generator") and " probe " not in name:
                delays.setdefault(name.removesuffix(" generator"), Latencies()).merge(one)
    rows = []
    for name, one in sorted(delays.items()):
        cells = [
            summary.number(value) if (value := one.at_ms(percent)) is not None else "-" for percent in (50, 99, 99.9)
        ]
        rows.append([name, f"{len(one):,}", *cells])
    return {"head": ["Load", "events", "p50, ms", "p99, ms", "p99.9, ms"], "rows": rows}


def candles_table(found: Summary) -> dict[str, Any]:
    """Return how the candles compare with those that were to come."""
    rows = [
        [
            run.plan.id,
            engine,
            *(str(window["candles"][name]) for name in ("compared", "missing", "different", "strange")),
        ]
        for run in found.runs
        for engine in run.plan.engines
        for window in run.result["engines"][engine]["windows"].values()
        if "candles" in window
    ]
    return {"head": ["Run", "Engine", "compared", "missing", "different", "of no window"], "rows": rows}


def settings(found: Summary, about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return every setting: of the lab, and of each configuration as it ran."""
    made = [("The lab and its machine", json.dumps(about.get("lab", {}), indent=1, sort_keys=True))]
    seen: set[str] = set()
    for run in found.runs:
        if run.plan.configuration not in seen:
            seen.add(run.plan.configuration)
            shown = {"variables": run.plan.variables, "as running": run.manifest.get("engines", {})}
            made.append((run.plan.title, json.dumps(shown, indent=1, sort_keys=True)))
    return made


def sections(found: Summary) -> list[dict[str, Any]]:
    """Return the report's sections: heading, charts, tables."""
    styles = Styles()
    made: list[dict[str, Any]] = [
        {"id": "latency", "charts": latency_charts(found, styles), "tables": [latency_table(found)]},
        {"id": "throughput", "charts": [("", throughput_chart(found, styles))], "tables": [figure_table(
            found, ["sustainable", "drain", "scaling"],
            {"sustained_per_s": "sustained, events/s", "drain_per_s": "drained, events/s",
             "share_of_ceiling": "share of COPY", "first_row_s": "first row after, s", "drained_s": "drained after, s"},
        )]},
        {"id": "burst", "charts": [], "tables": [figure_table(found, ["burst"], {
            "p50_ms": "p50, ms", "p99_ms": "p99, ms", "max_ms": "max, ms", "lag_highest": "highest lag, events",
            "calm_s": "as before after, s",
        })]},
        {"id": "cost", "charts": [("", cost_chart(found, styles))], "tables": [figure_table(found, ["resources"], {
            "cpu_s_per_million ENGINE": "engine, CPU-s", "cpu_s_per_million postgres": "PostgreSQL, CPU-s",
            "cpu_s_per_million kafka": "Kafka, CPU-s",
            "idle_cores ENGINE": "engine idle, cores", "peak_mib ENGINE": "engine's peak, MiB",
            "read_mib_per_million ENGINE": "engine reads, MiB", "write_mib_per_million ENGINE": "engine writes, MiB",
            "write_mib_per_million postgres": "PostgreSQL writes, MiB",
        })]},
        {"id": "recovery", "charts": recovery_charts(found, styles), "tables": [figure_table(found, ["recovery"], {
            "first_row_s": "first row after, s", "steady_lag_s": "steady lag after, s",
            "lag_highest": "highest lag, events",
        })]},
        {"id": "candles", "charts": [], "tables": [candles_table(found)]},
        {"id": "together", "charts": latency_charts(found, styles, "together"),
         "tables": [latency_table(found, "together")]},
    ]  # fmt: skip
    for section in made:
        section["title"] = SECTIONS[section["id"]]
        section["charts"] = [chart for chart in section["charts"] if chart[1]]
        section["tables"] = [table for table in section["tables"] if table["rows"]]
        section["measured"] = bool(section["charts"] or section["tables"])
    return made


def html(found: Summary, about: Mapping[str, Any]) -> str:
    """Return the report as one page that loads nothing."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return environment.get_template("report.html.j2").render(
        answer=summary.answer(found), head=summary.HEADLINE, rows=summary.headline(found),
        standing=summary.standing(found), is_result=found.is_result, machine=summary.machine_words(about),
        began=str(about.get("began", ""))[:10], form=f"{about.get('form', '')} {_broken(about)}".strip(),
        commit=str(about.get("lab", {}).get("commit", ""))[:12],
        reference=found.reference_point() or "no rate", sections=sections(found), audit=audit_table(found),
        generator=generator_table(found), excluded=[
            (run.plan.id, run.verdict, [*run.result["red"], *run.result["invalid"]]) for run in found.excluded
        ],
        notes=[(run.plan.id, note) for run in found.runs for note in run.result["notes"]],
        settings=settings(found, about), without=WITHOUT,
    )  # fmt: skip


def _broken(about: Mapping[str, Any]) -> str:
    return f"(broken on purpose: {about['broken']})" if about.get("broken") else ""


def write(session: Session, folder: Path) -> list[Path]:
    """Write report.html and summary.md of a session; returns the files."""
    runs: list[FinishedRun] = list(session.finished())
    found = summary.summarise(runs)
    folder.mkdir(parents=True, exist_ok=True)
    files = {"report.html": html(found, session.about), "summary.md": summary.markdown(found, session.about)}
    for name, text in files.items():
        (folder / name).write_text(text)
    return [folder / name for name in files]
