"""One run from its beginning to its verdict: prepare, load, settle, read, account.

A run is `valid`, or `invalid` (it did not keep to the method: a late generator, other settings, clocks apart), or `red`
(something was lost, doubled or mistaken). Nothing of an invalid or red run becomes part of a published figure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from compare import candles, sustain
from compare.account import EngineAccount, account, topic_complaints
from compare.experiments import RunPlan, Step
from compare.faults import FAULTS, recovered
from compare.hist import Latencies
from compare.identity import event_id
from compare.lab import GeneratorAccount, Lab, LabError, Usage
from compare.load import GeneratorSpec, Load, Schedule, Steady
from compare.parity import EngineFacts, changed, violations
from compare.rows import NO_TIME, Rows, Series, series
from compare.usage import cost

IDLE_S = 5.0
CEILING_ROWS = 300_000
# Rows that are not there after so long are looked for once more, exactly, and are lost then.
POLL_S = 1.0
# What a run's variables change of an engine's facts.
CHANGES = {"contract_partitions": "partitions", "contract_parallelism": "parallelism"}


@dataclass(frozen=True)
class Figure:
    """One measured number. `point` says where within the experiment: a rate, a backlog, a fault."""

    experiment: str
    configuration: str
    engine: str
    point: str
    metric: str
    value: float

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """By what it is compared with the same figure of other runs."""
        return self.experiment, self.configuration, self.engine, self.point, self.metric


@dataclass
class Window:
    """One load of a run, and what became of it; `sent` are the run's event numbers [first, end)."""

    experiment: str
    kind: str
    point: str
    load: Load
    warmup_s: float
    speed: float
    sent: GeneratorAccount
    began_us: int
    settled_us: int = 0
    fault: str = ""
    fault_us: int = 0
    started_us: int = 0
    measured: bool = True

    @property
    def first(self) -> int:
        """Number of the first event."""
        return self.sent.first_index

    @property
    def end(self) -> int:
        """Number after the last event."""
        return self.sent.first_index + self.sent.count

    @property
    def name(self) -> str:
        """Name of the window within its run."""
        return " ".join(part for part in (self.experiment, self.point) if part)


@dataclass
class RunOutput:
    """Everything that a run leaves."""

    result: dict[str, Any]
    manifest: dict[str, Any]
    histograms: dict[str, Latencies] = field(default_factory=dict)
    series: dict[str, Series] = field(default_factory=dict)
    samples: list[Usage] = field(default_factory=list)
    accounts: dict[str, Any] = field(default_factory=dict)
    generator: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """What the screen shows of a run: `p99_ms` is sampled, the lag is reckoned from what should be there."""

    window: str
    seconds: float
    sent: int
    due_per_s: float
    lag: Mapping[str, int]
    p99_ms: Mapping[str, float | None]


Show = Callable[[Progress], None]
_EVERY_TICKS = 3


class Runner:
    """Makes runs on a lab. `baseline` are the engines' facts when the session began, with equal terms."""

    def __init__(self, lab: Lab, baseline: Mapping[str, EngineFacts], show: Show | None = None) -> None:
        self._lab = lab
        self._baseline = dict(baseline)
        self._show = show or (lambda _progress: None)

    def run(self, plan: RunPlan) -> RunOutput:
        """Make one run. Raises LabError where the lab does not do what it is asked."""
        made = _Run(self._lab, plan, self._baseline, self._show)
        return made.make()


