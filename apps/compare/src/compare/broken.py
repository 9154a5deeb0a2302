"""Runs that are broken on purpose, to show that they are caught: `compare run --break rows|generator|memory`.

Nothing of the method is left out for them; what is wrong is done to the lab, behind the tool's back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

from compare.experiments import RunPlan
from compare.lab import GeneratorAccount, Lab
from compare.load import GeneratorSpec
from compare.rows import Rows

Kind = Literal["rows", "generator", "memory"]
KINDS: dict[str, str] = {
    "rows": "ten rows are deleted before they are read: the run has to be red",
    "generator": "the generator is stopped for a second of each load: the run has to be invalid",
    "memory": "Spark's executor is given half as much memory again: its runs have to be invalid",
}
DELETED_ROWS = 10
PAUSE_AT_S = 5.0
PAUSE_S = 1.0
# Half as much again as the role's default.
MORE_MEMORY = {"spark_job_executor_memory_mib": 1536}


class Breakable(Lab, Protocol):
    """A lab that can be damaged."""

    def delete_rows(self, engine: str, count: int) -> None:
        """Delete so many rows of an engine's table."""

    def pause_generator(self, seconds: float) -> None:
        """Stop the generator's process, and let it go on."""


class BrokenLab:
    """A lab in which one thing goes wrong; all else is the lab's own."""

    def __init__(self, lab: Breakable, kind: Kind) -> None:
        self._lab = lab
        self._kind = kind
        self._damaged: set[str] = set()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Hand on what is not broken."""
        return getattr(self._lab, name)

    def prepare(self, run: RunPlan, *, start: bool) -> None:
        """Make the lab ready, with more memory for one engine where that is what is wrong."""
        self._damaged.clear()
        if self._kind == "memory":
            run = run.model_copy(update={"variables": {**run.variables, **MORE_MEMORY}})
        self._lab.prepare(run, start=start)

    def generate(self, spec: GeneratorSpec, tick: Callable[[float, int], None]) -> GeneratorAccount:
        """Send a load; the generator stands still for a while where that is what is wrong."""
        paused = False

        def on_tick(seconds: float, sent: int) -> None:
            nonlocal paused
            if self._kind == "generator" and not paused and seconds >= PAUSE_AT_S:
                paused = True
                self._lab.pause_generator(PAUSE_S)
            tick(seconds, sent)

        return self._lab.generate(spec, on_tick)

    def rows(self, engine: str, tag: int, between: tuple[str, str] | None = None) -> Rows:
        """Return rows, fewer than there were where that is what is wrong."""
        if self._kind == "rows" and engine not in self._damaged:
            self._damaged.add(engine)
            self._lab.delete_rows(engine, DELETED_ROWS)
        return self._lab.rows(engine, tag, between)
