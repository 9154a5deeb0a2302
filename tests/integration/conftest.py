"""Fixtures for every integration test: a real Kafka and a real PostgreSQL, one of each for the whole run."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from services import TABLES, KafkaServer, PostgresServer, running_kafka, running_postgres


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A KRaft broker on loopback."""
    with running_kafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server with the lab's schema."""
    # pytest's own temporary folders are closed to other users, and the server is another user.
    with tempfile.TemporaryDirectory(prefix="lab-postgres-") as directory:
        Path(directory).chmod(0o755)
        with running_postgres(Path(directory) / "server") as server:
            yield server


@pytest.fixture
def clean_database(postgres: PostgresServer) -> Iterator[psycopg2.extensions.connection]:
    """All tables emptied; gives a superuser connection in autocommit mode."""
    with contextlib.closing(psycopg2.connect(postgres.superuser_dsn)) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"TRUNCATE {', '.join(TABLES)}")
        yield connection
