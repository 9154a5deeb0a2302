"""A session: preflight, then run after run, each kept as soon as it is whole; to be interrupted and resumed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compare.experiments import RUN_OVERHEAD_S, RunPlan
from compare.lab import Lab, LabError
from compare.parity import EngineFacts, violations
from compare.runner import Runner, Show
from compare.store import Session

# A lab that fails that many runs one after the other is no lab to go on with.
MAX_FAILURES = 2
# Folder of what the tables held before the first run.
BEFORE = "before"
Say = Callable[[str], None]


class RefusedError(Exception):
    """The session does not start; the text lists every reason."""


def preflight(lab: Lab, plan: list[RunPlan]) -> dict[str, EngineFacts]:
    """Return the engines' facts. Raises RefusedError with all that is wrong with the lab and its terms."""
    problems = lab.problems(max((run.events for run in plan), default=0))
    facts: dict[str, EngineFacts] = {}
    for engine in ("spark", "flink"):
        try:
            facts[engine] = lab.facts(engine)
        except LabError as error:
            problems.append(str(error))
    if len(facts) == 2:
        problems += [f"the engines do not run on equal terms: {text}" for text in violations(**facts)]
    if problems:
        raise RefusedError("\n".join(problems))
    return facts


def begin(path: Path, lab: Lab, plan: list[RunPlan], about: dict[str, Any]) -> Session:
    """Check the lab and begin a session. Raises RefusedError, StoreError."""
    facts = preflight(lab, plan)
    return Session.create(path, {
        **about, "began": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), "lab": lab.describe(),
        "baseline": {engine: found.model_dump() for engine, found in facts.items()},
        "plan": [run.model_dump(mode="json") for run in plan],
    })  # fmt: skip


def time_left_s(session: Session) -> float:
    """Return about how long the rest of a session takes, by what its finished runs took."""
    overhead_s = session.overhead_s(RUN_OVERHEAD_S)
    return sum(plan.seconds(overhead_s) for plan in session.pending())


def make(
    session: Session, lab: Lab, say: Say, show: Callable[[int, int], Show], *, checked: bool = False
) -> int:  # fmt: skip
    """Make all pending runs; returns how many failed (they stay pending). Gives the lab back at the end, always.

    `show` makes for run k of n what its progress is told to. A lab that has just been `checked` is not checked again.
    """
    # A session that is resumed is held to the terms it began with.
    if not checked:
        preflight(lab, session.pending())
    baseline = {engine: EngineFacts.model_validate(found) for engine, found in session.about["baseline"].items()}
    plans = session.plans()
    before = session.path / BEFORE
    if not before.is_dir():
        for table, rows in lab.keep(before).items():
            say(f"kept {rows:,} rows of {table} in {before}")
    failed = in_a_row = 0
    try:
        for number, plan in enumerate(plans, 1):
            if session.is_finished(plan):
                continue
            try:
                output = Runner(lab, baseline, show(number, len(plans))).run(plan)
            except LabError as error:
                failed += 1
                in_a_row += 1
                say(f"run {number} of {len(plans)}, {plan.id}: not made: {error}")
                if in_a_row >= MAX_FAILURES:
                    raise LabError(
                        f"{in_a_row} runs in a row could not be made. The last: {error}. `tools/compare resume` goes "
                        "on once the cause is gone."
                    ) from error
                continue
            in_a_row = 0
            session.save(plan, output)
            words = [*output.result["red"], *output.result["invalid"]]
            say(f"run {number} of {len(plans)}, {plan.id}: {output.result['verdict']}"
                + (": " + "; ".join(words) if words else ""))  # fmt: skip
    finally:
        say("giving the lab back")
        lab.restore()
    return failed


def say_plan(plans: list[RunPlan], overhead_s: float = RUN_OVERHEAD_S) -> str:
    """Return the plan in words, with an estimate of its time."""
    lines = []
    for number, plan in enumerate(plans, 1):
        names = ", ".join(dict.fromkeys(step.experiment for step in plan.steps))
        lines.append(f"{number:>4}  {plan.seconds(overhead_s):>5.0f} s  {plan.id:<48} {names}")
    total_s = sum(plan.seconds(overhead_s) for plan in plans)
    lines.append(
        f"{len(plans)} runs, about {dt.timedelta(seconds=round(total_s))}, {overhead_s:.0f} s of each beside its loads"
    )
    return "\n".join(lines)
