"""The cases of docs/troubleshooting.md, for real: the symptom that it names, the cure that it names, and all is well.

What another test provokes already is not provoked again here; that test then looks for the words that the document quotes.

case                    cause                                   provoked by
Producer sends nothing  its unit was stopped                    test_producer_that_was_stopped
                        its configuration is wrong              test_what_was_changed_by_hand
                        it was killed                           test_lab_recovery::test_killed_service_comes_back
                        Kafka is away                           test_lab_monitoring::test_producer_without_kafka
                        the source does not answer              test_lab_monitoring::test_producer_without_a_source
Spark writes nothing    no worker                               test_lab_monitoring::test_engine_that_stands_still
                        the driver was killed                   test_lab_recovery::test_killed_service_comes_back
                        the database is away                    test_lab_monitoring::test_database_that_takes_no_logins
                        the checkpoint is of another topic      test_topic_that_was_made_by_hand
Flink job failed        it ended, and nobody submits it         test_flink_job_that_ended_without_its_supervisor
                        its cluster was killed                  test_lab_recovery::test_killed_flink_job_comes_back_from_its_checkpoint
                        no task manager                         test_lab_monitoring::test_alerts_come_and_go
                        all of it restarts                      test_lab_rolling::test_cluster_restarts_one_node_at_a_time
                        the checkpoint is of another topic      test_topic_that_was_made_by_hand
Database errors         PostgreSQL is down                      test_lab_monitoring::test_database_that_takes_no_logins
                        a password was changed                  test_what_was_changed_by_hand
Topic problems          Kafka is down                           test_lab_monitoring::test_producer_without_kafka
                        a broker is down                        test_lab_monitoring::test_partitions_that_lack_a_copy
                        the topic was deleted                   test_topic_that_was_made_by_hand
Recreate the topic      it was deleted, and created by hand     test_topic_that_was_made_by_hand

Two jobs of one name (exit code 4) and a checkpoint that cannot be read are provoked in tests/integration/flink.
"""  # noqa: E501 - a table

from __future__ import annotations

import re
import subprocess

import pytest
from live_lab import Lab

pytestmark = pytest.mark.disruptive


def state(lab: Lab, node: str, unit: str) -> tuple[str, int]:
    """Return a unit's state, and the exit code of the process that it had last."""
    shown = lab.host(node).check_output(f"systemctl show {unit} -p ActiveState -p ExecMainStatus")
    settings = dict(line.split("=", 1) for line in shown.splitlines())
    return settings["ActiveState"], int(settings["ExecMainStatus"])


def bad(lab: Lab) -> str:
    """Return what `make status` shows of a lab in which something is wrong."""
    done = lab.make("status")
    assert done.returncode != 0, done.stdout
    return done.stdout


def assert_cured(lab: Lab, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    lab.wait_until_rows_flow()
    lab.assert_all_accounted_for(300)


def test_producer_that_was_stopped(lab: Lab) -> None:
    node = lab.group("producer")[0]
    try:
        lab.host(node).check_output("sudo systemctl stop producer")
        assert re.search(rf"BAD +{node} .*\bproducer inactive", bad(lab))
    finally:
        done = lab.playbook("restart", service="producer")
    assert_cured(lab, done)


def test_flink_job_that_ended_without_its_supervisor(lab: Lab) -> None:
    """A job that ends is submitted again by itself; without its supervisor it stays away until that is started."""
    node = lab.group("submitter")[0]
    (job,) = [job for job, found in lab.flink_jobs() if found == "RUNNING"]
    since_s = lab.now_s(node)
    try:
        lab.host(node).check_output("sudo systemctl stop flink-job")
        # The supervisor's own way; Flink's page has no button for it.
        lab.one("flink_jobmanager").check_output(
            "curl -sf -X PATCH -H 'Content-Type: application/json' -d '{}'"
            f" 'http://localhost:8081/jobs/{job}?mode=cancel'"
        )
        lab.wait_for(lambda: (job, "CANCELED") in lab.flink_jobs(), "the end of the Flink job")
        status = bad(lab)
        assert re.search(rf"BAD +{node} .*\bflink-job inactive", status)
        assert re.search(r"BAD +Flink job +crypto-prices-flink no job", status)
    finally:
        done = lab.playbook("restart", service="flink_job")
    assert_cured(lab, done)
    # Not from the topic's beginning.
    assert f"because job {job} is CANCELED; from file:" in lab.said(node, "flink-job", since_s)
    assert lab.flink_jobs_left() == ["RUNNING"]


@pytest.mark.extended
def test_what_was_changed_by_hand(lab: Lab) -> None:
    """A password in the database, a line in a file: `make lab` puts both right."""
    producer, submitter = lab.group("producer")[0], lab.group("submitter")[0]
    since_s = {node: lab.now_s(node) for node in (producer, submitter)}
    try:
        # While there are prices: without any, Spark has nothing to write, and does not notice.
        lab.sql("ALTER ROLE spark_writer PASSWORD 'changed by hand'")
        lab.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'spark_writer'")
        refused = 'password authentication failed for user "spark_writer"'
        lab.wait_until_said(submitter, "spark-job", refused, since_s[submitter], 240)
        assert state(lab, submitter, "flink-job")[0] == "active"

        lab.host(producer).check_output("sudo sed -i '1i [[[' /etc/producer/config.toml")
        assert lab.host(producer).run("sudo systemctl restart producer").rc != 0
        lab.wait_for(lambda: state(lab, producer, "producer") == ("failed", 2), "exit code 2 of the producer")
        said = lab.said(producer, "producer", since_s[producer])
        assert "/etc/producer/config.toml: is not valid TOML" in said
        assert re.search(rf"BAD +{producer} .*\bproducer failed", bad(lab))
    finally:
        done = lab.make("lab")
    assert_cured(lab, done)


@pytest.mark.extended
def test_topic_that_was_made_by_hand(lab: Lab) -> None:
    """The original README's commands, under running jobs: neither engine goes on at offsets of another topic."""
    kafka, submitter = lab.one("kafka"), lab.group("submitter")[0]
    tool, topic = "kafka-topics --bootstrap-server localhost:9092", lab.contract["contract_topic"]
    since_s = lab.now_s(submitter)
    try:
        kafka.check_output(f"{tool} --delete --topic {topic}")
        lab.wait_for(lambda: topic not in kafka.check_output(f"{tool} --list").splitlines(), "the topic's end", 60)
        kafka.check_output(f"{tool} --create --topic {topic} --partitions 3 --replication-factor 1")
        for unit in ("spark-job", "flink-job"):
            lab.wait_for(
                lambda unit=unit: state(lab, submitter, unit) == ("failed", 3),  # type: ignore[misc]
                f"exit code 3 of {unit}", 300,
            )  # fmt: skip
        assert "the topic was recreated" in lab.said(submitter, "spark-job", since_s)
        assert "could not resume from" in lab.said(submitter, "flink-job", since_s)
        assert re.search(rf"BAD +{submitter} .*\bspark-job failed, flink-job failed", bad(lab))
    finally:
        done = lab.make("reset", SERVICE="kafka", CONFIRM=lab.context.lab)
    assert_cured(lab, done)
    described = kafka.check_output(f"{tool} --describe --topic {topic}")
    assert f"ReplicationFactor: {min(3, len(lab.group('kafka')))}" in described