class _Run:
    def __init__(self, lab: Lab, plan: RunPlan, baseline: dict[str, EngineFacts], show: Show) -> None:
        self.lab, self.plan, self.baseline, self.show = lab, plan, baseline, show
        self.windows: list[Window] = []
        self.invalid: list[str] = []
        self.red: list[str] = []
        self.notes: list[str] = []
        self.figures: list[Figure] = []
        self.searches: dict[str, dict[str, sustain.Search]] = {}
        self.next_index = 0
        self.ceilings: dict[str, float] = {}
        self.facts: dict[str, EngineFacts] = {}
        self.samples: list[Usage] = []
        self.idle: tuple[int, int] | None = None
        # Engine => component => cores that it takes without any load.
        self.idle_cores: dict[str, dict[str, float]] = {}

    # The course of a run

    def make(self) -> RunOutput:
        lab, plan = self.lab, self.plan
        began_us = lab.now_us()
        drains = any(step.kind == "drain" for step in plan.steps)
        lab.prepare(plan, start=not drains)
        offsets = [lab.clock_offsets()]
        if not drains:
            self._look_at_engines()
        if any(step.kind in {"drain", "search"} for step in plan.steps):
            self.ceilings = {engine: lab.ceiling(engine, CEILING_ROWS) for engine in plan.engines}
        with lab.sampling() as samples:
            if not drains:
                idle_us = lab.now_us()
                lab.sleep(IDLE_S)
                self.idle = (idle_us, lab.now_us())
            for step in plan.steps:
                self._step(step)
            # The sample after the last commit.
            lab.sleep(2.0)
        self.samples = samples
        # Once more: now the engines have written, and what they say to PostgreSQL is known. One that is gone by now
        # is a finding, and its account is still to be made.
        try:
            self._look_at_engines()
        except LabError as error:
            self.invalid.append(f"after the load: {error}")
        offsets.append(lab.clock_offsets())
        self._check_clocks(offsets)
        output = self._read()
        output.manifest = {
            "run": plan.model_dump(mode="json"), "tag": plan.tag, "began_us": began_us, "ended_us": lab.now_us(),
            "lab": lab.describe(), "engines": {name: facts.model_dump() for name, facts in self.facts.items()},
            "clock_offsets": [{node: asdict(found) for node, found in taken.items()} for taken in offsets],
            "ceiling_rows_per_s": self.ceilings,
        }  # fmt: skip
        return output

    def _look_at_engines(self) -> None:
        wanted = {CHANGES[name] for name in self.plan.variables if name in CHANGES}
        for engine in self.plan.engines:
            found = self.lab.facts(engine)
            self.facts[engine] = found
            self.invalid += changed(self.baseline[engine], found, wanted)
        if len(self.facts) == 2:
            self.invalid += [f"not equal: {text}" for text in violations(self.facts["spark"], self.facts["flink"])]
        else:
            # The other one stands still: it is what it was at the start, save what this run has changed for both.
            found = next(iter(self.facts.values()))
            other = self.baseline["flink" if found.engine == "spark" else "spark"]
            other = other.model_copy(update={name: getattr(found, name) for name in wanted})
            pair = {found.engine: found, other.engine: other}
            self.invalid += [f"not equal: {text}" for text in violations(pair["spark"], pair["flink"])]
        self.invalid = list(dict.fromkeys(self.invalid))

    def _check_clocks(self, taken: list[Mapping[str, Any]]) -> None:
        one, other = self.lab.clock_nodes()
        for offsets in taken:
            apart_us = abs(offsets[one].offset_us - offsets[other].offset_us)
            unsure_us = offsets[one].uncertainty_us + offsets[other].uncertainty_us
            allowed_us = self.plan.clock_offset_ms * 1000
            if apart_us - unsure_us > allowed_us:
                self.invalid.append(f"the clocks of {one} and {other} are {apart_us / 1000:.2f} ms apart")
                return
            if unsure_us > allowed_us:
                self.notes.append(f"the clocks of {one} and {other} are known to {unsure_us / 1000:.1f} ms only")

    def _step(self, step: Step) -> None:
        match step.kind:
            case "search":
                self._search(step)
            case "drain":
                self._drain(step)
            case "recovery":
                self._recovery(step)
            case _:
                for number, load in enumerate(step.loads, 1):
                    point = f"{load.rate_per_s:g}/s" if isinstance(load, Steady) else f"{_burst_kind(load)} {number}"
                    self._settle(self._load(step, load, point))

    def _load(self, step: Step, load: Load, point: str, **more: Any) -> Window:  # noqa: ANN401
        """Send one load; returns its window."""
        spec = GeneratorSpec(
            tag=self.plan.tag, first_index=self.next_index, load=load, event_time_speed=step.event_time_speed,
            malformed_every=self.plan.malformed_every, warmup_s=step.warmup_s,
            # A flood is to be there soon; nobody waits for its events.
            linger_ms=20 if step.kind == "drain" else 1,
        )  # fmt: skip
        before = self.next_index
        began_us = self.lab.now_us()
        schedule = Schedule(load.pieces())
        name = " ".join(part for part in (step.experiment, point) if part)
        count = 0

        def tick(seconds: float, sent: int) -> None:
            nonlocal count
            count += 1
            on_tick = more.get("on_tick")
            if on_tick:
                on_tick(seconds)
            if count % _EVERY_TICKS == 1:
                due = schedule.due(seconds * 1e6)
                rate = due - schedule.due((seconds - 1) * 1e6) if seconds >= 1 else due
                self._tell(name, seconds, before + sent, before + due, rate)

        account_ = self.lab.generate(spec, tick)
        self.next_index = before + account_.count
        window = Window(
            step.experiment, step.kind, point, load, step.warmup_s, step.event_time_speed, account_, began_us
        )
        self.windows.append(window)
        if account_.unanswered:
            self.invalid.append(f"{window.name}: Kafka gave no answer for {account_.unanswered} events")
        return window

    def _tell(self, window: str, seconds: float, sent: int, due: int, rate: float) -> None:
        lag: dict[str, int] = {}
        p99: dict[str, float | None] = {}
        for engine in self.plan.engines:
            rows, p99[engine] = self.lab.live(engine)
            lag[engine] = max(0, due - rows)
        self.show(Progress(window, seconds, sent, rate, lag, p99))

    def _settle(self, window: Window) -> bool:
        """Wait until every event has its row, or for as long as the plan allows; returns whether it has."""
        wanted = self._good(0, self.next_index)
        wanted -= sum(end - first for other in self.windows for first, end in other.sent.failed)
        deadline_us = self.lab.now_us() + round(self.plan.settle_s * 1e6)
        began_us = self.lab.now_us()
        while True:
            asked_us = self.lab.now_us()
            missing: dict[str, int] = {engine: wanted - self.lab.row_count(engine) for engine in self.plan.engines}
            if all(count <= 0 for count in missing.values()):
                window.settled_us = self.lab.now_us()
                return True
            if self.lab.now_us() > deadline_us:
                window.settled_us = self.lab.now_us()
                behind = ", ".join(f"{engine} {count}" for engine, count in missing.items() if count > 0)
                self.notes.append(f"{window.name}: after {self.plan.settle_s:g} s rows are missing: {behind}")
                return False
            # Counting many rows takes its time, and is not to be what PostgreSQL does most.
            self.lab.sleep(max(POLL_S, 10 * (self.lab.now_us() - asked_us) / 1e6))
            self.show(Progress(
                f"{window.name}, settling", (self.lab.now_us() - began_us) / 1e6, self.next_index, 0, missing, {}
            ))  # fmt: skip

    def _good(self, first: int, end: int) -> int:
        """Return how many of the events [first, end) are to become rows."""
        every = self.plan.malformed_every
        return end - first - (end // every - first // every if every else 0)

    def _search(self, step: Step) -> None:
        form = step.search
        assert form is not None
        for engine in self.plan.engines:

            def probe(rate: float, engine: str = engine) -> sustain.Judgement:
                return self._probe(step, engine, rate)

            try:
                found = sustain.search(
                    probe, start_per_s=form.start_per_s, max_per_s=form.max_per_s, resolution=form.resolution,
                    max_probes=form.max_probes,
                )  # fmt: skip
            except _UnsettledError as error:
                self.invalid.append(str(error))
                continue
            self.searches.setdefault(step.experiment, {})[engine] = found
            if found.sustained_per_s is not None:
                self._figure(step.experiment, engine, "", "sustained_per_s", found.sustained_per_s)
                self._share(step.experiment, engine, "", found.sustained_per_s)
                if found.failed_per_s is None:
                    self.notes.append(
                        f"{step.experiment}: {engine} kept up with the highest rate that is offered, "
                        f"{form.max_per_s:g}/s: it may sustain more"
                    )
            else:
                self.notes.append(f"{step.experiment}: {engine} sustained none of the rates that were tried")

    def _probe(self, step: Step, engine: str, rate: float) -> sustain.Judgement:
        form = step.search
        assert form is not None
        # At least as many cycles of the engine as a growth can be told of.
        seconds = max(form.probe_s, sustain.MIN_CYCLES * self.plan.cycle_s) + form.warmup_s
        window = self._load(step, Steady(rate_per_s=round(rate), duration_s=seconds), f"probe {round(rate)}/s")
        window.measured = False
        if not self._settle(window):
            raise _UnsettledError(f"{window.name}: {engine} left a backlog, the search could not go on")
        start_us = window.sent.start_us
        between = (_lowest_id(start_us), _lowest_id(start_us + Schedule(window.load.pieces()).duration_us + 1000))
        rows = self.lab.rows(engine, self.plan.tag, between).between(window.first, window.end)
        found, latencies = self._window_series(window, rows)
        late_ms = window.sent.delay().at_ms(99) or 0.0
        lag = [float(value) for value in found.lag[int(form.warmup_s) : int(seconds)]]
        judgement = sustain.judge(rate, lag, latencies.at_ms(99), bound_ms=form.p99_ms, cycle_s=self.plan.cycle_s)
        if late_ms > max(self.plan.generator_p99_ms, 0.1 * form.p99_ms):
            # The rate was not offered: nothing is known of the engine, and nothing good is claimed.
            reason = f"the generator fell behind ({late_ms:.0f} ms)"
            self.notes.append(f"{window.name}: {reason}: the engine may sustain more than was found")
            return dataclasses.replace(judgement, sustained=False, reason=reason)
        return judgement

    def _drain(self, step: Step) -> None:
        for load in step.loads:
            window = self._load(step, load, self._point_of_drain(step))
            window.measured = False
            window.started_us = self.lab.now_us()
            for name in self.plan.engines:
                self.lab.start_engine(name)
            self._settle(window)

    def _point_of_drain(self, step: Step) -> str:
        tasks = self.plan.variables.get("contract_parallelism")
        return f"{step.backlog} events" + (f", {tasks} tasks" if tasks else "")

    def _recovery(self, step: Step) -> None:
        assert step.fault is not None
        fault = FAULTS[step.fault]
        killed_us: list[int] = []

        def on_tick(seconds: float) -> None:
            if not killed_us and seconds >= step.fault_at_s:
                killed_us.append(self.lab.inject(fault))

        for load in step.loads:
            window = self._load(step, load, step.fault, on_tick=on_tick)
            window.measured = False
            window.fault, window.fault_us = step.fault, killed_us[0] if killed_us else 0
            if not killed_us:
                self.invalid.append(f"{window.name}: nothing was killed: the load ended before")
            self._settle(window)

    # What came of it

    def _window_series(self, window: Window, rows: Rows) -> tuple[Series, Latencies]:
        """Return a window's time series, and its latencies without the warm-up."""
        schedule = Schedule(window.load.pieces())
        found = series(rows, schedule, window.sent.start_us, self._good(window.first, window.end))
        latencies = Latencies()
        since_us = window.sent.start_us + round(window.warmup_s * 1e6)
        chosen = rows.produced_us >= since_us
        latencies.record(Rows(rows.index[chosen], rows.produced_us[chosen], rows.commit_us[chosen]).latency_us)
        return found, latencies

    def _read(self) -> RunOutput:
        lab, plan = self.lab, self.plan
        events = self.next_index
        topic = lab.topic(plan.tag, events)
        failed = [span for window in self.windows for span in window.sent.failed]
        # Events without an answer cannot be named: then those that are not in the topic are unsent, whichever.
        unacknowledged = list(topic.missing) if any(window.sent.unanswered for window in self.windows) else failed
        self.red += topic_complaints(topic, unacknowledged)
        output = RunOutput({}, {}, samples=self.samples)
        engines: dict[str, Any] = {}
        for engine in plan.engines:
            rows = lab.rows(engine, plan.tag)
            found = account(
                events, unacknowledged=unacknowledged, topic=topic, rows=rows, rejected=lab.rejected(engine, plan.tag),
                malformed_every=plan.malformed_every, late_after_us=round(plan.late_after_s * 1e6),
            )  # fmt: skip
            self.red += found.complaints(engine)
            output.accounts[engine] = found.to_json()
            engines[engine] = self._read_engine(engine, rows, found, output)
        self._check_generator(output)
        output.accounts["topic"] = asdict(topic)
        for engine in plan.engines:
            with contextlib.suppress(LabError):
                output.logs |= lab.logs(engine, self.windows[0].began_us if self.windows else lab.now_us())
        verdict = "red" if self.red else "invalid" if self.invalid else "valid"
        output.result = {
            "id": plan.id, "verdict": verdict, "red": self.red, "invalid": self.invalid, "notes": self.notes,
            "events": events, "engines": engines, "figures": [asdict(figure) for figure in self.figures],
            "searches": {
                name: {engine: found.to_json() for engine, found in per.items()} for name, per in self.searches.items()
            },
        }  # fmt: skip
        return output

    def _read_engine(self, engine: str, rows: Rows, found: EngineAccount, output: RunOutput) -> dict[str, Any]:
        windows: dict[str, Any] = {}
        components = self.lab.components(engine)
        if self.idle:
            spent = cost(self.samples, components, *self.idle)
            self.idle_cores[engine] = {name: part["cpu_s"] / part["seconds"] for name, part in spent.items()}
        for window in self.windows:
            part = rows.between(window.first, window.end)
            of_seconds, latencies = self._window_series(window, part)
            name = f"{window.name} {engine}"
            output.histograms[name], output.series[name] = latencies, of_seconds
            last_us = int(part.commit_us.max()) if len(part) else window.settled_us
            spent = cost(self.samples, components, window.started_us or window.sent.start_us, last_us)
            windows[window.name] = {
                "latency": latencies.summary(), "rows": len(part), "cost": spent,
                "start_us": window.sent.start_us, "last_commit_us": last_us, "fault_us": window.fault_us,
            }  # fmt: skip
            self._window_figures(engine, window, part, of_seconds, latencies, spent, windows[window.name])
        return {
            "windows": windows, "account": found.to_json(), "ceiling_rows_per_s": self.ceilings.get(engine),
            "idle_cores": self.idle_cores.get(engine, {}),
        }  # fmt: skip

    def _window_figures(
        self, engine: str, window: Window, rows: Rows, of_seconds: Series, latencies: Latencies,
        spent: dict[str, Any], words: dict[str, Any],
    ) -> None:  # fmt: skip
        found = _latency_figures(latencies) if window.measured else {}
        match window.kind:
            case "burst":
                found["lag_highest"] = int(of_seconds.lag.max(initial=0))
                found["calm_s"] = _seconds_to_calm(window, of_seconds)
            case "drain":
                found |= _drain_figures(window, rows)
                if self.ceilings.get(engine) and found.get("drain_per_s"):
                    found["share_of_ceiling"] = (found["drain_per_s"] or 0) / self.ceilings[engine]
            case "recovery":
                found |= self._recovery_figures(engine, window, rows, of_seconds, words)
            case "candles":
                words["candles"] = self._candles(engine)
        if window.kind != "search" and len(rows):
            found |= _cost_figures(spent, len(rows) / 1e6)
        if window.kind == "grid":
            found |= {f"idle_cores {name}": value for name, value in self.idle_cores.get(engine, {}).items()}
        for metric, value in found.items():
            if value is not None:
                self._figure(window.experiment, engine, window.point, metric, float(value))

    def _recovery_figures(
        self, engine: str, window: Window, rows: Rows, of_seconds: Series, words: dict[str, Any]
    ) -> dict[str, float | None]:
        if not window.fault_us or not isinstance(window.load, Steady) or FAULTS[window.fault].engine != engine:
            return {}
        healed = recovered(rows, of_seconds, window.fault_us, window.load.rate_per_s)
        words["recovered"] = healed.to_json()
        if healed.first_row_s is None or healed.steady_lag_s is None:
            self.notes.append(f"{window.name}: {engine} had not recovered when the load ended")
        return {
            "first_row_s": healed.first_row_s,
            "steady_lag_s": healed.steady_lag_s,
            "lag_highest": healed.lag_highest,
        }

    def _candles(self, engine: str) -> dict[str, Any]:
        sent = []
        for window in self.windows:
            schedule = Schedule(window.load.pieces())
            sent.append((
                window.first, window.sent.start_us, schedule.offsets_us(0, schedule.count), window.speed
            ))  # fmt: skip
        wanted, closed = candles.expected(sent, self.lab.symbols(), self.plan.malformed_every)
        found: dict[str, Any] = {}
        deadline_us = self.lab.now_us() + 60_000_000
        while True:
            found = candles.compare(self.lab.candles(engine), wanted, closed)
            if not found["missing"] or self.lab.now_us() > deadline_us:
                break
            self.lab.sleep(2.0)
        if not found["ok"]:
            self.red.append(
                f"{engine}: candles: {found['missing']} of {found['closed']} missing, {found['different']} different, "
                f"{found['strange']} of no window"
            )
        return found

    def _check_generator(self, output: RunOutput) -> None:
        for window in self.windows:
            delay = window.sent.delay()
            output.histograms[f"{window.name} generator"] = delay
            output.generator.append({
                "window": window.name, **window.sent.model_dump(), "load": window.load.model_dump(),
                "warmup_s": window.warmup_s, "delay": delay.summary(),
            })  # fmt: skip
            failed = sum(end - first for first, end in window.sent.failed)
            if failed:
                self.invalid.append(f"{window.name}: Kafka did not acknowledge {failed} events")
            p99_ms = delay.at_ms(99)
            if not window.measured and window.kind in {"drain", "search"}:
                continue
            if p99_ms is None or p99_ms > self.plan.generator_p99_ms:
                self.invalid.append(
                    f"{window.name}: the generator fell behind: p99 of its delay is {p99_ms or math.nan:.2f} ms, "
                    f"at most {self.plan.generator_p99_ms:g} ms are allowed"
                )

    def _figure(self, experiment: str, engine: str, point: str, metric: str, value: float) -> None:
        self.figures.append(Figure(experiment, self.plan.configuration, engine, point, metric, value))

    def _share(self, experiment: str, engine: str, point: str, rate: float) -> None:
        if self.ceilings.get(engine):
            self._figure(experiment, engine, point, "share_of_ceiling", rate / self.ceilings[engine])


class _UnsettledError(Exception):
    pass


def _latency_figures(latencies: Latencies) -> dict[str, float | None]:
    found = {name: value for name, value in latencies.summary().items() if name.endswith("_ms")}
    return {**found, "negative": latencies.negative}


def _drain_figures(window: Window, rows: Rows) -> dict[str, float | None]:
    known = rows.commit_us[rows.commit_us != NO_TIME]
    if len(known) < 2:
        return {}
    first_us, last_us = int(known.min()), int(known.max())
    found: dict[str, float | None] = {
        "first_row_s": (first_us - window.started_us) / 1e6, "drained_s": (last_us - window.started_us) / 1e6,
    }  # fmt: skip
    if last_us > first_us:
        found["drain_per_s"] = len(known) / ((last_us - first_us) / 1e6)
    return found


def _cost_figures(spent: Mapping[str, Any], millions: float) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for component, part in spent.items():
        found[f"cpu_s_per_million {component}"] = part["cpu_s"] / millions
        found[f"peak_mib {component}"] = part["peak_bytes"] / 2**20
        for name in ("read", "write"):
            if part[f"{name}_bytes"] is not None:
                found[f"{name}_mib_per_million {component}"] = part[f"{name}_bytes"] / 2**20 / millions
    return found


def _lowest_id(at_us: int) -> str:
    """Return the least id of an event intended in the millisecond of `at_us`, of any run."""
    return str(event_id(0, 0, at_us))


def _burst_kind(load: Load) -> str:
    return "periodic" if getattr(load, "period_s", None) else "single"


def _seconds_to_calm(window: Window, found: Series) -> float | None:
    """Return how many seconds after the end of its last burst the lag is what it was before the first (its highest).

    None where it was not before the load ended.
    """
    load = window.load
    pieces = load.pieces()
    starts = np.cumsum([0.0, *[piece.duration_s for piece in pieces]])
    peak = max(piece.from_per_s for piece in pieces)
    last_end_s = max(float(starts[number + 1]) for number, piece in enumerate(pieces) if piece.from_per_s == peak)
    before = found.lag[max(0, int(window.warmup_s)) : int(pieces[0].duration_s)]
    limit = int(before.max(initial=0)) + max(1, round(0.02 * pieces[0].from_per_s))
    first = int(last_end_s)
    calm = np.flatnonzero(found.lag[first:] <= limit)
    return float(calm[0]) if len(calm) else None
