"""What an experiment needs of a lab. `compare.sshlab` is a real one; tests have a simulated one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from compare.account import TopicFacts
from compare.experiments import RunPlan
from compare.faults import Fault
from compare.hist import Latencies
from compare.load import GeneratorSpec
from compare.parity import EngineFacts
from compare.rows import Rows

Candle = tuple[float, float, float, float, int]
Candles = dict[tuple[str, int], Candle]


class LabError(Exception):
    """The lab did not do what was asked; the text says which node, what, and its words."""


class GeneratorAccount(BaseModel):
    """What the generator says it sent. `failed` are ranges of the run's event numbers; times are microseconds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    tag: int
    first_index: int
    count: int
    start_us: int
    sent: int
    handed_over_us: int
    acknowledged: int
    unanswered: int
    failed: list[tuple[int, int]]
    delay_step_us: int
    delays: list[tuple[int, int]]
    warmup_delays: list[tuple[int, int]] = []
    cpu_s: float
    nice: int = 0

    def delay(self) -> Latencies:
        """Return the generator's own delay, handing over - intended time, of the events after the warm-up."""
        made = Latencies()
        made.record_counts((step * self.delay_step_us, count) for step, count in self.delays)
        return made


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters of one unit on one node at one time: CPU and bytes ascend, memory is of the moment and its peak.

    `source` says where they are from: cgroup2, cgroup1 or proc. Bytes are None where that source has none.
    """

    at_us: int
    node: str
    unit: str
    source: str
    cpu_us: int
    memory_bytes: int
    peak_bytes: int
    read_bytes: int | None
    write_bytes: int | None


@dataclass(frozen=True)
class Offset:
    """A node's clock - the controller's, in microseconds, and how far from that it can be at most."""

    offset_us: int
    uncertainty_us: int


class Lab(Protocol):
    """A running lab. Every method raises LabError where the lab does not answer."""

    def describe(self) -> dict[str, Any]:
        """Return topology, nodes, host, versions, commit, database settings: the manifest's part that is the lab's."""

    def problems(self, events: int) -> list[str]:
        """Return what keeps runs of so many events from starting: services, metrics, disk."""

    def facts(self, engine: str) -> EngineFacts:
        """Return an engine's settings as they run."""

    def keep(self, folder: Path) -> dict[str, int]:
        """Stop the producer and write the tables to files in a folder; returns table => rows of those that have any.

        Whole or not at all: where it fails, the producer goes on and there is no folder.
        """

    def prepare(self, run: RunPlan, *, start: bool) -> None:
        """Make topic, tables and checkpoints anew, set what the run sets, stop the producer and the other engine.

        With `start`, the run's engines run when this returns; else `start_engine` starts them.
        """

    def start_engine(self, engine: str) -> None:
        """Start an engine that `prepare` has left standing."""

    def restore(self) -> None:
        """Give the lab back as it was: the defaults' settings, both engines and the producer."""

    def clock_offsets(self) -> Mapping[str, Offset]:
        """Return the offset of each node's clock."""

    def clock_nodes(self) -> tuple[str, str]:
        """Return the nodes between whose clocks latency is measured: the generator's and PostgreSQL's."""

    def generate(self, spec: GeneratorSpec, tick: Callable[[float, int], None]) -> GeneratorAccount:
        """Send a load and wait for its end; `tick(seconds, sent)` is called about once a second."""

    def sampling(self) -> AbstractContextManager[list[Usage]]:
        """Sample the resources of all nodes once a second into the list, until the block ends."""

    def components(self, engine: str) -> Mapping[str, str]:
        """Return unit => component of what is paid for: the engine's name, postgres, kafka, generator."""

    def row_count(self, engine: str) -> int:
        """Return how many rows an engine's table has."""

    def rows(self, engine: str, tag: int, between: tuple[str, str] | None = None) -> Rows:
        """Return a run's rows in an engine's table, those of a range of ids where one is given."""

    def rejected(self, engine: str, tag: int) -> list[int]:
        """Return the event numbers in rejected_messages, -1 for one that is not the run's."""

    def topic(self, tag: int, events: int) -> TopicFacts:
        """Read the topic from its beginning to its end."""

    def candles(self, engine: str) -> Candles:
        """Return an engine's candles: (symbol, window start in epoch ms) => open, high, low, close, count."""

    def symbols(self) -> list[str]:
        """Return the contract's symbols, in the order in which events take them."""

    def ceiling(self, engine: str, rows: int) -> float:
        """Return rows per second of COPY into a table like the engine's, from its worker node."""

    def inject(self, fault: Fault) -> int:
        """Kill what the fault names; returns when, by the generator node's clock (epoch us)."""

    def live(self, engine: str) -> tuple[int, float | None]:
        """Return about how many rows there are, and a sampled p99 in ms of the newest: cheap, for the screen only."""

    def logs(self, engine: str, since_us: int) -> dict[str, str]:
        """Return the journals of an engine's units since a time, by name."""

    def now_us(self) -> int:
        """Return the time (epoch us)."""

    def sleep(self, seconds: float) -> None:
        """Wait."""
