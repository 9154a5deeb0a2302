"""Fixtures of Flink's integration tests: the built Java functions and a session cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from flink_cluster import FlinkCluster, running_cluster
from services import REPOSITORY, built_jar


@pytest.fixture(scope="session")
def functions_jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The jar of the Java functions."""
    work = tmp_path_factory.mktemp("functions")
    return built_jar("flink_job", "crypto-flink-functions.jar", REPOSITORY / "apps" / "flink" / "jvm", work)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkCluster]:
    """A JobManager and a TaskManager on loopback."""
    with running_cluster(tmp_path_factory.mktemp("flink")) as running:
        yield running
