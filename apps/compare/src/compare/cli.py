"""Compare Spark and Flink on a running lab, by the method of docs/comparison-method.md.

  tools/compare plan --quick   which runs there would be, and how long they take; changes nothing
  tools/compare run --quick    make them: empties the lab's topic and tables before each, gives the lab back at the end
  tools/compare status         what is done, what is left
  tools/compare resume         go on after an interruption; finished runs stay
  tools/compare report         report.html and summary.md
  tools/compare diff A B       two sessions side by side: which differences are real, which are noise
  tools/compare export         figures, series and percentiles as CSV and Parquet

Results are in bench/LAB/NAME. `--lab` and `--target` are those of `make lab`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.live import Live
from rich.text import Text

from compare import experiments, export, report, summary
from compare import session as sessions
from compare.broken import KINDS, BrokenLab
from compare.experiments import RUN_OVERHEAD_S, ExperimentError, RunPlan
from compare.lab import Lab, LabError
from compare.runner import Progress, Show
from compare.session import RefusedError
from compare.sshlab import SshLab
from compare.store import Session, StoreError
from compare.tools import REPOSITORY, Context, ToolError

MIN_FREE_BYTES = 2 << 30


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    made = argparse.ArgumentParser(
        prog="compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--lab", default=os.environ.get("LAB") or "lab", help="name of the lab (default: lab)")
    made.add_argument("--target", default=os.environ.get("TARGET") or "", help="where its nodes come from")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (("plan", "say which runs there would be"), ("run", "make them")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--quick", action="store_true", help="the short form: a look, not a result")
        command.add_argument(
            "--only", action="append", default=[], metavar="EXPERIMENT", help="only this one; may be given repeatedly"
        )
        command.add_argument("--repetitions", type=int, help="other than declared; a published figure needs 5")
        if name == "run":
            command.add_argument("--name", help="of the session (by default the time)")
            command.add_argument(
                "--break", dest="broken", choices=sorted(KINDS),
                help="break every run on purpose, to see it caught: "
                + "; ".join(f"{kind}: {text}" for kind, text in KINDS.items()),
            )  # fmt: skip
    for name, text in (
        ("status", "what is done and what is left"), ("resume", "go on with a session"),
        ("report", "write report.html and summary.md"), ("export", "write CSV and Parquet"),
    ):  # fmt: skip
        command = commands.add_parser(name, help=text)
        command.add_argument("session", nargs="?", help="name or folder of a session (the newest one)")
        if name == "resume":
            command.add_argument(
                "--again", action="append", default=[], metavar="RUN", help="make this finished run again"
            )
        if name in {"report", "export"}:
            command.add_argument("--out", type=Path, help="folder to write to (the session's)")
    diff = commands.add_parser("diff", help="compare two sessions")
    diff.add_argument("a", help="name or folder")
    diff.add_argument("b", help="name or folder")
    diff.add_argument("--real", action="store_true", help="only differences that are real")
    return made


def folder_of(lab: str) -> Path:
    """Return where a lab's sessions are."""
    # Not in .lab, which `make clean` removes.
    return REPOSITORY / "bench" / lab


