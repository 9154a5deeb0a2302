"""Whole runs on a simulated lab: known answers are found, and every deliberately broken run is caught and marked."""

from __future__ import annotations

from typing import Any, cast

import pytest
from compare.broken import BrokenLab, Kind
from compare.experiments import RunPlan, Step
from compare.lab import Lab
from compare.load import Burst, Steady
from compare.parity import EngineFacts
from compare.runner import Progress, Runner, RunOutput
from simulated_lab import Model, SimulatedLab
from test_compare_parity import facts

BASELINE: dict[str, EngineFacts] = {engine: facts(engine) for engine in ("spark", "flink")}


def plan_of(*steps: Step, engines: tuple[str, ...] = ("flink",), **more: Any) -> RunPlan:  # noqa: ANN401
    return RunPlan(**{
        "id": "test/run/1", "configuration": "flink-10ms", "title": "Flink", "engines": list(engines), "variables": {},
        "cycle_s": 1, "repetition": 1, "steps": list(steps), "late_after_s": 60, "settle_s": 120,
        "generator_p99_ms": 5, "clock_offset_ms": 1, **more,
    })  # fmt: skip


def grid(*rates: float, seconds: float = 10, warmup: float = 2) -> Step:
    loads = [Steady(rate_per_s=rate, duration_s=seconds) for rate in rates]
    return Step(experiment="latency", kind="grid", loads=loads, warmup_s=warmup)


def run(lab: SimulatedLab, plan: RunPlan) -> RunOutput:
    return Runner(lab, BASELINE).run(plan)


def figure(output: RunOutput, metric: str, engine: str = "flink", point: str | None = None) -> float:
    found = [
        one["value"] for one in output.result["figures"]
        if one["metric"] == metric and one["engine"] == engine and point in {None, one["point"]}
    ]  # fmt: skip
    assert len(found) == 1, (metric, output.result["figures"])
    return float(found[0])


def test_known_latency_is_measured() -> None:
    output = run(SimulatedLab(), plan_of(grid(100, 1000)))
    assert output.result["verdict"] == "valid"
    assert output.result["events"] == 11_000
    for point in ("100/s", "1000/s"):
        assert figure(output, "p50_ms", point=point) == pytest.approx(8, rel=0.01)
        assert figure(output, "max_ms", point=point) == pytest.approx(8, rel=0.01)
    # The warm-up of 2 s is left out.
    assert len(output.histograms["latency 1000/s flink"]) == 8_000
    assert output.accounts["flink"]["delivered"] == 11_000
    assert figure(output, "cpu_s_per_million flink", point="1000/s") == pytest.approx(50, rel=0.02)


def test_idle_cost_is_told_apart() -> None:
    lab = SimulatedLab(models={"flink": Model(idle_cores=0.25, cpu_us_per_row=0)})
    output = run(lab, plan_of(grid(100)))
    assert figure(output, "idle_cores flink") == pytest.approx(0.25, rel=0.05)
    # 10 s of it, and 1,000 events: it is a part of what a million cost.
    assert figure(output, "cpu_s_per_million flink") == pytest.approx(2500, rel=0.2)


def test_both_engines_together() -> None:
    output = run(SimulatedLab(), plan_of(grid(100), engines=("spark", "flink")))
    assert output.result["verdict"] == "valid"
    assert figure(output, "p50_ms", "spark") == pytest.approx(80, rel=0.01)
    assert figure(output, "p50_ms", "flink") == pytest.approx(8, rel=0.01)


def test_deleted_rows_make_the_run_red() -> None:
    output = run(SimulatedLab(lose=[17, 18, 500]), plan_of(grid(100)))
    assert output.result["verdict"] == "red"
    assert output.result["red"] == [
        "flink: 3 events are in the topic and not in the table (for example number 17, 18, 500)"
    ]
    assert output.accounts["flink"]["lost"] == 3
    assert "rows are missing: flink 3" in output.result["notes"][0]


def test_a_slowed_generator_makes_the_run_invalid() -> None:
    output = run(SimulatedLab(stall_us=40_000), plan_of(grid(1000)))
    assert output.result["verdict"] == "invalid"
    assert output.result["invalid"] == [
        "latency 1000/s: the generator fell behind: p99 of its delay is 40.03 ms, at most 5 ms are allowed"
    ]


def test_more_memory_for_one_engine_makes_the_run_invalid() -> None:
    output = run(SimulatedLab(memory_mib={"flink": 1900}), plan_of(grid(100)))
    assert output.result["verdict"] == "invalid"
    assert output.result["invalid"][0] == "flink: task_memory_mib was 1400 and is 1900"
    assert any(text.startswith("not equal: task_memory_mib") for text in output.result["invalid"])


def test_more_memory_is_noticed_with_both_engines_too() -> None:
    output = run(SimulatedLab(memory_mib={"spark": 1900}), plan_of(grid(100), engines=("spark", "flink")))
    assert any(text.startswith("not equal: task_memory_mib") for text in output.result["invalid"])


