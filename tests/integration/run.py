"""Run the integration tests, each suite as a process of its own.

    tests/integration/run.py [flink|spark|producer|airflow|compare|dashboard|kafka_ui|roles|playbooks|services ...]
                             [--all] [--jobs 3] [-- ...]

A process each, because the suites import what the nodes get, and Spark's py4j is not Flink's. That comes from the
trees that `make artifacts` leaves in the cache; the apps themselves come from this repository's sources.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from services import artifact_tree

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]

NODES_PYTHON = (3, 11)
"""What the wheels in the trees are for."""

SHORT_LIVED = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Options of every JVM: they live for seconds, on two cores, so that compiling their code well does not pay."""

POLL_S = 0.2

# Longest first. suite -> (the apps whose sources are tested, the trees with what these apps import)
SUITES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "producer": (("producer", "coinbase_replay"), ("producer", "coinbase_replay")),
    "flink": (("flink",), ("flink_job",)),
    "spark": (("spark",), ("spark_job", "spark")),
    "airflow": (("airflow",), ("airflow",)),
    # With the controller's libraries, which are not on nodes.
    "compare": (("compare",), ()),
    "dashboard": (("dashboard",), ("dashboard",)),
    "kafka_ui": (("kafka_ui",), ("kafka_ui",)),
    "playbooks": ((), ()),
    "roles": ((), ()),
    "services": ((), ()),
}


def python_path(suite: str) -> list[Path]:
    """Return the folders of a suite's PYTHONPATH: sources before trees, which hold a copy of them.

    Raises:
        FileNotFoundError: a tree is missing.
    """
    apps, trees = SUITES[suite]
    return [REPOSITORY / "apps" / app / "src" for app in apps] + [artifact_tree(tree, "python") for tree in trees]


def why_not(suite: str) -> str | None:
    """Return why this machine cannot run the suite; None where it can."""
    if SUITES[suite][1] and sys.version_info[:2] != NODES_PYTHON:
        found = ".".join(str(number) for number in sys.version_info[:2])
        wanted = ".".join(str(number) for number in NODES_PYTHON)
        return f"the artifacts are for Python {wanted}, as on the nodes, and {sys.executable} is {found}"
    return None


def start(suite: str, arguments: list[str], output: IO[str]) -> subprocess.Popen[bytes]:
    """Start one suite.

    Raises:
        FileNotFoundError: a tree is missing.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(folder) for folder in python_path(suite)),
        "JAVA_TOOL_OPTIONS": f"{os.environ.get('JAVA_TOOL_OPTIONS', '')} {SHORT_LIVED}".strip(),
    }
    if suite == "spark":
        environment["SPARK_HOME"] = str(artifact_tree("spark", "python", "pyspark"))
    if suite == "flink":
        environment["FLINK_HOME"] = str(artifact_tree("flink", "python", "pyflink"))
    tests = HERE / suite if (HERE / suite).is_dir() else HERE / f"test_{suite}.py"
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "--durations=8", str(tests), *arguments],
        env=environment, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT,
    )  # fmt: skip


class Runner:
    """Runs suites, `jobs` at a time; each one's output is printed in one piece when it ends."""

    def __init__(self, arguments: list[str], jobs: int) -> None:
        self.arguments, self.jobs = arguments, jobs
        self.running: dict[str, tuple[subprocess.Popen[bytes], IO[str], float]] = {}
        self.outcomes: dict[str, str] = {}
        self.failed = self.interrupted = False

    def run(self, suites: Iterable[str]) -> None:
        """Run the suites; what they have said and how they went is kept in `outcomes`."""

        def interrupt(number: int, _frame: object) -> None:
            # What pytest has started ends only where pytest ends in good order. A terminal has told it by itself.
            self.interrupted = True
            if number == signal.SIGTERM:
                for process, _, _ in self.running.values():
                    process.send_signal(signal.SIGINT)

        before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            waiting = list(suites)
            while self.running or (waiting and not self.interrupted):
                while waiting and len(self.running) < self.jobs and not self.interrupted:
                    self._begin(waiting.pop(0))
                for suite in [name for name, (process, _, _) in self.running.items() if process.poll() is not None]:
                    self._end(suite)
                time.sleep(POLL_S)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _begin(self, suite: str) -> None:
        if reason := why_not(suite):
            self._note(suite, f"skipped: {reason}", failed=os.environ.get("CI") == "true")
            return
        output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - _end closes it
        try:
            self.running[suite] = start(suite, self.arguments, output), output, time.monotonic()
            print(f"== {suite}: begins", flush=True)
        except FileNotFoundError as error:
            output.close()
            self._note(suite, f"FAILED: {error}", failed=True)

    def _end(self, suite: str) -> None:
        process, output, began_s = self.running.pop(suite)
        with output:
            output.seek(0)
            print(f"== {suite}\n{output.read()}", flush=True)
        word = "FAILED" if process.returncode else "passed"
        self._note(suite, f"{word} in {time.monotonic() - began_s:.0f} s", failed=process.returncode != 0)

    def _note(self, suite: str, outcome: str, *, failed: bool) -> None:
        self.outcomes[suite] = outcome
        self.failed |= failed
        print(f"== {suite}: {outcome}", flush=True)


def main() -> int:
    """Return the exit code: 0 passed, 1 a suite failed (or was skipped where CI=true), 130 interrupted."""
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"{', '.join(SUITES)} (default: all)")
    parser.add_argument("--all", action="store_true", help="also the tests marked slow")
    parser.add_argument(
        "--jobs", type=int, default=3, help="how many suites at a time (3; the producer's mostly waits)"
    )
    arguments = parser.parse_args(sys.argv[1:split])
    if unknown := set(arguments.suites) - SUITES.keys():
        parser.error(f"no such suite: {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    for_pytest = [*([] if arguments.all else ["-m", "not slow"]), *sys.argv[split + 1 :]]

    runner = Runner(for_pytest, arguments.jobs)
    runner.run(arguments.suites or SUITES)
    outcomes = "; ".join(f"{suite} {outcome}" for suite, outcome in runner.outcomes.items())
    print(f"integration tests: {outcomes}")
    return 130 if runner.interrupted else int(runner.failed)


if __name__ == "__main__":
    sys.exit(main())
