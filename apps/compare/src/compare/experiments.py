"""Experiments as they are declared in YAML, and the runs that they make.

`configurations.yaml` names the ways in which engines are set (role variables); every other file of the folder is one
experiment, with a `full` and a `quick` form. Whatever is wrong with any of them is said at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compare.faults import FAULTS
from compare.identity import MAX_TAG
from compare.load import Burst, Load, Rate, Schedule, Seconds, Steady
from compare.stats import PUBLISHED_REPETITIONS

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
Engine = Literal["spark", "flink"]
Count = Annotated[int, Field(gt=0, le=100_000_000)]
# Seconds that a run takes beside its loads, before any run has shown it: an estimate, corrected by what was measured.
RUN_OVERHEAD_S = 45.0
# The order of steps that share a run: a backlog is there before the engine starts, and the event time of candles runs
# ahead, so that later events of another experiment would be late.
ORDER = ["drain", "grid", "burst", "search", "recovery", "candles"]


class ExperimentError(Exception):
    """The declared experiments cannot be used; the text lists every violation."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Configuration(_Model):
    """One way in which one engine, or both, are set."""

    title: Annotated[str, Field(min_length=1)]
    engines: Annotated[list[Engine], Field(min_length=1)]
    variables: dict[str, str | int | bool] = Field(default_factory=dict)
    # How often the engine writes, in whole seconds: the lag is looked at once in that time.
    cycle_s: Annotated[int, Field(ge=1, le=600)] = 1


class _Form(_Model):
    repetitions: Annotated[int, Field(ge=1, le=100)] = 1
    # Other configurations than the experiment's own, for a shorter form.
    configurations: list[str] | None = None
    # In one run with other experiments of the same configuration.
    shared: bool = False
    late_after_s: Seconds = 60
    # How long rows may still come after the load before they count as lost.
    settle_s: Seconds = 180
    generator_p99_ms: Annotated[float, Field(gt=0)] = 5.0
    clock_offset_ms: Annotated[float, Field(gt=0)] = 1.0
    # Every how-manieth event is malformed, and has to be rejected; 0: none.
    malformed_every: Annotated[int, Field(ge=0)] = 0


class GridForm(_Form):
    """Steady rates, one after the other."""

    rates_per_s: Annotated[list[Rate], Field(min_length=1)]
    duration_s: Seconds
    warmup_s: Annotated[float, Field(ge=0)]
    rates_apart: bool = False


class BurstForm(_Form):
    """Bursts over a base rate."""

    bursts: Annotated[list[Burst], Field(min_length=1)]
    warmup_s: Annotated[float, Field(ge=0)]


class SearchForm(_Form):
    """Search for the highest sustained rate."""

    start_per_s: Rate
    max_per_s: Rate
    probe_s: Seconds
    warmup_s: Annotated[float, Field(ge=0)]
    p99_ms: Annotated[float, Field(gt=0)]
    resolution: Annotated[float, Field(gt=0, le=1)] = 0.1
    max_probes: Annotated[int, Field(ge=2, le=30)] = 10


class DrainForm(_Form):
    """A backlog that is there before the engine starts; with `tasks`, once for each parallelism."""

    backlogs: Annotated[list[Count], Field(min_length=1)]
    flood_per_s: Rate = 100_000
    tasks: list[Annotated[int, Field(ge=1, le=64)]] | None = None
    partitions: Annotated[int, Field(ge=1, le=64)] | None = None


class CandlesForm(_Form):
    """A steady rate in quick event time, so that windows close."""

    rate_per_s: Rate
    duration_s: Seconds
    warmup_s: Annotated[float, Field(ge=0)]
    event_time_speed: Annotated[float, Field(gt=0, le=1000)]


class RecoveryForm(_Form):
    """Something is killed while a steady rate goes on."""

    rate_per_s: Rate
    duration_s: Seconds
    fault_at_s: Seconds
    # Other faults than the experiment's own, for a shorter form.
    faults: dict[str, list[str]] | None = None


class _Experiment(_Model):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    question: Annotated[str, Field(min_length=1)]
    configurations: Annotated[list[str], Field(min_length=1)]


class Grid(_Experiment):
    """Latency and cost by rate."""

    kind: Literal["grid"]
    full: GridForm
    quick: GridForm


