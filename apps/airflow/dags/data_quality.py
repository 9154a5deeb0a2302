"""Every five minutes: is what both engines have written complete, fresh and alike?

Every check is kept in the table `data_quality_results`; `judge` fails with the name, the value and the limit of each
that is not met, while `measure` fails only where nothing could be measured.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

from airflow.sdk import Connection, Param, dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from crypto_airflow import connections, quality, settings, topic

SETTINGS = settings.load()


@dag(
    schedule="*/5 * * * *",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=dt.timedelta(minutes=5),
    # Of a task that Airflow could not begin, as while its API server starts; what the task finds fault with is final.
    default_args={"retries": 1, "retry_delay": dt.timedelta(seconds=30)},
    params={
        "window_s": Param(SETTINGS.quality.window_s, type="integer", minimum=60, description="How far back to look"),
        "freshness_s": Param(
            SETTINGS.quality.freshness_s, type="number", minimum=1, description="How old the newest row may be"
        ),
    },
    tags=["crypto"],
    doc_md=__doc__,
)
def data_quality() -> None:
    """Measure, then judge."""

    @task
    def measure(params: dict[str, Any], run_id: str) -> list[dict[str, Any]]:
        """Make every check, print and keep it."""
        now_ms = time.time_ns() // 1_000_000
        looked_at = quality.window(now_ms, params["window_s"], SETTINGS.quality.settle_s)
        reading = topic.read(
            SETTINGS.bootstrap_servers, SETTINGS.topic, looked_at.from_ms - quality.OVERLAP_MS,
            lambda message: quality.owed(message, SETTINGS.symbols, looked_at),
        )  # fmt: skip
        if quality.nothing_was_sent(reading.oldest_ms, looked_at):
            raise AirflowSkipException("the topic holds nothing yet that both engines must have written")
        with connections.session(Connection.get(connections.CONNECTION)) as session:
            findings = quality.measure(
                session, reading, SETTINGS, now_ms,
                window_s=params["window_s"], freshness_s=params["freshness_s"],
            )  # fmt: skip
            quality.store(session, SETTINGS.quality_table, run_id, findings)
        print("\n".join(map(quality.line, findings)))
        return quality.to_json(findings)

    @task
    def judge(found: list[dict[str, Any]]) -> None:
        """Fail when a check is not met."""
        said = quality.complaint(quality.from_json(found))
        if said:
            raise AirflowFailException(said)

    judge(measure())


data_quality()