@pytest.mark.parametrize(
    ("kind", "verdict", "words"),
    [
        ("rows", "red", "spark: 10 events are in the topic and not in the table"),
        ("generator", "invalid", "the generator fell behind"),
        ("memory", "invalid", "spark: task_memory_mib was 1400 and is 1920"),
    ],
)
def test_what_is_broken_on_purpose_is_caught(kind: Kind, verdict: str, words: str) -> None:
    lab = BrokenLab(SimulatedLab(), kind)
    output = Runner(cast("Lab", lab), BASELINE).run(plan_of(grid(100), engines=("spark",)))
    assert output.result["verdict"] == verdict
    assert any(words in text for text in output.result[verdict])


def test_clocks_apart_make_the_run_invalid() -> None:
    output = run(SimulatedLab(clock_apart_us=1500), plan_of(grid(100)))
    assert output.result["invalid"] == ["the clocks of producer-1 and postgres-1 are 1.50 ms apart"]


def test_clocks_that_are_not_known_well_are_noted() -> None:
    output = run(SimulatedLab(clock_apart_us=1500, clock_unsure_us=800), plan_of(grid(100)))
    assert output.result["verdict"] == "valid"
    assert output.result["notes"][0] == "the clocks of producer-1 and postgres-1 are known to 1.6 ms only"


def test_negative_latencies_are_counted() -> None:
    output = run(SimulatedLab(early_us=10_000), plan_of(grid(100)))
    assert figure(output, "negative") == 800
    assert len(output.histograms["latency 100/s flink"]) == 800


def test_a_topic_with_doubles_is_red() -> None:
    output = run(SimulatedLab(topic_double=2), plan_of(grid(100)))
    assert output.result["red"] == ["topic: 2 events are there more than once"]


def test_malformed_events_are_rejected_and_are_no_loss() -> None:
    output = run(SimulatedLab(), plan_of(grid(100), malformed_every=10))
    assert output.result["verdict"] == "valid"
    assert (output.accounts["flink"]["delivered"], output.accounts["flink"]["rejected"]) == (900, 100)


def test_late_events_are_told() -> None:
    lab = SimulatedLab(models={"flink": Model(latency_us=3_000_000)})
    output = run(lab, plan_of(grid(100), late_after_s=2))
    assert output.accounts["flink"]["late"] == 1000
    assert output.result["verdict"] == "valid"


def test_overload_shows_in_latency_from_the_intended_time() -> None:
    output = run(SimulatedLab(models={"flink": Model(capacity_per_s=500)}), plan_of(grid(1000, seconds=10, warmup=0)))
    # The last of 10,000 events is committed after 20 s, 10 s late; half of them are 5 s late or more.
    assert figure(output, "max_ms") == pytest.approx(10_000, rel=0.01)
    assert figure(output, "p50_ms") == pytest.approx(5_000, rel=0.01)
    assert output.series["latency 1000/s flink"].lag.max() == pytest.approx(5000, rel=0.01)


@pytest.mark.parametrize("capacity", [3_000, 9_000])
def test_search_finds_the_capacity(capacity: float) -> None:
    lab = SimulatedLab(models={"flink": Model(capacity_per_s=capacity)})
    form = {"start_per_s": 1000, "max_per_s": 20_000, "probe_s": 10, "warmup_s": 2, "p99_ms": 2000}
    step = Step(experiment="sustainable", kind="search", search=form, warmup_s=2)  # type: ignore[arg-type]
    output = run(lab, plan_of(step))
    assert output.result["verdict"] == "valid"
    assert capacity / 1.12 <= figure(output, "sustained_per_s") <= capacity * 1.03
    assert figure(output, "share_of_ceiling") == pytest.approx(figure(output, "sustained_per_s") / 100_000)
    probes = output.result["searches"]["sustainable"]["flink"]["probes"]
    assert any(probe["sustained"] for probe in probes)
    assert any(not probe["sustained"] for probe in probes)
    # Every event of every probe is accounted for.
    assert output.accounts["flink"]["delivered"] == output.result["events"]


def test_search_that_ends_at_its_highest_rate_says_so() -> None:
    form = {"start_per_s": 1000, "max_per_s": 2000, "probe_s": 5, "warmup_s": 1, "p99_ms": 2000}
    step = Step(experiment="sustainable", kind="search", search=form, warmup_s=1)  # type: ignore[arg-type]
    output = run(SimulatedLab(), plan_of(step))
    assert figure(output, "sustained_per_s") == 2000
    assert "it may sustain more" in output.result["notes"][0]


def test_search_does_not_credit_what_the_generator_did_not_offer() -> None:
    lab = SimulatedLab(stall_us=900_000)
    form = {"start_per_s": 1000, "max_per_s": 4000, "probe_s": 6, "warmup_s": 2, "p99_ms": 2000}
    step = Step(experiment="sustainable", kind="search", search=form, warmup_s=2)  # type: ignore[arg-type]
    output = run(lab, plan_of(step))
    probes = output.result["searches"]["sustainable"]["flink"]["probes"]
    assert all("generator fell behind" in probe["reason"] for probe in probes)
    assert not [one for one in output.result["figures"] if one["metric"] == "sustained_per_s"]