class Bursts(_Experiment):
    """Bursts."""

    kind: Literal["burst"]
    full: BurstForm
    quick: BurstForm


class Sustainable(_Experiment):
    """The highest sustained rate."""

    kind: Literal["search"]
    full: SearchForm
    quick: SearchForm


class Drain(_Experiment):
    """Draining a backlog."""

    kind: Literal["drain"]
    full: DrainForm
    quick: DrainForm


class Candles(_Experiment):
    """The stateful part."""

    kind: Literal["candles"]
    full: CandlesForm
    quick: CandlesForm


class Recovery(_Experiment):
    """Faults; `faults` names for each configuration what is killed."""

    kind: Literal["recovery"]
    faults: dict[str, list[str]]
    full: RecoveryForm
    quick: RecoveryForm


Experiment = Annotated[Grid | Bursts | Sustainable | Drain | Candles | Recovery, Field(discriminator="kind")]


class _File(_Model):
    experiment: Experiment


class Step(_Model):
    """A part of a run that belongs to one experiment."""

    experiment: str
    kind: Literal["grid", "burst", "search", "drain", "candles", "recovery"]
    loads: list[Load] = Field(default_factory=list)
    warmup_s: float = 0
    search: SearchForm | None = None
    backlog: int | None = None
    fault: str | None = None
    fault_at_s: float = 0
    event_time_speed: float = 1.0

    @property
    def seconds(self) -> float:
        """About how long the step takes: loads and their settling; of a search, half of the probes it may make."""
        if self.search:
            return self.search.max_probes / 2 * (self.search.probe_s + self.search.warmup_s + 3)
        lead = 4.0 + 2 * (self.kind == "drain")
        return sum(Schedule(load.pieces()).duration_us / 1e6 + lead for load in self.loads)


class RunPlan(_Model):
    """One run: one fresh start of the engines of one configuration."""

    id: str
    configuration: str
    title: str
    engines: list[Engine]
    variables: dict[str, str | int | bool]
    cycle_s: int
    repetition: int
    steps: list[Step]
    late_after_s: float
    settle_s: float
    generator_p99_ms: float
    clock_offset_ms: float
    malformed_every: int = 0

    @property
    def tag(self) -> int:
        """The number that the ids of the run's events carry."""
        return zlib.crc32(self.id.encode()) & MAX_TAG

    @property
    def events(self) -> int:
        """How many events the run has at most; of a search, what three of its highest probes have."""
        found = sum(Schedule(load.pieces()).count for step in self.steps for load in step.loads)
        for step in self.steps:
            if step.search:
                found += round(3 * step.search.max_per_s * (step.search.probe_s + step.search.warmup_s))
        return found

    def seconds(self, overhead_s: float = RUN_OVERHEAD_S) -> float:
        """About how long the run takes."""
        return overhead_s + self.cycle_s + sum(step.seconds for step in self.steps)


def load(folder: Path = FOLDER) -> tuple[dict[str, Configuration], dict[str, Experiment]]:
    """Read all configurations and experiments. Raises ExperimentError with everything that is wrong."""
    problems: list[str] = []
    configurations: dict[str, Configuration] = {}
    experiments: dict[str, Experiment] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            found = yaml.safe_load(path.read_text())
            if path.stem == "configurations":
                for name, entry in (found or {}).items():
                    with _complaining(problems, f"{path.name}: {name}"):
                        configurations[name] = Configuration.model_validate(entry)
            else:
                with _complaining(problems, path.name):
                    experiment = _File.model_validate({"experiment": found}).experiment
                    experiments[experiment.name] = experiment
                    if experiment.name != path.stem:
                        problems.append(f"{path.name}: name is '{experiment.name}': it has to be that of the file")
        except (yaml.YAMLError, OSError, AttributeError) as error:
            problems.append(f"{path.name}: {error}")
    if not experiments and not problems:
        problems.append(f"{folder}: there are no experiments")
    for experiment in experiments.values():
        problems += _cross_check(experiment, configurations)
    if problems:
        raise ExperimentError("\n".join(problems))
    return configurations, experiments


