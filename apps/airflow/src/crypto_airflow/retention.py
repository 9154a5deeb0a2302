"""The DAG retention: old rows go, in small transactions that no writer waits for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg2.errors

from crypto_airflow.settings import Settings

Connection = Any
# A batch that takes longer is given up.
BATCH_S = 60


@dataclass
class Outcome:
    """How many rows went, table by table; `left` names where old rows may be left, and why."""

    deleted: dict[str, int] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def parts(settings: Settings) -> Iterator[tuple[str, str]]:
    """Give what is gone through, as (table, symbol): the indexes begin with the symbol. Other tables have none."""
    for tables in settings.engines.values():
        for table in (tables.prices, tables.candles):
            for symbol in settings.symbols:
                yield table, symbol
    yield settings.rejected_table, ""
    yield settings.quality_table, ""


def expire(
    connection: Connection, settings: Settings, days: float, *, sleep: Callable[[float], None] = time.sleep
) -> Outcome:
    """Delete what is older than `days`, batch by batch, up to `max_rows` in all.

    The batches are the database's function delete_expired: the role may delete nothing else, nor rows of the last day.
    """
    limits, outcome = settings.retention, Outcome()
    left = limits.max_rows
    # Every batch is a transaction of its own.
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"SET statement_timeout = '{BATCH_S}s'")
        for table, symbol in parts(settings):
            outcome.deleted.setdefault(table, 0)
            while left > 0:
                batch = min(limits.batch_rows, left)
                try:
                    cursor.execute(
                        "SELECT delete_expired(%s, %s, make_interval(secs => %s), %s)",
                        (table, symbol, days * 86_400, batch),
                    )
                except psycopg2.errors.LockNotAvailable:
                    outcome.left.append(f"{table}: locked by somebody else")
                    break
                except psycopg2.errors.QueryCanceled:
                    outcome.left.append(f"{table}: a batch took longer than {BATCH_S} s")
                    break
                (deleted,) = cursor.fetchone()
                outcome.deleted[table] += deleted
                left -= deleted
                if deleted < batch:
                    break
                sleep(limits.pause_s)
            else:
                outcome.left.append(f"{table}: the run's {limits.max_rows} rows are used up")
                break
    return outcome
