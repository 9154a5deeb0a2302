"""Makes the Spark application's package importable from a checkout, and PySpark from the artifacts."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

cache = os.environ.get("CSL_CACHE") or Path(
    os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "crypto-stream-lab"
)
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "apps" / "spark" / "src"))
# 430 MB are not installed twice: what the nodes get serves here too, behind everything of the environment's own.
sys.path.append(str(Path(cache, "artifacts", "trees", "spark", "current", "python")))

if importlib.util.find_spec("pyspark") is None:
    if os.environ.get("CI") == "true":
        raise ModuleNotFoundError("no PySpark: run `make artifacts` first")
    collect_ignore_glob = ["test_*.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, for nobody misses what is not collected."""
    if importlib.util.find_spec("pyspark") is None:
        terminalreporter.write_line("left out: tests/unit/spark, for PySpark is not there (run `make artifacts` first)")
