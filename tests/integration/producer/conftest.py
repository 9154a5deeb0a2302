"""Fixtures of the producer's integration tests."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import KafkaServer

sys.path.insert(0, str(Path(__file__).parent))

from producer_processes import Producer, Replay


@pytest.fixture
def topic(kafka: KafkaServer) -> str:
    """A fresh topic of three partitions."""
    return kafka.create_topic(f"producer-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def replay(tmp_path: Path) -> Iterator[Replay]:
    """A running replay."""
    server = Replay(tmp_path / "replay")
    server.start()
    yield server
    if server.process is not None:
        server.process.kill()
        server.process.wait(20)


@pytest.fixture
def processes() -> Iterator[list[Producer]]:
    """Producers put in here are killed at the test's end."""
    started: list[Producer] = []
    yield started
    for producer in started:
        if producer.process is not None:
            producer.process.kill()
            producer.process.wait(20)
