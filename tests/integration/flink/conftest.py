"""Fixtures of Flink's integration tests: the built Java functions and a session cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from flink_cluster import FlinkCluster, build_functions, running_cluster


@pytest.fixture(scope="session")
def functions_jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The jar of the Java functions, built from the sources."""
    return build_functions(tmp_path_factory.mktemp("functions"))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkCluster]:
    """A JobManager and a TaskManager on loopback."""
    with running_cluster(tmp_path_factory.mktemp("flink")) as running:
        yield running