class _complaining:  # noqa: N801 - used as a statement
    def __init__(self, problems: list[str], where: str) -> None:
        self._problems, self._where = problems, where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, ValidationError):
            return False
        for detail in error.errors(include_url=False):
            kinds = {"experiment", "grid", "burst", "search", "drain", "candles", "recovery"}
            key = ".".join(str(part) for part in detail["loc"] if part not in kinds)
            self._problems.append(f"{self._where}: {key or 'kind'}: {detail['msg']}")
        return True


def _cross_check(experiment: Experiment, configurations: dict[str, Configuration]) -> list[str]:
    found = []
    named = [*experiment.configurations, *(experiment.full.configurations or ()),
             *(experiment.quick.configurations or ())]  # fmt: skip
    where = f"{experiment.name}.yaml"
    found += [
        f"{where}: configuration '{name}' is not in configurations.yaml"
        for name in sorted(set(named) - configurations.keys())
    ]
    if experiment.full.repetitions < PUBLISHED_REPETITIONS:
        found.append(f"{where}: full.repetitions is {experiment.full.repetitions}: published figures need "
                     f"{PUBLISHED_REPETITIONS}")  # fmt: skip
    if experiment.full.shared:
        found.append(f"{where}: full.shared: the full form has runs of its own")
    for form, name in ((experiment.full, "full"), (experiment.quick, "quick")):
        found += [f"{where}: {name}.{text}" for text in _form_violations(form)]
    if isinstance(experiment, Recovery):
        named_faults = [
            entry for form in (experiment, experiment.full, experiment.quick) for entry in (form.faults or {}).items()
        ]
        for configuration, faults in named_faults:
            engines = configurations[configuration].engines if configuration in configurations else []
            found += [
                f"{where}: faults.{configuration}: '{fault}' is none of its engines' faults ("
                + ", ".join(sorted(key for key, known in FAULTS.items() if known.engine in engines)) + ")"
                for fault in faults
                if fault not in FAULTS or FAULTS[fault].engine not in engines
            ]  # fmt: skip
        missing = set(experiment.configurations) - experiment.faults.keys()
        found += [f"{where}: faults: none is named for '{name}'" for name in sorted(missing)]
    return found


def _form_violations(form: _Form) -> Iterable[str]:
    if isinstance(form, (GridForm, CandlesForm)) and form.warmup_s >= form.duration_s:
        yield "warmup_s: nothing is left to measure after it"
    if isinstance(form, BurstForm):
        for number, burst in enumerate(form.bursts):
            if form.warmup_s >= burst.first_s:
                yield f"warmup_s: reaches into the first burst of bursts.{number}"
    if isinstance(form, SearchForm) and form.start_per_s > form.max_per_s:
        yield "start_per_s: is above max_per_s"
    if isinstance(form, RecoveryForm) and not 5 <= form.fault_at_s <= form.duration_s - 5:
        yield "fault_at_s: leaves less than 5 s before or after the fault"
    if isinstance(form, DrainForm) and form.tasks and (form.partitions or 0) < max(form.tasks):
        yield "partitions: fewer than the largest of tasks, which would have nothing to read"


def _steps(experiment: Experiment, form: _Form, configuration: str) -> list[tuple[str, dict[str, Any], list[Step]]]:
    """Return the runs of an experiment with a configuration: (suffix of the id, variables, steps)."""
    step: dict[str, Any] = {"experiment": experiment.name, "kind": experiment.kind}
    found: list[tuple[str, dict[str, Any], list[Step]]] = []
    match form:
        case GridForm():
            loads = [Steady(rate_per_s=rate, duration_s=form.duration_s) for rate in form.rates_per_s]
            step |= {"warmup_s": form.warmup_s}
            if form.rates_apart:
                return [(f"{one.rate_per_s:g}-per-s", {}, [Step(**step, loads=[one])]) for one in loads]
            return [("", {}, [Step(**step, loads=list(loads))])]
        case BurstForm():
            return [("", {}, [Step(**step, loads=list(form.bursts), warmup_s=form.warmup_s)])]
        case SearchForm():
            return [("", {}, [Step(**step, search=form, warmup_s=form.warmup_s)])]
        case DrainForm():
            for backlog in form.backlogs:
                flood = Steady(rate_per_s=form.flood_per_s, duration_s=backlog / form.flood_per_s)
                steps = [Step(**step, loads=[flood], backlog=backlog)]
                if form.tasks is None:
                    found.append((f"{backlog}", {}, steps))
                else:
                    found += [
                        (f"{backlog}-{tasks}-tasks", tasks_variables(tasks, form.partitions or tasks), steps)
                        for tasks in form.tasks
                    ]
            return found
        case CandlesForm():
            one = Steady(rate_per_s=form.rate_per_s, duration_s=form.duration_s)
            return [
                ("", {}, [Step(**step, loads=[one], warmup_s=form.warmup_s, event_time_speed=form.event_time_speed)])
            ]
        case RecoveryForm():
            assert isinstance(experiment, Recovery)
            one = Steady(rate_per_s=form.rate_per_s, duration_s=form.duration_s)
            faults = (form.faults or experiment.faults).get(configuration, [])
            step |= {"loads": [one], "fault_at_s": form.fault_at_s}
            return [(fault, {}, [Step(**step, fault=fault)]) for fault in faults]
    raise AssertionError(form)


