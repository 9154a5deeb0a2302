"""Parts of the pipeline begin anew while the others go on; afterwards everything is accounted for again."""

from __future__ import annotations

import pytest
from live_lab import Lab, restarted

pytestmark = pytest.mark.disruptive


def topic_id(lab: Lab) -> str:
    described = lab.one("kafka").check_output(
        f"kafka-topics --bootstrap-server localhost:9092 --describe --topic {lab.contract['contract_topic']}"
    )
    return str(described.split("TopicId: ")[1].split()[0])


def oldest(lab: Lab, table: str) -> list[list[str]]:
    """Return the first event of the table, and the time at which its row was committed."""
    return lab.sql(
        f"SELECT event_id, pg_xact_commit_timestamp(xmin) FROM {table} ORDER BY produced_at, event_id LIMIT 1"
    )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "known are spark, flink, kafka, all"),
        ({"service": "postgres"}, "service=postgres: known are spark, flink, kafka, all"),
        ({"service": "all"}, "deletes, in the lab"),
        ({"service": "all", "confirm": "another"}, "-e confirm="),
    ],
    ids=["nothing", "unknown", "unconfirmed", "wrong-lab"],
)
def test_refused_reset_changes_nothing(lab: Lab, variables: dict[str, str], message: str) -> None:
    services = lab.started()
    done = lab.playbook("reset", **variables)
    assert done.returncode != 0
    assert message in " ".join(done.stdout.split())
    assert restarted(services, lab.started()) == set()


def test_flink_fills_its_tables_again_while_the_others_go_on(lab: Lab) -> None:
    spark, flink = (lab.contract["contract_tables"][engine]["prices"] for engine in ("spark", "flink"))
    services, topic = lab.started(), topic_id(lab)
    rows = {table: oldest(lab, table) for table in (spark, flink)}
    sent = lab.ledger()["acknowledged"]

    done = lab.playbook("reset", service="flink", confirm=lab.context.lab)
    assert done.returncode == 0, done.stdout[-4000:]
    lab.assert_all_accounted_for()

    assert {unit for _, unit in restarted(services, lab.started())} == {"flink-job"}
    assert topic_id(lab) == topic
    assert lab.ledger()["acknowledged"] > sent
    assert oldest(lab, spark) == rows[spark]
    # The same event, written anew.
    (before,), (after,) = rows[flink], oldest(lab, flink)
    assert after[0] == before[0]
    assert after[1] > before[1]


def test_clean_slate(lab: Lab) -> None:
    topic = topic_id(lab)
    now_us = int(lab.sql("SELECT (extract(epoch FROM now()) * 1e6)::bigint")[0][0])

    done = lab.playbook("reset", service="all", confirm=lab.context.lab)
    assert done.returncode == 0, done.stdout[-4000:]
    report = lab.assert_all_accounted_for()

    assert topic_id(lab) != topic
    assert report["topic"]["events"] > 0
    for table in (lab.contract["contract_tables"][engine]["prices"] for engine in ("spark", "flink")):
        assert int(lab.sql(f"SELECT min(produced_at) FROM {table}")[0][0]) > now_us
    assert lab.sql(f"SELECT count(*) FROM {lab.contract['contract_tables']['rejected']}") == [["0"]]
