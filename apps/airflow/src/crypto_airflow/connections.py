"""The DAGs' way to the database: Airflow's connection `crypto_db`, of which they see nothing but the session."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import psycopg2

CONNECTION = "crypto_db"


class Described(Protocol):
    """What is used of Airflow's connection."""

    host: str | None
    port: int | None
    schema: str | None
    login: str | None
    password: str | None


@contextlib.contextmanager
def session(described: Described) -> Iterator[Any]:
    """Give a session that ends with the block; a statement that hangs does not outlive the task by much."""
    connection = psycopg2.connect(
        host=described.host, port=described.port or 5432, dbname=described.schema, user=described.login,
        password=described.password, application_name="airflow", connect_timeout=10,
        options="-c statement_timeout=120s",
    )  # fmt: skip
    try:
        yield connection
    finally:
        connection.close()
