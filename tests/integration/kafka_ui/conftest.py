"""A broker with topics, messages and a group, and the pages over it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
# Its Chromium.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "dashboard"))

from kafka_pages import commit, make_topics, pages
from services import KafkaServer


@pytest.fixture(scope="session")
def filled(kafka: KafkaServer) -> KafkaServer:
    make_topics(kafka)
    commit(kafka, {0: 40, 1: 50})
    return kafka


@pytest.fixture(scope="session")
def server(
    filled: KafkaServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with pages(filled, tmp_path_factory.mktemp("pages")) as found:
        yield found
