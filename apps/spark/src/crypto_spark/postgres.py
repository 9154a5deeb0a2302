"""The PostgreSQL side: batches from the staging tables into the tables people read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2 import sql

from crypto_spark.config import Postgres

log = logging.getLogger(__name__)

_TRUNCATE_AFTER_ROWS = 20_000
_SORT_MEMORY = "64MB"


class StagingIncompleteError(Exception):
    """A staging table holds fewer rows than the executors reported to have written."""


class AnotherApplicationError(Exception):
    """Another running application holds the lock of this query."""


@dataclass(frozen=True)
class Move:
    """One staging table and what becomes of its rows."""

    staging: str
    target: str
    columns: tuple[str, ...]
    order_by: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """What a committed batch was made of. ``sample`` holds rows as (symbol, price)."""

    inserted: int
    sample: Sequence[tuple[str, float]]


class Staging:
    """Moves batches from staging to target tables, in one transaction per batch.

    One object belongs to one query and is used by one thread at a time. A lock in the database keeps a second
    application of the same kind away: the staging tables are truncated, which would take its rows.

    Args:
        name: of the query.
        moves: the first one is the main table, counted and sampled.

    Raises:
        AnotherApplicationError: the lock is taken.
        psycopg2.Error: the database cannot be reached.
    """

    def __init__(self, name: str, settings: Postgres, password: str, moves: Sequence[Move]) -> None:
        self._moves = moves
        self._rows_since_truncate = {move.staging: 0 for move in moves}
        self._connection = connect(settings, password, f"crypto_spark {name}")
        with self._connection, self._connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(hashtext(%s))", (f"crypto_spark/{moves[0].staging}",))
            if not cursor.fetchone()[0]:
                self._connection.rollback()
                self._connection.close()
                raise AnotherApplicationError(
                    f"another application works on {moves[0].staging}: stop it first, or wait until the database has "
                    "noticed that it is gone"
                )
            # What a killed run left behind. Its batches are read again from Kafka, under another key.
            for move in moves:
                cursor.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(move.staging)))

    def commit(self, batch_key: str, expected_rows: Sequence[int], *, sample_rows: int = 0) -> Batch:
        """Move the rows staged under ``batch_key`` to their tables; rows that are there already stay as they are.

        Args:
            batch_key: of the rows.
            expected_rows: how many rows were staged at least, in the order of the moves.
            sample_rows: how many rows of the main table to return as a sample.

        Raises:
            StagingIncompleteError: there are fewer; nothing is written.
            psycopg2.Error: nothing is written.
        """
        inserted = []
        sample: list[tuple[str, float]] = []
        with self._connection, self._connection.cursor() as cursor:
            cursor.execute(sql.SQL("SET LOCAL work_mem = {}").format(sql.Literal(_SORT_MEMORY)))
            for move, expected in zip(self._moves, expected_rows, strict=True):
                if move is self._moves[0] and sample_rows:
                    sample = self._sample(cursor, move, batch_key, sample_rows)
                cursor.execute(_insert_statement(move), (batch_key,))
                inserted.append(cursor.rowcount)
                self._clear(cursor, move, batch_key, expected)
        return Batch(inserted[0], sample)

    def close(self) -> None:
        """Give the connection, and with it the lock, back."""
        self._connection.close()

    @staticmethod
    def _sample(cursor: Any, move: Move, batch_key: str, rows: int) -> list[tuple[str, float]]:  # noqa: ANN401
        cursor.execute(
            sql.SQL("SELECT symbol, price FROM {} WHERE batch_key = %s LIMIT %s").format(sql.Identifier(move.staging)),
            (batch_key, rows),
        )
        return [(symbol, price) for symbol, price in cursor.fetchall()]

    def _clear(self, cursor: Any, move: Move, batch_key: str, expected: int) -> None:  # noqa: ANN401
        table = sql.Identifier(move.staging)
        # Deleted rows stay in the file, and are scanned by each batch, until a vacuum: cheap for few, dear for many.
        truncate = self._rows_since_truncate[move.staging] + expected > _TRUNCATE_AFTER_ROWS
        statement = (
            "SELECT count(*) FROM {} WHERE batch_key = %s" if truncate else "DELETE FROM {} WHERE batch_key = %s"
        )
        cursor.execute(sql.SQL(statement).format(table), (batch_key,))
        staged: int = cursor.fetchone()[0] if truncate else cursor.rowcount
        # The tables are unlogged: after a crash of the server they are empty, without an error for who reads them.
        if staged < expected:
            raise StagingIncompleteError(
                f"{move.staging} holds {staged} rows of batch {batch_key} instead of {expected}"
            )
        if truncate:
            cursor.execute(sql.SQL("TRUNCATE {}").format(table))
            self._rows_since_truncate[move.staging] = 0
        else:
            self._rows_since_truncate[move.staging] += staged


def connect(settings: Postgres, password: str, application_name: str) -> Any:  # noqa: ANN401 - psycopg2 has no types
    """Open a connection whose death is noticed within a minute by both ends."""
    return psycopg2.connect(
        host=settings.host,
        port=settings.port,
        dbname=settings.database,
        user=settings.user,
        password=password,
        application_name=application_name,
        connect_timeout=10,
        keepalives_idle=20,
        keepalives_interval=10,
        keepalives_count=3,
        options="-c tcp_keepalives_idle=20 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3 -c timezone=UTC",
    )


def newest_prices(connection: Any, table: str, symbols: Sequence[str]) -> list[tuple[str, float]]:  # noqa: ANN401
    """Return (symbol, price) of the newest event of each symbol that has one."""
    with connection, connection.cursor() as cursor:
        cursor.execute(
            sql.SQL(
                "SELECT symbol, price FROM unnest(%s) AS known (symbol) CROSS JOIN LATERAL "
                "(SELECT price FROM {} AS t WHERE t.symbol = known.symbol ORDER BY timestamp DESC LIMIT 1) AS newest"
            ).format(sql.Identifier(table)),
            (list(symbols),),
        )
        return [(symbol, price) for symbol, price in cursor.fetchall()]


def _insert_statement(move: Move) -> sql.Composed:
    columns = sql.SQL(", ").join(map(sql.Identifier, move.columns))
    # Ordered, so that of the same event twice in a batch the first one is the one that stays.
    return sql.SQL(
        "INSERT INTO {} ({}) SELECT {} FROM {} WHERE batch_key = %s ORDER BY {} ON CONFLICT DO NOTHING"
    ).format(
        sql.Identifier(move.target),
        columns,
        columns,
        sql.Identifier(move.staging),
        sql.SQL(", ").join(map(sql.Identifier, move.order_by)),
    )
