"""Each DAG by dag.test(), with a real PostgreSQL and a real Kafka: green, and red with its fault."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
from airflow_pipeline import Pipeline
from services import PostgresServer

Run = Callable[..., dict[str, str]]


@pytest.fixture
def run(dags: dict[str, Any]) -> Run:
    """Run a DAG; returns task => state."""

    def once(name: str, **conf: Any) -> dict[str, str]:  # noqa: ANN401
        done = dags[name].test(run_conf=conf or None)
        return {task.task_id: str(task.state) for task in done.get_task_instances()}

    return once


def failed(pipeline: Pipeline) -> list[tuple[str, str]]:
    """Return check and subject of what the newest run found wrong."""
    pipeline.sql.execute(
        "SELECT check_name, subject FROM data_quality_results WHERE NOT passed AND run_id ="
        " (SELECT run_id FROM data_quality_results ORDER BY id DESC LIMIT 1) ORDER BY 1, 2"
    )
    return list(pipeline.sql.fetchall())


def test_all_dags_are_there(dags: dict[str, Any]) -> None:
    assert sorted(dags) == ["comparison_report", "data_quality", "pipeline_restart", "retention"]
    assert all(dag.tags == {"crypto"} and dag.doc_md for dag in dags.values())


def test_new_lab_is_skipped(run: Run, pipeline: Pipeline) -> None:
    assert set(run("data_quality").values()) == {"skipped"}
    pipeline.sql.execute("SELECT count(*) FROM data_quality_results")
    assert pipeline.sql.fetchone() == (0,)


def test_quality_is_green_and_kept(run: Run, flowing: Pipeline) -> None:
    assert run("data_quality") == {"measure": "success", "judge": "success"}
    assert failed(flowing) == []
    flowing.sql.execute("SELECT count(*), count(DISTINCT check_name), count(DISTINCT run_id) FROM data_quality_results")
    assert flowing.sql.fetchone() == (12, 7, 1)


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (
            "DELETE FROM crypto_prices_flink WHERE symbol = 'SOL-USD' AND timestamp < %(settled)s",
            [("missing_rows", "flink")],
        ),
        ("DELETE FROM crypto_prices_realtime WHERE timestamp > %(settled)s", [("freshness_s", "spark")]),
        (
            "INSERT INTO crypto_prices_flink SELECT symbol, price, \"user\", timestamp, gen_random_uuid(), produced_at,"
            " kafka_partition, kafka_offset FROM crypto_prices_flink WHERE timestamp < %(settled)s LIMIT 1",
            [("duplicates", "flink"), ("missing_rows", "spark")],
        ),
        ("DELETE FROM candles_1m_spark", [("different_candles", "both")]),
        ("TRUNCATE candles_1m_spark, candles_1m_flink", [("different_candles", "both")]),
        (
            "INSERT INTO rejected_messages VALUES ('spark', 0, 7, %(settled)s - 1000, 'not_json', NULL)",
            [("missing_rejects", "flink")],
        ),
    ],
    ids=[
        "deleted row", "stale table", "row of a message twice", "candles of one engine", "no candles",
        "reject of one engine",
    ],
)  # fmt: skip
def test_quality_finds_the_fault(run: Run, flowing: Pipeline, fault: str, found: list[tuple[str, str]]) -> None:
    flowing.sql.execute(fault, {"settled": round((time.time() - 200) * 1000)})
    assert run("data_quality") == {"measure": "success", "judge": "failed"}
    assert failed(flowing) == found


def test_quality_finds_a_gap_until_it_is_filled(run: Run, flowing: Pipeline) -> None:
    flowing.trade(1, 500)
    flowing.trade(3, 400)
    assert run("data_quality")["judge"] == "failed"
    assert failed(flowing) == [("missing_trade_ids", "topic")]
    flowing.trade(2, 0)
    assert run("data_quality")["judge"] == "success"


def test_hour_in_which_nothing_was_sent_is_no_fault(run: Run, pipeline: Pipeline) -> None:
    """The nodes were off: all there is is older than the window, or younger than what is settled."""
    pipeline.send(2 * 3600)
    pipeline.events(2 * 3600, 30, 1)
    assert run("data_quality") == {"measure": "success", "judge": "success"}
    # One event is enough for both engines to owe a row.
    pipeline.send(600)
    assert run("data_quality")["judge"] == "failed"
    assert failed(pipeline) == [("rows", "flink"), ("rows", "spark")]


def test_parameters_of_a_run_count(run: Run, flowing: Pipeline) -> None:
    flowing.sql.execute(
        "DELETE FROM crypto_prices_flink WHERE timestamp > %s", (round((time.time() - 20) * 1000),)
    )  # fmt: skip
    assert run("data_quality")["judge"] == "success"
    assert run("data_quality", freshness_s=10)["judge"] == "failed"


def test_report_is_written(run: Run, flowing: Pipeline, folder: Path) -> None:
    assert flowing.offset
    assert run("comparison_report", hours=1) == {"write": "success"}
    page = (folder / "reports" / "latest.html").read_text()
    assert "Spark" in page
    assert "Flink" in page
    assert page.count("<polyline") == 4


def test_report_of_one_engine_is_red_and_there_all_the_same(run: Run, pipeline: Pipeline, folder: Path) -> None:
    assert run("comparison_report") == {"write": "skipped"}
    pipeline.events(60, tables=("crypto_prices_flink",))
    assert run("comparison_report") == {"write": "failed"}
    assert "Flink" in (folder / "reports" / "latest.html").read_text()


def test_old_rows_go_and_new_ones_stay(run: Run, flowing: Pipeline) -> None:
    flowing.events(*([15 * 86_400] * 5))
    flowing.candle("candles_1m_flink", 15 * 86_400)
    assert run("retention") == {"expire": "success"}
    # Five symbols, of six times each.
    for table, rows in (("crypto_prices_realtime", 30), ("crypto_prices_flink", 30), ("candles_1m_flink", 2)):
        flowing.sql.execute(f"SELECT count(*) FROM {table}")
        assert flowing.sql.fetchone() == (rows,), table


def test_old_trades_that_were_sent_today_stay(run: Run, flowing: Pipeline) -> None:
    flowing.events(15 * 86_400, tables=("crypto_prices_flink",))
    flowing.sql.execute("ALTER TABLE crypto_prices_flink DISABLE TRIGGER keep_first_row")
    flowing.sql.execute(
        "UPDATE crypto_prices_flink SET produced_at = %s WHERE timestamp < %s",
        (time.time_ns() // 1000, round((time.time() - 86_400) * 1000)),
    )
    flowing.sql.execute("ALTER TABLE crypto_prices_flink ENABLE TRIGGER keep_first_row")
    assert run("retention") == {"expire": "success"}
    flowing.sql.execute("SELECT count(*) FROM crypto_prices_flink")
    assert flowing.sql.fetchone() == (35,)


def test_retention_waits_for_nobody_and_says_so(run: Run, flowing: Pipeline, postgres: PostgresServer) -> None:
    flowing.candle("candles_1m_flink", 15 * 86_400)
    with contextlib.closing(psycopg2.connect(postgres.superuser_dsn)) as other:
        other.cursor().execute("LOCK TABLE candles_1m_flink IN SHARE MODE")
        assert run("retention") == {"expire": "failed"}
    assert run("retention") == {"expire": "success"}


def test_writers_do_not_wait_for_retention(flowing: Pipeline, postgres: PostgresServer) -> None:
    """A writer's insert and its reader's lock live beside a batch that is not committed yet."""
    flowing.events(15 * 86_400)
    with contextlib.closing(psycopg2.connect(dags_dsn(postgres))) as batch:
        cursor = batch.cursor()
        cursor.execute("SELECT delete_expired('crypto_prices_flink', 'BTC-USD', '14 days', 10)")
        assert cursor.fetchone() == (1,)
        flowing.sql.execute("SET lock_timeout = '500ms'")
        flowing.events(0)
        # And the other way round: a row that somebody holds is left, not waited for.
        with contextlib.closing(psycopg2.connect(postgres.superuser_dsn)) as reader:
            reader.cursor().execute("SELECT FROM crypto_prices_flink WHERE symbol = 'ETH-USD' FOR UPDATE")
            cursor.execute("SELECT delete_expired('crypto_prices_flink', 'ETH-USD', '14 days', 10)")
            assert cursor.fetchone() == (0,)
    flowing.sql.execute("RESET lock_timeout")


def test_restart_asks_for_the_unit_and_waits_for_rows(run: Run, flowing: Pipeline, ssh_log: Path) -> None:
    ssh_log.unlink(missing_ok=True)
    # Rows of events that come after the restart.
    flowing.events(-30)
    assert run("pipeline_restart", service="spark") == {"restart_service": "success", "wait_for_rows": "success"}
    assert ssh_log.read_text().strip().endswith("lab-restart@submitter-1 restart spark-job")


def test_restart_is_red_without_rows(run: Run, flowing: Pipeline) -> None:
    assert flowing.offset
    assert run("pipeline_restart", service="spark") == {"restart_service": "success", "wait_for_rows": "failed"}


def test_restart_is_red_where_the_node_refuses(run: Run, flowing: Pipeline, ssh_log: Path) -> None:
    assert flowing.offset
    refusal = ssh_log.with_name(f"{ssh_log.name}.fails")
    refusal.touch()
    try:
        states = run("pipeline_restart", service="spark")
    finally:
        refusal.unlink()
    assert states == {"restart_service": "failed", "wait_for_rows": "upstream_failed"}


def dags_dsn(postgres: PostgresServer) -> str:
    return (
        f"host={postgres.host} port={postgres.port} dbname={postgres.database} user=airflow_dags"
        f" password={postgres.passwords['airflow_dags']}"
    )


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("DELETE FROM crypto_prices_flink", "permission denied"),
        ("DELETE FROM data_quality_results", "permission denied"),
        ("TRUNCATE candles_1m_spark", "permission denied"),
        ("INSERT INTO crypto_prices_realtime SELECT * FROM crypto_prices_flink", "permission denied"),
        ("UPDATE data_quality_results SET passed = true", "permission denied"),
        ("SELECT count(*) FROM spark_staging_prices", "permission denied"),
        ("CREATE TABLE mine (x int)", "permission denied"),
        ("SELECT delete_expired('crypto_prices_flink', 'BTC-USD', '23 hours', 10)", "rows of less than a day are kept"),
        ("SELECT delete_expired('crypto_prices_flink', 'BTC-USD', '2 days', 10001)", "a batch is 1 to 10000 rows"),
        ("SELECT delete_expired('spark_staging_prices', '', '2 days', 10)", "nothing is deleted from"),
    ],
)
def test_role_may_do_no_more_than_that(postgres: PostgresServer, statement: str, error: str) -> None:
    with (
        contextlib.closing(psycopg2.connect(dags_dsn(postgres))) as connection,
        pytest.raises(psycopg2.Error, match=error),
    ):
        connection.cursor().execute(statement)


def test_only_airflows_role_may_delete_what_has_expired(postgres: PostgresServer) -> None:
    dsn = dags_dsn(postgres).replace("airflow_dags", "lab_reader").replace(
        postgres.passwords["airflow_dags"], postgres.passwords["lab_reader"]
    )  # fmt: skip
    with (
        contextlib.closing(psycopg2.connect(dsn)) as connection,
        pytest.raises(psycopg2.errors.InsufficientPrivilege, match="delete_expired"),
    ):
        connection.cursor().execute("SELECT delete_expired('rejected_messages', '', '2 days', 1)")
