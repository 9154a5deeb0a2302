"""Restarts, retention and settings, without a node and without a database."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import psycopg2.errors
import pytest
from crypto_airflow import restart, retention, settings

ENGINES = {
    "spark": {"prices": "crypto_prices_realtime", "candles": "candles_1m_spark"},
    "flink": {"prices": "crypto_prices_flink", "candles": "candles_1m_flink"},
}
FLINK = [{"node": "flink-1", "unit": "flink-jobmanager"}, {"node": "flink-2", "unit": "flink-taskmanager"}]
SETTINGS = settings.Settings.model_validate({
    "bootstrap_servers": ["kafka-1:9092"], "symbols": ["BTC-USD", "ETH-USD"], "engines": ENGINES,
    "retention": {"batch_rows": 10, "max_rows": 1000, "pause_s": 0.5},
    "restart": {"services": {"flink": FLINK}},
})  # fmt: skip


class Node:
    """Answers like ssh."""

    def __init__(self, *codes: int) -> None:
        self.codes = iter(codes)
        self.commands: list[list[str]] = []

    def run(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
        self.commands.append(command)
        return subprocess.CompletedProcess(command, next(self.codes), "", "Job for the unit failed.\n")


def test_units_are_restarted_in_their_order() -> None:
    node = Node(0, 0)
    said: list[str] = []
    restart.restart_service("flink", SETTINGS.restart, run=node.run, say=said.append)
    assert [command[-2:] for command in node.commands] == [
        ["lab-restart@flink-1", "restart flink-jobmanager"], ["lab-restart@flink-2", "restart flink-taskmanager"],
    ]  # fmt: skip
    assert [line.split(" restarted")[0] for line in said] == [
        "flink-jobmanager on flink-1", "flink-taskmanager on flink-2",
    ]  # fmt: skip


def test_ssh_trusts_no_unknown_host_and_asks_nobody() -> None:
    command = restart.command(SETTINGS.restart.services["flink"][0], SETTINGS.restart)
    for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"):
        assert command[command.index(option) - 1] == "-o"


def test_unit_that_does_not_come_back_is_named_and_stops_the_restart() -> None:
    node = Node(1, 0)
    with pytest.raises(restart.RestartError, match="flink-jobmanager on flink-1: exit code 1: Job for the unit failed"):
        restart.restart_service("flink", SETTINGS.restart, run=node.run)
    assert len(node.commands) == 1


def test_node_that_does_not_answer() -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
        raise subprocess.TimeoutExpired(command, options["timeout"])

    with pytest.raises(restart.RestartError, match="no answer within 330 s"):
        restart.restart_service("flink", SETTINGS.restart, run=run)


def test_unknown_service() -> None:
    with pytest.raises(restart.RestartError, match="no service 'kafka' here: flink"):
        restart.restart_service("kafka", SETTINGS.restart)


def test_engines_without_a_later_event_lag() -> None:
    assert restart.lagging({"spark": 11, "flink": 10}, 10) == ["flink"]
    assert restart.lagging({"spark": None, "flink": 11}, 10) == ["spark"]


class Database:
    """Answers delete_expired from a number of old rows for each (table, symbol)."""

    def __init__(self, old: dict[tuple[str, str], int], locked: Sequence[str] = ()) -> None:
        self.old, self.locked = old, locked
        self.calls: list[tuple[Any, ...]] = []
        self.autocommit = False
        self.refusal: type[Exception] = psycopg2.errors.LockNotAvailable
        self.answer = 0

    def cursor(self) -> Database:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        if not statement.startswith("SELECT"):
            return
        assert self.autocommit, "a batch is a transaction of its own"
        table, symbol, seconds, batch = values
        self.calls.append(values)
        if table in self.locked:
            raise self.refusal
        assert seconds == 14 * 86_400
        self.answer = min(self.old.get((table, symbol), 0), batch)
        self.old[table, symbol] = self.old.get((table, symbol), 0) - self.answer

    def fetchone(self) -> tuple[int]:
        return (self.answer,)


def test_rows_go_in_batches_with_a_pause_between() -> None:
    pauses: list[float] = []
    database = Database({("crypto_prices_flink", "ETH-USD"): 25, ("rejected_messages", ""): 3})
    outcome = retention.expire(database, SETTINGS, 14, sleep=pauses.append)
    assert outcome.left == []
    assert outcome.deleted == {
        "crypto_prices_realtime": 0, "candles_1m_spark": 0, "crypto_prices_flink": 25, "candles_1m_flink": 0,
        "rejected_messages": 3, "data_quality_results": 0,
    }  # fmt: skip
    assert pauses == [0.5, 0.5]
    assert max(call[3] for call in database.calls) == 10


def test_run_is_bounded_and_says_what_it_leaves() -> None:
    small = SETTINGS.model_copy(update={"retention": settings.Retention(batch_rows=10, max_rows=15)})
    database = Database({("crypto_prices_realtime", "BTC-USD"): 40})
    outcome = retention.expire(database, small, 14, sleep=lambda _: None)
    assert outcome.deleted["crypto_prices_realtime"] == 15
    assert outcome.left == ["crypto_prices_realtime: the run's 15 rows are used up"]


def test_locked_table_is_left_and_the_others_go_on() -> None:
    database = Database({("rejected_messages", ""): 3}, locked=["candles_1m_spark"])
    outcome = retention.expire(database, SETTINGS, 14, sleep=lambda _: None)
    assert outcome.left == ["candles_1m_spark: locked by somebody else"] * 2
    assert outcome.deleted["rejected_messages"] == 3


def test_slow_table_is_left_and_the_others_go_on() -> None:
    database = Database({("data_quality_results", ""): 3}, locked=["rejected_messages"])
    database.refusal = psycopg2.errors.QueryCanceled
    outcome = retention.expire(database, SETTINGS, 14, sleep=lambda _: None)
    assert outcome.left == ["rejected_messages: a batch took longer than 60 s"]
    assert outcome.deleted["data_quality_results"] == 3


def test_settings_are_read_from_the_file_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pipeline.toml"
    monkeypatch.setenv(settings.VARIABLE, str(path))
    path.write_text(
        'bootstrap_servers = ["kafka-1:9092"]\nsymbols = ["BTC-USD"]\n'
        '[engines.spark]\nprices = "a"\ncandles = "b"\n[engines.flink]\nprices = "c"\ncandles = "d"\n'
    )
    assert settings.load().engines["flink"].prices == "c"
    path.write_text(path.read_text() + "[quality]\nfreshnes_s = 1\n")
    with pytest.raises(ValueError, match="freshnes_s"):
        settings.load()
