"""Every day: rows that are older than `days` go, in small transactions that no writer waits for.

The audit (`make audit`) compares the tables with the topic, which keeps seven days: with fewer days than that it finds
rows missing. What a run does not get done the next one does; the run says so by failing.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from airflow.sdk import Connection, Param, dag, task
from airflow.sdk.exceptions import AirflowFailException
from crypto_airflow import connections, retention, settings

SETTINGS = settings.load()


@dag(
    dag_id="retention",
    schedule="40 0 * * *",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=dt.timedelta(hours=2),
    # Of a task that Airflow could not begin, as while its API server starts; what the task finds fault with is final.
    default_args={"retries": 1, "retry_delay": dt.timedelta(seconds=30)},
    params={"days": Param(SETTINGS.retention.days, type="integer", minimum=1, description="How many days are kept")},
    tags=["crypto"],
    doc_md=__doc__,
)
def expire_rows() -> None:
    """One task: delete."""

    @task
    def expire(params: dict[str, Any]) -> dict[str, int]:
        """Delete old rows; returns how many of which table."""
        days = params["days"]
        with connections.session(Connection.get(connections.CONNECTION)) as session:
            outcome = retention.expire(session, SETTINGS, days)
        for table, deleted in outcome.deleted.items():
            print(f"{table}: {deleted} rows older than {days} days deleted")
        if outcome.left:
            raise AirflowFailException(f"rows older than {days} days may be left: {'; '.join(outcome.left)}")
        return outcome.deleted

    expire()


expire_rows()
