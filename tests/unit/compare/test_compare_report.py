"""From a session's files to what people read: estimates, the report, the summary, differences, tables, the CLI."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import polars as pl
import pytest
import yaml
from compare import cli, experiments, export, report, session, summary
from compare.charts import Styles
from compare.hist import Latencies
from compare.runner import Progress
from compare.store import Session
from simulated_lab import Model, SimulatedLab

CONFIGURATIONS = {
    "spark-continuous": {"title": "Spark, continuous", "engines": ["spark"]},
    "flink-10ms": {"title": "Flink, flush 10 ms", "engines": ["flink"]},
    "both": {"title": "Both <engines>", "engines": ["spark", "flink"]},
}
BURST = {"kind": "burst", "base_per_s": 100, "burst_per_s": 1000, "first_s": 3, "burst_s": 1, "duration_s": 8}
# Experiment => its kind, and its forms.
FORMS = {
    "latency": ("grid", {"rates_per_s": [100, 1000], "duration_s": 6, "warmup_s": 1}),
    "resources": ("grid", {"rates_per_s": [500], "duration_s": 6, "warmup_s": 1}),
    "sustainable": (
        "search",
        {"start_per_s": 1000, "max_per_s": 8000, "probe_s": 5, "warmup_s": 1, "p99_ms": 1000, "resolution": 0.5},
    ),
    "drain": ("drain", {"backlogs": [5000]}),
    "burst": ("burst", {"warmup_s": 1, "bursts": [BURST]}),
    "candles": ("candles", {"rate_per_s": 50, "duration_s": 12, "warmup_s": 1, "event_time_speed": 60}),
    "recovery": ("recovery", {"rate_per_s": 100, "duration_s": 30, "fault_at_s": 8}),
    "together": ("grid", {"rates_per_s": [100], "duration_s": 6, "warmup_s": 1}),
}


def declaration(name: str) -> dict[str, object]:
    kind, form = FORMS[name]
    names = ["both"] if name == "together" else ["spark-continuous", "flink-10ms"]
    more = {"faults": {"spark-continuous": ["spark-driver"], "flink-10ms": ["flink-taskmanager"]}}
    return {
        "name": name, "kind": kind, "question": "?", "configurations": names, "full": {"repetitions": 5, **form},
        "quick": form, **(more if kind == "recovery" else {}),
    }  # fmt: skip


def make(path: Path, lab: SimulatedLab, folder: Path, repetitions: int, only: tuple[str, ...] = ()) -> Session:
    declared = experiments.load(folder)
    plan = experiments.plan(*declared, quick=True, repetitions=repetitions, only=only)
    made = session.begin(path, lab, plan, {"form": "quick"})

    def show(_number: int, _of: int) -> object:
        return lambda _progress: None

    session.make(made, lab, lambda _line: None, show)  # type: ignore[arg-type]
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experiments")
    (path / "configurations.yaml").write_text(yaml.safe_dump(CONFIGURATIONS))
    for name in FORMS:
        (path / f"{name}.yaml").write_text(yaml.safe_dump(declaration(name)))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Session:
    """Every experiment once, on a lab whose Spark is slower."""
    lab = SimulatedLab(models={"spark": Model(latency_us=80_000, capacity_per_s=3000), "flink": Model()})
    return make(tmp_path_factory.mktemp("whole") / "s", lab, folder, 1)


@pytest.fixture(scope="module")
def page(whole: Session) -> str:
    return report.html(summary.summarise(whole.finished()), whole.about)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "data", "action"} and value and not value.startswith("#"):
                self.loaded.append(value)
            if name == "id" and value:
                self.ids.append(value)


def parsed(text: str) -> _Links:
    found = _Links()
    found.feed(text)
    return found


def test_answer_is_what_was_simulated(whole: Session) -> None:
    found = summary.summarise(whole.finished())
    assert not found.excluded
    latency, throughput, cost = summary.answer(found)
    assert latency.startswith("At 1000/s half of the events have their row 8 ms")
    assert "80.1 ms after its intended time with Spark" in latency
    assert throughput.startswith("Flink keeps up with 8,000 events/s, 8% of what PostgreSQL's COPY takes")
    assert re.search(r"Spark keeps up with [23],\d{3} events/s", throughput)
    assert "50 CPU-seconds of Flink's own" in cost


def test_report_is_one_file_that_loads_nothing(page: str) -> None:
    found = parsed(page)
    assert found.loaded == []
    assert "script" not in found.tags
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page
    assert len(page) < 2_000_000


def test_report_has_every_part(whole: Session, page: str) -> None:
    found = parsed(page)
    assert set(found.ids) >= {*report.SECTIONS, "account", "without", "settings"}
    assert "Not measured" not in page
    for sentence in summary.answer(summary.summarise(whole.finished())):
        assert sentence.replace("'", "&#39;") in page
    assert page.count('role="img"') >= 2 * 8, "each chart wide and narrow"
    assert "a look, not a result" in page
    assert "prefers-color-scheme: dark" in page
    assert "task_memory_mib" in page, "settings as running"


def test_charts_have_the_pages_colours_and_ids_of_their_own(whole: Session) -> None:
    found = report.latency_charts(summary.summarise(whole.finished()), Styles())
    text = "".join(chart for _, chart in found)
    assert not re.search(r"#(0101|0202|a0000|0000a)", text)
    assert "var(--ink)" in text
    assert "var(--spark-1)" in text
    assert "var(--flink-1)" in text
    for chart in re.findall(r"<svg .*?</svg>", text, re.DOTALL):
        ET.fromstring(chart)  # noqa: S314 - made here
    ids = parsed(text).ids
    assert len(ids) == len(set(ids))
    # What is referred to is there.
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(ids)


def test_names_are_escaped(page: str) -> None:
    assert "Both <engines>" not in page
    assert "Both &lt;engines&gt;" in page


def test_every_percentile_is_in_the_table(whole: Session) -> None:
    table = report.latency_table(summary.summarise(whole.finished()))
    assert table["head"][2:] == ["p50, ms", "p90, ms", "p95, ms", "p99, ms", "p99.9, ms", "max, ms", "negative"]
    assert len(table["rows"]) == 4
    assert all(cell != "-" for row in table["rows"] for cell in row)


def test_markdown_names_machine_and_worth(whole: Session) -> None:
    text = summary.markdown(summary.summarise(whole.finished()), whole.about)
    assert "a simulated one, 2 cores" in text
    assert "a look, not a result" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + 2


def test_session_without_runs_has_a_report_that_says_so(tmp_path: Path, folder: Path) -> None:
    declared = experiments.load(folder)
    empty = session.begin(tmp_path / "s", SimulatedLab(), experiments.plan(*declared, quick=True), {})
    text = report.html(summary.summarise(empty.finished()), empty.about)
    assert text.count("Not measured in this session.") == len(report.SECTIONS)
    assert "Latency was not measured." in text


def test_broken_runs_are_listed_and_count_for_nothing(tmp_path: Path, folder: Path) -> None:
    made = make(tmp_path / "s", SimulatedLab(lose=[5]), folder, 1, ("latency",))
    found = summary.summarise(made.finished())
    assert len(found.excluded) == 2
    assert found.values == {}
    text = report.html(found, made.about)
    assert "1 events are in the topic and not in the table" in text
    assert "Latency was not measured." in text


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> tuple[Session, Session]:
    """Five repetitions each; in the second one Spark takes half as long, and Flink is as it was."""
    path = tmp_path_factory.mktemp("pair")
    one = make(path / "a", SimulatedLab(), folder, 5, ("latency",))
    models = {"spark": Model(latency_us=40_000), "flink": Model()}
    return one, make(path / "b", SimulatedLab(models=models), folder, 5, ("latency",))


def test_difference_that_is_real_and_one_that_is_none(pair: tuple[Session, Session]) -> None:
    a, b = (summary.summarise(made.finished()) for made in pair)
    assert a.is_result
    assert "a look" not in summary.standing(a)
    found = {entry.key: entry for entry in summary.compare_sessions(a, b)}
    spark = found["latency", "spark-continuous", "spark", "1000/s", "p50_ms"].difference
    flink = found["latency", "flink-10ms", "flink", "1000/s", "p50_ms"].difference
    assert spark is not None
    assert flink is not None
    assert (spark.verdict, spark.ratio) == ("real", pytest.approx(0.5, rel=0.01))
    assert (flink.verdict, flink.ratio) == ("noise", pytest.approx(1.0))
    lines = summary.diff_lines(list(found.values()), only_real=True)
    assert lines
    assert all(line.startswith("real") and "spark" in line for line in lines)


def test_tables_are_exported_in_both_forms(whole: Session, tmp_path: Path) -> None:
    written = export.export(whole.finished(), tmp_path)
    assert len(written) == 6
    figures = pl.read_parquet(tmp_path / "figures.parquet")
    assert figures.equals(pl.read_csv(tmp_path / "figures.csv", schema=figures.schema))
    row = figures.filter(
        (pl.col("experiment") == "latency") & (pl.col("engine") == "flink") & (pl.col("point") == "1000/s")
        & (pl.col("metric") == "p50_ms")
    )  # fmt: skip
    assert row["value"].to_list() == [pytest.approx(8, rel=0.01)]
    series = pl.read_parquet(tmp_path / "series.parquet").filter(pl.col("window") == "latency 1000/s flink")
    assert series["intended"].sum() == 6000
    fractions = pl.read_parquet(tmp_path / "percentiles.parquet")
    assert fractions["fraction"].max() == 1.0


def test_thinned_distribution_keeps_ends_and_tail() -> None:
    made = Latencies()
    made.record_counts((value, 1) for value in range(1, 200_000, 7))
    curve = made.curve()
    thin = report.thinned(curve)
    assert (thin[0], thin[-1]) == (curve[0], curve[-1])
    assert len(thin) < len(curve) / 3
    assert any(0.999 < fraction < 1 for _, fraction in thin)


# The command line


def test_status_report_export_and_diff(whole: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = str(whole.path)
    assert cli.main(["status", name]) == 0
    said = capsys.readouterr().out
    assert f"{len(whole.plans())} of {len(whole.plans())} runs are made" in said
    assert cli.main(["report", name, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").stat().st_size > 50_000
    assert (tmp_path / "summary.md").is_file()
    assert cli.main(["export", name, "--out", str(tmp_path / "e")]) == 0
    assert cli.main(["diff", name, name]) == 0
    assert "too few runs" in capsys.readouterr().out


def test_plan_changes_nothing_and_says_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--quick"]) == 0
    said = capsys.readouterr().out
    assert "recovery/flink-10ms/flink-taskmanager/1" in said
    assert re.search(r"\d+ runs, about 0:1\d", said)


def test_mistakes_are_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(tmp_path)]) == 2
    assert cli.main(["plan", "--only", "speed"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "there are no results" in said[0]
    assert "no such experiment: speed" in said[1]


def test_progress_is_one_line() -> None:
    progress = Progress("latency 1000/s", 12, 12_000, 1000, {"spark": 80}, {"spark": 12.4})
    assert cli.words(progress, 3700, 3, 15) == (
        "run 3 of 15  latency 1000/s  12 s  1,000 events/s  lag spark 80  p99 spark 12 ms  left 1:01:40"
    )
