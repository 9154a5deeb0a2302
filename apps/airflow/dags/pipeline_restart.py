"""By hand: restart a part of the pipeline, and wait until both engines write rows of events that came after it.

Airflow has a key by which the services' nodes do one thing: restart the units that are listed there for it.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

from airflow.sdk import Connection, Param, dag, task
from airflow.sdk.exceptions import AirflowFailException
from crypto_airflow import connections, restart, settings

SETTINGS = settings.load()
SERVICES = sorted(SETTINGS.restart.services)


@dag(
    schedule=None,
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    catchup=False,
    # Two restarts at once would wait for each other's rows.
    max_active_runs=1,
    dagrun_timeout=dt.timedelta(minutes=30),
    default_args={"retries": 0},
    params={
        "service": Param(next(iter(SERVICES), None), type="string", enum=SERVICES, description="What is restarted")
    },
    tags=["crypto"],
    doc_md=__doc__,
)
def pipeline_restart() -> None:
    """Restart, then wait."""

    @task
    def restart_service(params: dict[str, Any]) -> int:
        """Restart the units of the service; returns when they were back, in epoch ms."""
        try:
            restart.restart_service(params["service"], SETTINGS.restart)
        except restart.RestartError as error:
            raise AirflowFailException(str(error)) from None
        return time.time_ns() // 1_000_000

    @task
    def wait_for_rows(since_ms: int) -> dict[str, int]:
        """Wait for rows of both engines; returns the newest event time of each, in ms."""
        try:
            with connections.session(Connection.get(connections.CONNECTION)) as session:
                return restart.wait_for_rows(session, SETTINGS, since_ms)
        except restart.RestartError as error:
            raise AirflowFailException(str(error)) from None

    wait_for_rows(restart_service())


if SERVICES:
    pipeline_restart()
