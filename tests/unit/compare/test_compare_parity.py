"""Equal terms: each difference is one violation, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
from compare.parity import EngineFacts, changed, normal_statement, violations

SPARK_SQL = (
    "INSERT INTO crypto_prices_realtime (a, b) SELECT a, b FROM s WHERE k = $1 ORDER BY a ON CONFLICT DO NOTHING"
)
FLINK_SQL = 'INSERT INTO "crypto_prices_flink" ("a", "b") VALUES ($1, $2) ON CONFLICT (event_id) DO NOTHING'


def facts(engine: str, **more: Any) -> EngineFacts:  # noqa: ANN401
    return EngineFacts(**{
        "engine": engine, "version": "1", "topic": "prices", "partitions": 3, "starting_offsets": "earliest",
        "parallelism": 3, "worker_cpus": 2, "worker_memory_mib": 2000, "task_memory_mib": 1400,
        "guarantee": "at_least_once", "checkpoint_interval_ms": 15000,
        "sink_statement": SPARK_SQL if engine == "spark" else FLINK_SQL,
        "durability": {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}, **more,
    })  # fmt: skip


def test_equal_terms_have_no_violation() -> None:
    # 1408 MiB are an executor's heap and overhead, 1344 a task manager's process.
    assert violations(facts("spark", task_memory_mib=1408), facts("flink", task_memory_mib=1344)) == []


@pytest.mark.parametrize(
    ("changes", "begins"),
    [
        ({"topic": "other"}, "topic:"),
        ({"partitions": 4}, "partitions:"),
        ({"starting_offsets": "latest"}, "starting_offsets:"),
        ({"parallelism": 6}, "parallelism:"),
        ({"worker_cpus": 4}, "worker_cpus:"),
        ({"task_memory_mib": 1800}, "task_memory_mib:"),
        ({"worker_memory_mib": 1000}, "worker_memory_mib:"),
        ({"guarantee": "exactly_once"}, "guarantee:"),
        ({"checkpoint_interval_ms": 60000}, "checkpoint_interval_ms:"),
        ({"sink_statement": FLINK_SQL.replace("NOTHING", "UPDATE SET a = 1")}, "sink_statement:"),
        (
            {"durability": {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "off"}},
            "synchronous_commit: flink writes with off",
        ),
    ],
)
def test_exactly_this_violation_results(changes: dict[str, Any], begins: str) -> None:
    found = violations(facts("spark"), facts("flink", **changes))
    assert len(found) == 1
    assert found[0].startswith(begins)


def test_all_violations_are_said_at_once() -> None:
    assert len(violations(facts("spark"), facts("flink", parallelism=1, worker_cpus=1, partitions=1))) == 3


def test_an_engine_that_has_not_written_yet_is_not_judged_by_its_statement() -> None:
    assert violations(facts("spark", sink_statement=""), facts("flink")) == []


def test_statements_are_compared_by_what_they_do() -> None:
    assert normal_statement(SPARK_SQL) == normal_statement(FLINK_SQL) == "insert, on conflict do nothing"
    assert normal_statement("INSERT INTO t VALUES (1)") == "insert, conflicts fail"
    assert normal_statement("COPY t FROM STDIN") == "copy t from stdin"


def test_more_memory_than_at_the_beginning_is_noticed() -> None:
    before, now = facts("spark"), facts("spark", task_memory_mib=4096, parallelism=1)
    assert changed(before, now, {"parallelism"}) == ["spark: task_memory_mib was 1400 and is 4096"]
    assert len(changed(before, now, set())) == 2
