"""Every day: how late were both engines' rows, as one HTML page (in the menu: Comparison report).

The pages are files below the report's folder on Airflow's node; the task's log says which.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from airflow.sdk import Connection, Param, dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from crypto_airflow import connections, report, settings

SETTINGS = settings.load()


@dag(
    schedule="10 0 * * *",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=dt.timedelta(minutes=30),
    default_args={"retries": 1, "retry_delay": dt.timedelta(minutes=2)},
    params={"hours": Param(24, type="integer", minimum=1, maximum=24 * 14, description="How far back to look")},
    tags=["crypto"],
    doc_md=__doc__,
)
def comparison_report() -> None:
    """One task: measure and write."""

    @task
    def write(params: dict[str, Any], dag_run: Any) -> str:  # noqa: ANN401 - Airflow's own
        """Write the page; returns its path."""
        until = dag_run.run_after
        day_from = until - dt.timedelta(hours=params["hours"])
        with connections.session(Connection.get(connections.CONNECTION)) as session:
            day = report.collect(session, day_from, until)
        if not day.engines:
            raise AirflowSkipException(f"no engine has written an event from {day_from} to {until}")
        page = report.render(day, dt.datetime.now(dt.UTC))
        path = report.write(page, SETTINGS.report.path, until.strftime("%Y-%m-%dT%H%MZ"), SETTINGS.report.keep)
        print(f"The page: {path}")
        lacking = sorted(SETTINGS.engines.keys() - day.engines.keys())
        if lacking:
            raise AirflowFailException(
                f"nothing to compare with: {', '.join(lacking)} has 0 events since {day_from}, limit 1; {path}"
            )
        return str(path)

    write()


comparison_report()