def find(lab: str, name: str | None) -> Session:
    """Return a session by its name or folder, the newest one without. Raises StoreError where there is none."""
    if name is None:
        found = sorted(folder_of(lab).glob("*/session.json"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise StoreError(f"{folder_of(lab)}: there are no results yet: `make bench` makes some")
        return Session.open(found[-1].parent)
    path = Path(name)
    return Session.open(path if path.is_dir() else folder_of(lab) / name)


def words(progress: Progress, left_s: float, number: int, of: int) -> str:
    """Return a run's progress in one line."""
    lag = ", ".join(f"{engine} {count:,}" for engine, count in progress.lag.items())
    p99 = ", ".join(
        f"{engine} {value:.0f} ms" if value is not None else f"{engine} -" for engine, value in progress.p99_ms.items()
    )
    return (
        f"run {number} of {of}  {progress.window}  {progress.seconds:.0f} s  {progress.due_per_s:,.0f} events/s  "
        f"lag {lag or '-'}" + (f"  p99 {p99}" if p99 else "") + f"  left {dt.timedelta(seconds=round(left_s))}"
    )


def make_runs(session: Session, lab: Lab, *, checked: bool = False) -> int:
    """Make a session's pending runs with progress on the screen; returns an exit code."""
    console = Console()
    with Live(console=console, refresh_per_second=2, transient=True) as live:

        def show(number: int, of: int) -> Show:
            left_s = sessions.time_left_s(session)
            began_us = lab.now_us()

            def tell(progress: Progress) -> None:
                spent_s = (lab.now_us() - began_us) / 1e6
                live.update(Text(words(progress, max(0.0, left_s - spent_s), number, of)))

            live.update(Text(f"run {number} of {of}  making the lab ready"))
            return tell

        failed = sessions.make(session, lab, lambda line: console.print(Text(line)), show, checked=checked)
    for path in report.write(session, session.path):
        print(path)
    print("\n" + "\n".join(summary.answer(summary.summarise(session.finished()))))
    bad = [run for run in session.finished() if run.verdict != "valid"]
    if bad:
        print(f"\n{len(bad)} runs are red or invalid; the report says why.")
    return 1 if failed or bad else 0


def _plan(options: argparse.Namespace) -> list[RunPlan]:
    configurations, declared = experiments.load()
    return experiments.plan(
        configurations, declared, quick=options.quick, only=options.only, repetitions=options.repetitions
    )


def _run(options: argparse.Namespace) -> int:
    plan = _plan(options)
    context = Context(target=options.target, lab=options.lab)
    path = folder_of(options.lab) / (options.name or dt.datetime.now(dt.UTC).strftime("%Y-%m-%d-%H%M%S"))
    if shutil.disk_usage(REPOSITORY).free < MIN_FREE_BYTES:
        raise RefusedError(f"{REPOSITORY}: less than {MIN_FREE_BYTES >> 30} GiB of disk are free for results")
    with context.locked():
        lab = SshLab(context)
        seconds = sum(run.seconds(RUN_OVERHEAD_S) for run in plan)
        print(
            f"Lab '{options.lab}': {len(plan)} runs, about {dt.timedelta(seconds=round(seconds))}. Topic and tables "
            f"are emptied before each; the rows of now are kept.\nResults: {path}\n"
            "Ctrl-C stops; `tools/compare resume` goes on.",
            flush=True,
        )
        about = {
            "form": "quick" if options.quick else "full", "only": options.only, "broken": options.broken or "",
        }  # fmt: skip
        session = sessions.begin(path, lab, plan, about)
        return make_runs(session, _maybe_broken(lab, session), checked=True)


def _maybe_broken(lab: SshLab, session: Session) -> Lab:
    kind = session.about.get("broken")
    return cast("Lab", BrokenLab(lab, kind)) if kind else lab


def _resume(options: argparse.Namespace) -> int:
    session = find(options.lab, options.session)
    for run in list(session.finished()):
        if run.plan.id in options.again:
            session.forget(run.plan)
    if not session.pending():
        print("Nothing is left to be made.")
        return 0
    context = Context(target=options.target, lab=options.lab)
    with context.locked():
        return make_runs(session, _maybe_broken(SshLab(context), session))


def _status(options: argparse.Namespace) -> int:
    session = find(options.lab, options.session)
    finished = list(session.finished())
    for run in finished:
        reasons = [*run.result["red"], *run.result["invalid"]]
        print(f"  {run.verdict:<8} {run.plan.id}" + (f": {'; '.join(reasons)}" if reasons else ""))
    pending = session.pending()
    for plan in pending:
        print(f"  -        {plan.id}")
    left = dt.timedelta(seconds=round(sessions.time_left_s(session)))
    print(f"{session.path.name}: {len(finished)} of {len(finished) + len(pending)} runs are made, about {left} left")
    return 0


def _report(options: argparse.Namespace) -> int:
    session = find(options.lab, options.session)
    for path in report.write(session, options.out or session.path):
        print(path)
    return 0


def _export(options: argparse.Namespace) -> int:
    session = find(options.lab, options.session)
    for path in export.export(session.finished(), options.out or session.path / "export"):
        print(path)
    return 0


def _diff(options: argparse.Namespace) -> int:
    a, b = (summary.summarise(find(options.lab, name).finished()) for name in (options.a, options.b))
    found = summary.compare_sessions(a, b)
    if not found:
        print("The sessions have no figure in common.")
        return 1
    print(f"{'':<12}  {'':<64}  {'A':>28}  {'B':>28}  B / A")
    print("\n".join(summary.diff_lines(found, only_real=options.real)))
    return 0


def _say_plan(options: argparse.Namespace) -> int:
    print(sessions.say_plan(_plan(options)))
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "plan": _say_plan, "run": _run, "resume": _resume, "status": _status, "report": _report, "export": _export,
    "diff": _diff,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Command line entry point: 0 all is well, 1 a run is red, invalid or not made, 2 refused, 130 interrupted."""
    options = parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except (ExperimentError, RefusedError, StoreError, LabError, ToolError, OSError) as error:
        print(f"compare {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. Finished runs are kept; `tools/compare resume` goes on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
