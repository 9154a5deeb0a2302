"""Plans, and sessions on a simulated lab: what is declared, refused, interrupted, resumed and kept."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from compare import experiments, session
from compare.experiments import ExperimentError, RunPlan
from compare.faults import FAULTS
from compare.lab import LabError
from compare.runner import Progress
from compare.store import Session, StoreError
from simulated_lab import Model, SimulatedLab

QUICK_BUDGET_S = 20 * 60


@pytest.fixture(scope="module")
def declared() -> tuple[dict[str, experiments.Configuration], dict[str, experiments.Experiment]]:
    return experiments.load()


# What is declared


def test_every_experiment_of_the_method_is_declared(declared: tuple[dict, dict]) -> None:
    _, found = declared
    assert found.keys() == {
        "latency", "sustainable", "drain", "burst", "resources", "scaling", "candles", "recovery", "together",
    }  # fmt: skip


def test_every_mode_is_in_the_latency_experiment(declared: tuple[dict, dict]) -> None:
    configurations, found = declared
    named = [configurations[name].variables for name in found["latency"].configurations]
    assert {entry.get("spark_job_mode") for entry in named} >= {"microbatch", "continuous", "realtime"}
    assert {entry.get("spark_job_trigger_interval_ms") for entry in named} >= {1000, 15000}
    assert (
        len(
            {
                entry["flink_job_sink_flush_interval_ms"]
                for entry in named
                if "flink_job_sink_flush_interval_ms" in entry
            }
        )
        >= 3
    )


def test_variables_are_those_of_the_roles(declared: tuple[dict, dict]) -> None:
    repository = Path(__file__).resolve().parents[3]
    known = set(yaml.safe_load((repository / "ansible/playbooks/group_vars/all/contract.yml").read_text()))
    for role in ("spark_job", "flink_job"):
        known |= set(yaml.safe_load((repository / f"ansible/roles/{role}/defaults/main.yml").read_text()))
    for run in [run for quick in (True, False) for run in experiments.plan(*declared, quick=quick)]:
        assert set(run.variables) <= known, run.id


def test_quick_form_has_every_experiment_in_twenty_minutes(declared: tuple[dict, dict]) -> None:
    runs = experiments.plan(*declared, quick=True)
    assert {step.experiment for run in runs for step in run.steps} == declared[1].keys()
    assert sum(run.seconds() for run in runs) <= QUICK_BUDGET_S


def test_full_form_has_five_repetitions_of_everything(declared: tuple[dict, dict]) -> None:
    runs = experiments.plan(*declared, quick=False)
    counts = Counter(run.id.rsplit("/", 1)[0] for run in runs)
    assert set(counts.values()) == {5}
    assert all(len(run.steps) == 1 for run in runs), "a run of its own for each"


def test_order_turns_with_each_repetition(declared: tuple[dict, dict]) -> None:
    runs = experiments.plan(*declared, quick=False, only=["sustainable"])
    first, second = ([run.configuration for run in runs if run.repetition == number] for number in (1, 2))
    assert second == first[::-1]
    assert len(set(first)) > 1


def test_tags_of_runs_are_their_own(declared: tuple[dict, dict]) -> None:
    runs = experiments.plan(*declared, quick=False)
    assert len({run.tag for run in runs}) == len(runs)


def test_backlog_comes_first_and_candles_last_in_a_shared_run(declared: tuple[dict, dict]) -> None:
    shared = 0
    for run in experiments.plan(*declared, quick=True):
        kinds = [step.kind for step in run.steps]
        assert "candles" not in kinds[:-1]
        assert "drain" not in kinds[1:]
        shared += len(kinds) > 1
    assert shared >= 2


def test_unknown_experiment_is_refused(declared: tuple[dict, dict]) -> None:
    with pytest.raises(ExperimentError, match="no such experiment: speed"):
        experiments.plan(*declared, quick=True, only=["speed"])


def test_two_faults_are_built(declared: tuple[dict, dict]) -> None:
    faults = {step.fault for run in experiments.plan(*declared, quick=True) for step in run.steps if step.fault}
    assert faults == {"flink-taskmanager", "spark-driver"}
    assert all(fault in FAULTS for fault in faults)


def test_all_violations_are_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "configurations.yaml").write_text(
        "one: {title: One, engines: [flink]}\ntwo: {title: Two, engines: [storm]}\n"
    )
    (tmp_path / "latency.yaml").write_text(
        "name: latency\nkind: grid\nquestion: '?'\nconfigurations: [one, three]\n"
        "full: {repetitions: 2, rates_per_s: [1], duration_s: 5, warmup_s: 9}\n"
        "quick: {rates_per_s: [1], duration_s: 5, warmup_s: 1}\n"
    )
    (tmp_path / "other.yaml").write_text(
        "name: drain\nkind: drain\nquestion: '?'\nconfigurations: [one]\n"
        "full: {repetitions: 5, backlogs: [10]}\nquick: {backlogs: [10]}\n"
    )
    (tmp_path / "burst.yaml").write_text("name: burst\nkind: burst\nquestion: '?'\nconfigurations: [one]\nfull: {}\n")
    (tmp_path / "recovery.yaml").write_text(
        "name: recovery\nkind: recovery\nquestion: '?'\nconfigurations: [one]\nfaults: {one: [spark-driver]}\n"
        "full: {repetitions: 5, rate_per_s: 1, duration_s: 20, fault_at_s: 1}\n"
        "quick: {rate_per_s: 1, duration_s: 20, fault_at_s: 10}\n"
    )
    with pytest.raises(ExperimentError) as caught:
        experiments.load(tmp_path)
    text = str(caught.value)
    for wanted in (
        "configurations.yaml: two: engines.0",
        "latency.yaml: configuration 'three'",
        "latency.yaml: full.repetitions is 2",
        "latency.yaml: full.warmup_s",
        "other.yaml: name is 'drain'",
        "burst.yaml: full.bursts: Field required",
        "burst.yaml: quick: Field required",
        "recovery.yaml: faults.one: 'spark-driver'",
        "recovery.yaml: full.fault_at_s",
    ):
        assert wanted in text, text


# Sessions


def small(declared: tuple[dict, dict], only: tuple[str, ...] = ("scaling", "together")) -> list[RunPlan]:
    return experiments.plan(*declared, quick=True, only=only)


def begin(
    tmp_path: Path, lab: SimulatedLab, declared: tuple[dict, dict], only: tuple[str, ...] = ("scaling", "together")
) -> Session:
    return session.begin(tmp_path / "s", lab, small(declared, only), {"form": "quick"})


def quiet(_number: int, _of: int) -> object:
    def show(_progress: Progress) -> None:
        pass

    return show


def test_session_makes_and_keeps_every_run(tmp_path: Path, declared: tuple[dict, dict]) -> None:
    lab, said = SimulatedLab(), []
    made = begin(tmp_path, lab, declared)
    assert session.make(made, lab, said.append, quiet) == 0  # type: ignore[arg-type]
    assert made.pending() == []
    assert lab.calls[-1] == "restore"
    runs = list(made.finished())
    assert [run.verdict for run in runs] == ["valid"] * 5
    assert said[0].startswith("kept 3 rows")
    assert [line.rpartition(": ")[2] for line in said[1:]] == ["valid"] * 5 + ["giving the lab back"]
    for run in runs:
        for name in ("manifest.json", "result.json", "histograms.json", "audit.json", "generator.json", "samples.csv"):
            assert (run.path / name).is_file()
        assert list((run.path / "logs").iterdir())
        assert run.series()
        assert run.manifest["engines"]
        assert run.manifest["lab"]["commit"] == "0" * 12
    names = {name for run in runs for name in run.histograms()}
    assert any(name.endswith("generator") for name in names)
    assert session.time_left_s(made) == 0


def test_interrupted_session_is_resumed_without_losing_runs(tmp_path: Path, declared: tuple[dict, dict]) -> None:
    lab = SimulatedLab(interrupt_on="together")
    made = begin(tmp_path, lab, declared)
    with pytest.raises(KeyboardInterrupt):
        session.make(made, lab, lambda _line: None, quiet)  # type: ignore[arg-type]
    assert lab.calls[-1] == "restore", "the lab is given back"
    kept = {run.plan.id: (run.path / "result.json").read_text() for run in made.finished()}
    assert [plan.id for plan in made.pending()] == ["together/both-default/1"]
    assert session.time_left_s(made) > 0
    again = SimulatedLab()
    resumed = Session.open(tmp_path / "s")
    session.make(resumed, again, lambda _line: None, quiet)  # type: ignore[arg-type]
    assert [call for call in again.calls if call.startswith("prepare")] == ["prepare together/both-default/1"]
    assert {plan_id: (run.path / "result.json").read_text() for run in resumed.finished()
            if (plan_id := run.plan.id) in kept} == kept  # fmt: skip


def test_resumed_session_is_checked_again(tmp_path: Path, declared: tuple[dict, dict]) -> None:
    made = begin(tmp_path, SimulatedLab(), declared)
    with pytest.raises(session.RefusedError, match="kafka is failed"):
        session.make(made, SimulatedLab(unhealthy=["kafka is failed"]), print, quiet)  # type: ignore[arg-type]


def test_half_a_run_is_no_run(tmp_path: Path, declared: tuple[dict, dict]) -> None:
    lab = SimulatedLab()
    made = begin(tmp_path, lab, declared)
    first = made.plans()[0]
    partial = made.runs_path / f".{first.id.replace('/', '--')}.partial"
    (partial / "series").mkdir(parents=True)
    (partial / "manifest.json").write_text("{")
    assert not made.is_finished(first)
    session.make(made, lab, lambda _line: None, quiet)  # type: ignore[arg-type]
    assert made.is_finished(first)
    assert not partial.exists()


def test_run_that_could_not_be_made_stays_pending(tmp_path: Path, declared: tuple[dict, dict]) -> None:
    lab, said = SimulatedLab(fail_on="together"), []
    made = begin(tmp_path, lab, declared)
    assert session.make(made, lab, said.append, quiet) == 1  # type: ignore[arg-type]
    assert any("no route to host" in line for line in said)
    assert len(made.pending()) == 1


def test_rows_of_before_are_kept_once(tmp_path: Path, declared: tuple[dict, dict]) -> None:
    lab, said = SimulatedLab(fail_on="together"), []
    made = begin(tmp_path, lab, declared)
    session.make(made, lab, said.append, quiet)  # type: ignore[arg-type]
    assert lab.calls[0] == "keep"
    assert any("kept 3 rows of crypto_prices_flink" in line for line in said)
    session.make(made, lab, said.append, quiet)  # type: ignore[arg-type]
    assert lab.calls.count("keep") == 1


def test_nothing_is_emptied_where_the_rows_cannot_be_kept(tmp_path: Path, declared: tuple[dict, dict]) -> None:
    lab = SimulatedLab(fail_on="keep")
    made = begin(tmp_path, lab, declared)
    with pytest.raises(LabError, match="no room"):
        session.make(made, lab, print, quiet)  # type: ignore[arg-type]
    # Nor is the lab given back: that empties it too.
    assert lab.calls == ["keep"]


def test_lab_that_is_gone_ends_the_session(tmp_path: Path, declared: tuple[dict, dict]) -> None:
    lab = SimulatedLab(fail_on="/")
    made = begin(tmp_path, lab, declared)
    with pytest.raises(LabError, match="2 runs in a row"):
        session.make(made, lab, lambda _line: None, quiet)  # type: ignore[arg-type]


def test_session_is_refused_with_every_reason(
    tmp_path: Path, declared: tuple[dict, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = SimulatedLab(unhealthy=["spark-job on submitter-1 is failed", "only 1 GiB of disk is free on postgres-1"])
    facts = lab.facts
    monkeypatch.setattr(lab, "facts", lambda engine: facts(engine).model_copy(
        update={"task_memory_mib": 9999, "worker_memory_mib": 99999} if engine == "flink" else {}
    ))  # fmt: skip
    with pytest.raises(session.RefusedError) as caught:
        begin(tmp_path, lab, declared)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "spark-job" in lines[0]
    assert "disk" in lines[1]
    assert "equal terms: task_memory_mib" in lines[2]
    assert not (tmp_path / "s").exists()


def test_a_second_session_does_not_write_over_the_first(tmp_path: Path, declared: tuple[dict, dict]) -> None:
    begin(tmp_path, SimulatedLab(), declared)
    with pytest.raises(StoreError, match="resume"):
        begin(tmp_path, SimulatedLab(), declared)
    with pytest.raises(StoreError, match="no results"):
        Session.open(tmp_path / "elsewhere")


def test_red_run_is_kept_and_can_be_put_aside(tmp_path: Path, declared: tuple[dict, dict]) -> None:
    lab = SimulatedLab(lose=[3])
    made = begin(tmp_path, lab, declared, ("together",))
    session.make(made, lab, lambda _line: None, quiet)  # type: ignore[arg-type]
    runs = list(made.finished())
    assert {run.verdict for run in runs} == {"red"}
    assert json.loads((runs[0].path / "audit.json").read_text())
    made.forget(runs[0].plan)
    assert [plan.id for plan in made.pending()] == [runs[0].plan.id]
    assert len(list((made.path / "aside").iterdir())) == 1


def test_time_is_reckoned_from_what_runs_took(tmp_path: Path, declared: tuple[dict, dict]) -> None:
    lab = SimulatedLab(models={"spark": Model(), "flink": Model()}, interrupt_on="together")
    made = begin(tmp_path, lab, declared)
    with pytest.raises(KeyboardInterrupt):
        session.make(made, lab, lambda _line: None, quiet)  # type: ignore[arg-type]
    assert 15 < made.overhead_s(999) < 60
    assert "2 runs" in session.say_plan(made.plans()[:2])