def test_drain_is_rows_by_seconds() -> None:
    lab = SimulatedLab(models={"flink": Model(capacity_per_s=5000)})
    flood = Steady(rate_per_s=100_000, duration_s=0.5)
    output = run(lab, plan_of(Step(experiment="drain", kind="drain", loads=[flood], backlog=50_000)))
    assert output.result["verdict"] == "valid"
    assert figure(output, "drain_per_s") == pytest.approx(5000, rel=0.01)
    assert figure(output, "share_of_ceiling") == pytest.approx(0.05, rel=0.01)
    assert figure(output, "first_row_s") == pytest.approx(3.0, abs=0.1)
    assert figure(output, "drained_s") == pytest.approx(13.0, abs=0.1)


def test_more_tasks_are_no_violation_where_the_run_sets_them() -> None:
    flood = Steady(rate_per_s=100_000, duration_s=0.05)
    step = Step(experiment="scaling", kind="drain", loads=[flood], backlog=5_000)
    output = run(SimulatedLab(), plan_of(step, variables={"contract_parallelism": 4, "contract_partitions": 4}))
    assert output.result["verdict"] == "valid"
    assert figure(output, "drain_per_s", point="5000 events, 4 tasks") > 0


def test_burst_says_how_long_it_is_felt() -> None:
    lab = SimulatedLab(models={"flink": Model(capacity_per_s=1000)})
    load = Burst(base_per_s=100, burst_per_s=4000, first_s=5, burst_s=2, duration_s=30)
    output = run(lab, plan_of(Step(experiment="burst", kind="burst", loads=[load], warmup_s=1)))
    # 2 s of 3,000 too many, and 900 a second to spare.
    assert figure(output, "lag_highest") == pytest.approx(6000, rel=0.02)
    assert figure(output, "calm_s") == pytest.approx(6.7, abs=1.1)


@pytest.mark.parametrize(("fault", "engine"), [("flink-taskmanager", "flink"), ("spark-driver", "spark")])
def test_recovery_is_timed_from_the_kill(fault: str, engine: str) -> None:
    load = Steady(rate_per_s=500, duration_s=40)
    step = Step(experiment="recovery", kind="recovery", loads=[load], fault=fault, fault_at_s=10)
    output = run(SimulatedLab(), plan_of(step, engines=(engine,)))
    assert output.result["verdict"] == "valid"
    assert figure(output, "first_row_s", engine) == pytest.approx(6.0, abs=0.2)
    # The backlog of 3,000 is worked off at 19,500 a second.
    assert figure(output, "steady_lag_s", engine) == pytest.approx(6.5, abs=1.0)


def test_an_engine_that_does_not_come_back_is_said_and_red() -> None:
    lab = SimulatedLab(models={"flink": Model(away_s=10_000)})
    load = Steady(rate_per_s=100, duration_s=30)
    step = Step(experiment="recovery", kind="recovery", loads=[load], fault="flink-taskmanager", fault_at_s=10)
    output = run(lab, plan_of(step))
    assert output.result["verdict"] == "red"
    assert output.accounts["flink"]["lost"] >= 1900
    assert any("had not recovered" in text for text in output.result["notes"])


def test_an_engine_that_is_gone_after_the_load_is_still_accounted_for() -> None:
    output = run(SimulatedLab(gone_after_load=True, lose=[1]), plan_of(grid(100)))
    assert output.result["verdict"] == "red"
    assert output.result["invalid"] == ["after the load: flink: no job runs"]
    assert output.accounts["flink"]["lost"] == 1


def test_candles_are_compared_with_what_was_sent() -> None:
    load = Steady(rate_per_s=50, duration_s=20)
    step = Step(experiment="candles", kind="candles", loads=[load], warmup_s=2, event_time_speed=30)
    good = run(SimulatedLab(), plan_of(step))
    assert good.result["verdict"] == "valid"
    words = good.result["engines"]["flink"]["windows"]["candles 50/s"]["candles"]
    assert words["closed"] > 0
    assert words["compared"] == words["closed"]
    bad = run(SimulatedLab(wrong_candle=True), plan_of(step))
    assert bad.result["red"] == [f"flink: candles: 0 of {words['closed']} missing, 1 different, 0 of no window"]


def test_progress_is_shown() -> None:
    seen: list[Progress] = []
    Runner(SimulatedLab(), BASELINE, seen.append).run(plan_of(grid(100)))
    assert [progress.window for progress in seen][:1] == ["latency 100/s"]
    assert seen[1].p99_ms == {"flink": 8.0}


def test_steps_of_several_experiments_share_a_run() -> None:
    flood = Steady(rate_per_s=100_000, duration_s=0.1)
    drain = Step(experiment="drain", kind="drain", loads=[flood], backlog=10_000)
    output = run(SimulatedLab(), plan_of(drain, grid(100, 1000)))
    assert output.result["verdict"] == "valid"
    assert output.result["events"] == 10_000 + 11_000
    assert figure(output, "drain_per_s") == pytest.approx(20_000, rel=0.01)
    assert figure(output, "p50_ms", point="1000/s") == pytest.approx(8, rel=0.01)
    assert output.accounts["flink"]["delivered"] == 21_000