def tasks_variables(tasks: int, partitions: int) -> dict[str, str | int | bool]:
    """Return the variables that give both engines so many tasks."""
    return {
        "contract_partitions": partitions, "contract_parallelism": tasks,
        "spark_job_executor_cores": tasks,
    }  # fmt: skip


def plan(
    configurations: dict[str, Configuration],
    experiments: dict[str, Experiment],
    *,
    quick: bool,
    only: Iterable[str] = (),
    repetitions: int | None = None,
) -> list[RunPlan]:
    """Return all runs in their order: repetition by repetition, with the configurations' order turned each time.

    `only` names experiments (all where it is empty). Raises ExperimentError for one that is not there.
    """
    wanted = list(only) or sorted(experiments, key=lambda name: (ORDER.index(experiments[name].kind), name))
    unknown = sorted(set(wanted) - experiments.keys())
    if unknown:
        raise ExperimentError(f"no such experiment: {', '.join(unknown)}. There are: {', '.join(sorted(experiments))}")
    found: list[RunPlan] = []
    shared: dict[tuple[str, int], RunPlan] = {}
    most = max((repetitions or _form(experiments[name], quick).repetitions) for name in wanted)
    for repetition in range(1, most + 1):
        made: list[RunPlan] = []
        for name in wanted:
            experiment = experiments[name]
            form = _form(experiment, quick)
            if repetition > (repetitions or form.repetitions):
                continue
            names = form.configurations or experiment.configurations
            for configuration in names if repetition % 2 else reversed(names):
                for suffix, variables, steps in _steps(experiment, form, configuration):
                    run = _run(configurations, configuration, form, repetition, steps, variables,
                               "shared" if form.shared else experiment.name, "" if form.shared else suffix)  # fmt: skip
                    key = (configuration, repetition)
                    if form.shared and key in shared:
                        first = shared[key]
                        joined = first.model_copy(update={
                            "steps": sorted([*first.steps, *steps], key=lambda one: ORDER.index(one.kind)),
                            "settle_s": max(first.settle_s, form.settle_s),
                            "late_after_s": max(first.late_after_s, form.late_after_s),
                            "malformed_every": max(first.malformed_every, form.malformed_every),
                        })  # fmt: skip
                        made[made.index(first)] = shared[key] = joined
                    else:
                        made.append(run)
                        if form.shared:
                            shared[key] = run
        found += made
    return found


def _form(experiment: Experiment, quick: bool) -> _Form:
    return experiment.quick if quick else experiment.full


def _run(
    configurations: dict[str, Configuration],
    name: str,
    form: _Form,
    repetition: int,
    steps: list[Step],
    variables: dict[str, Any],
    group: str,
    suffix: str,
) -> RunPlan:
    configuration = configurations[name]
    return RunPlan(
        id="/".join(part for part in (group, name, suffix, f"{repetition}") if part),
        configuration=name, title=configuration.title, engines=configuration.engines, cycle_s=configuration.cycle_s,
        variables={**configuration.variables, **variables}, repetition=repetition, steps=steps,
        late_after_s=form.late_after_s, settle_s=form.settle_s, generator_p99_ms=form.generator_p99_ms,
        clock_offset_ms=form.clock_offset_ms, malformed_every=form.malformed_every,
    )  # fmt: skip
