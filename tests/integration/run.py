"""Run the integration tests, each suite as a process of its own.

    tests/integration/run.py [services|producer|spark|flink ...] [--all] [-- arguments of pytest]

A process each, because the suites import what the nodes get, and Spark's py4j is not Flink's. That comes from the
trees that `make artifacts` leaves in the cache; the apps themselves come from this repository's sources.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from services import artifact_tree

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]

NODES_PYTHON = (3, 11)
"""What the wheels in the trees are for."""

SHORT_LIVED = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Options of every JVM: they live for seconds, on two cores, so that compiling their code well does not pay."""

# suite -> (the apps whose sources are tested, the trees with what these apps import)
SUITES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "services": ((), ()),
    "producer": (("producer", "coinbase_replay"), ("producer", "coinbase_replay")),
    "spark": (("spark",), ("spark_job", "spark")),
    "flink": (("flink",), ("flink_job",)),
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


def run(suite: str, arguments: list[str]) -> int:
    """Run one suite; return pytest's exit code."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(folder) for folder in python_path(suite)),
        "JAVA_TOOL_OPTIONS": f"{os.environ.get('JAVA_TOOL_OPTIONS', '')} {SHORT_LIVED}".strip(),
    }
    if suite == "spark":
        environment["SPARK_HOME"] = str(artifact_tree("spark", "python", "pyspark"))
    if suite == "flink":
        environment["FLINK_HOME"] = str(artifact_tree("flink", "python", "pyflink"))
    tests = HERE / ("test_services.py" if suite == "services" else suite)
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "--durations=8", str(tests), *arguments], env=environment, cwd=REPOSITORY
    )

    def interrupt(number: int, _frame: object) -> None:
        # What pytest has started ends only where pytest ends in good order. A terminal has told it by itself.
        if number == signal.SIGTERM:
            process.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> int:
    """Return the exit code: 0 passed, 1 a suite failed (or was skipped where CI=true), 130 interrupted."""
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"{', '.join(SUITES)} (default: all)")
    parser.add_argument("--all", action="store_true", help="also the tests marked slow")
    arguments = parser.parse_args(sys.argv[1:split])
    if unknown := set(arguments.suites) - SUITES.keys():
        parser.error(f"no such suite: {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    for_pytest = [*([] if arguments.all else ["-m", "not slow"]), *sys.argv[split + 1 :]]

    outcomes: dict[str, str] = {}
    failed = False
    for suite in arguments.suites or SUITES:
        started_s = time.monotonic()
        if reason := why_not(suite):
            outcomes[suite] = f"skipped: {reason}"
            failed |= os.environ.get("CI") == "true"
        else:
            print(f"== {suite}", flush=True)
            try:
                code = run(suite, for_pytest)
            except FileNotFoundError as error:
                print(error, file=sys.stderr)
                code = 1
            outcomes[suite] = f"{'FAILED' if code else 'passed'} in {time.monotonic() - started_s:.0f} s"
            failed |= code != 0
            if code == int(signal.SIGINT):  # pytest's own number for an interruption is the same
                return 130
        print(f"== {suite}: {outcomes[suite]}", flush=True)
    print("integration tests: " + "; ".join(f"{suite} {outcome}" for suite, outcome in outcomes.items()))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
