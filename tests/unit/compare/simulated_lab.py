"""A lab with known answers: engines are queues of a known capacity and latency, the clock is a number."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from compare import candles
from compare.account import TopicFacts
from compare.experiments import RunPlan
from compare.faults import Fault
from compare.lab import Candles, GeneratorAccount, LabError, Offset, Usage
from compare.load import GeneratorSpec, Schedule, is_malformed
from compare.parity import EngineFacts
from compare.rows import Rows
from test_compare_parity import facts

SYMBOLS = ["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"]
UNITS = {"spark": "spark-worker", "flink": "flink-taskmanager"}


@dataclass
class Model:
    """One engine: rows per second at most, latency of an idle engine, and how long a killed one is away."""

    capacity_per_s: float = 20_000
    latency_us: int = 8_000
    away_s: float = 6.0
    cpu_us_per_row: float = 50.0
    start_s: float = 3.0
    idle_cores: float = 0.0


@dataclass
class SimulatedLab:
    """Each field but the first is a way to break a run."""

    models: dict[str, Model] = field(default_factory=lambda: {"spark": Model(latency_us=80_000), "flink": Model()})
    lose: list[int] = field(default_factory=list)
    stall_us: int = 0
    memory_mib: dict[str, int] = field(default_factory=dict)
    clock_apart_us: int = 0
    clock_unsure_us: int = 50
    early_us: int = 0
    wrong_candle: bool = False
    topic_double: int = 0
    unhealthy: list[str] = field(default_factory=list)
    fail_on: str = ""
    gone_after_load: bool = False
    interrupt_on: str = ""

    def __post_init__(self) -> None:
        self.now = 1_790_000_000_000_000
        self.calls: list[str] = []
        self._fresh()

    def _fresh(self) -> None:
        self.sent: list[tuple[GeneratorSpec, Schedule, int]] = []
        self.produced: list[int] = []
        self.commits: dict[str, list[int]] = {engine: [] for engine in self.models}
        self.free_us = dict.fromkeys(self.models, 0.0)
        self.away: dict[str, tuple[float, float]] = {}
        self.standing: set[str] = set()
        self.started_us: dict[str, int] = {}
        self.plan: RunPlan | None = None

    # The protocol

    def describe(self) -> dict[str, Any]:
        return {"topology": "simulated", "machine": "a simulated one, 2 cores", "commit": "0" * 12}

    def problems(self, events: int) -> list[str]:
        assert events > 0
        return list(self.unhealthy)

    def facts(self, engine: str) -> EngineFacts:
        if self.gone_after_load and self.produced:
            raise LabError(f"{engine}: no job runs")
        more: dict[str, Any] = {}
        if engine in self.memory_mib and self.plan is not None:
            more = {"task_memory_mib": self.memory_mib[engine]}
        if self.plan is not None and engine == "spark" and "spark_job_executor_memory_mib" in self.plan.variables:
            more = {"task_memory_mib": 384 + int(self.plan.variables["spark_job_executor_memory_mib"])}
        if self.plan is not None and "contract_parallelism" in self.plan.variables:
            more |= {
                "parallelism": self.plan.variables["contract_parallelism"],
                "partitions": self.plan.variables["contract_partitions"],
            }
        return facts(engine, **more)

    def keep(self, folder: Path) -> dict[str, int]:
        self.calls.append("keep")
        if self.fail_on == "keep":
            raise LabError("no room")
        folder.mkdir(parents=True)
        return {"crypto_prices_flink": 3}

    def prepare(self, run: RunPlan, *, start: bool) -> None:
        self.calls.append(f"prepare {run.id}")
        if self.interrupt_on and self.interrupt_on in run.id:
            raise KeyboardInterrupt
        if self.fail_on and self.fail_on in run.id:
            raise LabError("kafka-1: no route to host")
        self._fresh()
        self.plan = run
        self.now += 20_000_000
        if not start:
            self.standing = set(run.engines)

    def start_engine(self, engine: str) -> None:
        self.standing.discard(engine)
        self.now += round(self.models[engine].start_s * 1e6)
        self.started_us[engine] = self.now
        self._serve(engine)

    def restore(self) -> None:
        self.calls.append("restore")

    def clock_offsets(self) -> Mapping[str, Offset]:
        return {
            "producer-1": Offset(self.clock_apart_us, self.clock_unsure_us),
            "postgres-1": Offset(0, self.clock_unsure_us),
        }

    def clock_nodes(self) -> tuple[str, str]:
        return "producer-1", "postgres-1"

    def generate(self, spec: GeneratorSpec, tick: Callable[[float, int], None]) -> GeneratorAccount:
        schedule = Schedule(spec.load.pieces())
        start_us = self.now + 2_000_000
        offsets = schedule.offsets_us(0, schedule.count)
        first = len(self.produced)
        assert spec.first_index == first
        self.sent.append((spec, schedule, start_us))
        self.produced += [start_us + offset for offset in offsets]
        for second in range(-(-schedule.duration_us // 1_000_000)):
            self.now = start_us + second * 1_000_000
            tick(float(second), schedule.due(second * 1e6))
        self.now = start_us + schedule.duration_us
        assert self.plan is not None
        for engine in self.plan.engines:
            if engine not in self.standing:
                self._serve(engine)
        delays = [(10, schedule.count)]
        if self.stall_us:
            stalled = max(1, schedule.count // 20)
            delays = [(10, schedule.count - stalled), (self.stall_us // 10, stalled)]
        return GeneratorAccount(
            tag=spec.tag, first_index=spec.first_index, count=schedule.count, start_us=start_us, sent=schedule.count,
            handed_over_us=schedule.duration_us, acknowledged=schedule.count, unanswered=0, failed=[],
            delay_step_us=10, delays=delays, cpu_s=0.1,
        )  # fmt: skip

    def _serve(self, engine: str) -> None:
        """Commit what was sent and has no row yet: one after the other, each as soon as it can be."""
        model, done = self.models[engine], self.commits[engine]
        gap_us = 1e6 / model.capacity_per_s
        for index in range(len(done), len(self.produced)):
            at = max(self.produced[index], self.free_us[engine], self.started_us.get(engine, 0))
            begin, end = self.away.get(engine, (0.0, 0.0))
            if begin <= at < end:
                at = end
            self.free_us[engine] = at + gap_us
            done.append(round(at + model.latency_us - self.early_us))

    @contextlib.contextmanager
    def sampling(self) -> Iterator[list[Usage]]:
        begin, found = self.now, []  # type: ignore[var-annotated]
        yield found
        assert self.plan is not None
        for engine in self.plan.engines:
            commits = np.sort(np.array(self.commits[engine], np.int64))
            for at in range(begin, self.now + 1_000_001, 1_000_000):
                rows = int(np.searchsorted(commits, at, side="right"))
                model = self.models[engine]
                cpu = round(rows * model.cpu_us_per_row + (at - begin) * model.idle_cores)
                found.append(Usage(at, f"{engine}-1", UNITS[engine], "cgroup2", cpu, 2**28, 2**29, 0, rows * 100))

    def components(self, engine: str) -> Mapping[str, str]:
        return {UNITS[engine]: engine}

    def _index(self, engine: str) -> np.ndarray:
        commits = np.array(self.commits[engine], np.int64)
        good = np.array([not self._malformed(index) for index in range(len(commits))], bool)
        good &= commits <= self.now
        good &= ~np.isin(np.arange(len(commits)), self.lose)
        return np.flatnonzero(good).astype(np.int64)

    def _malformed(self, index: int) -> bool:
        assert self.plan is not None
        return is_malformed(index, self.plan.malformed_every)

    def row_count(self, engine: str) -> int:
        return len(self._index(engine))

    def rows(self, engine: str, tag: int, between: tuple[str, str] | None = None) -> Rows:
        assert self.plan is not None
        assert tag == self.plan.tag
        index = self._index(engine)
        produced = np.array(self.produced, np.int64)[index]
        commit = np.array(self.commits[engine], np.int64)[index]
        if between is not None:
            low, high = (int(text.replace("-", "")[:12], 16) * 1000 for text in between)
            chosen = (produced >= low) & (produced < high)
            return Rows(index[chosen], produced[chosen], commit[chosen])
        return Rows(index, produced, commit)

    def rejected(self, engine: str, tag: int) -> list[int]:  # noqa: ARG002
        return [index for index in range(len(self.produced)) if self._malformed(index)]

    def topic(self, tag: int, events: int) -> TopicFacts:  # noqa: ARG002
        doubled = [(0, self.topic_double)] if self.topic_double else []
        return TopicFacts(events + self.topic_double, duplicated=doubled)

    def candles(self, engine: str) -> Candles:
        assert self.plan is not None
        sent = [
            (spec.first_index, start_us, schedule.offsets_us(0, schedule.count), spec.event_time_speed)
            for spec, schedule, start_us in self.sent
        ]
        made, closed = candles.expected(sent, SYMBOLS, self.plan.malformed_every)
        found = {key: made[key] for key in closed}
        if self.wrong_candle and engine == "flink":
            key = min(found)
            found[key] = (*found[key][:4], found[key][4] + 1)
        return found

    def symbols(self) -> list[str]:
        return SYMBOLS

    def ceiling(self, engine: str, rows: int) -> float:  # noqa: ARG002
        self.now += 1_000_000
        return 100_000.0

    def inject(self, fault: Fault) -> int:
        self.away[fault.engine] = (self.now, self.now + self.models[fault.engine].away_s * 1e6)
        return self.now

    def live(self, engine: str) -> tuple[int, float | None]:
        return len(self.commits[engine]), 8.0

    def delete_rows(self, engine: str, count: int) -> None:
        assert engine in self.models
        self.lose = list(range(count))

    def pause_generator(self, seconds: float) -> None:
        self.stall_us = round(seconds * 1e6)

    def logs(self, engine: str, since_us: int) -> dict[str, str]:  # noqa: ARG002
        return {f"{engine}.log": "a line\n"}

    def now_us(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e6)
