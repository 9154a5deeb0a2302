"""Kafka's web pages in the running lab: they show the topic, its messages, and Flink's group, and change nothing."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from live_lab import Lab

PORT = 8000


def node(lab: Lab) -> str:
    """Return the node that has the pages; skips in a lab without monitoring."""
    return lab.monitoring_node("kafka-ui")


def get(lab: Lab, path: str) -> dict[str, Any]:
    """Return what the pages say, asked for from another node."""
    text = lab.one("postgres").check_output(f"curl -sf --max-time 60 'http://{node(lab)}:{PORT}/api{path}'")
    return dict(json.loads(text))


def ends(lab: Lab) -> dict[int, int]:
    """Return the ends of the topic's partitions, by Kafka's own tool."""
    topic = lab.contract["contract_topic"]
    lines = lab.one("kafka").check_output(f"kafka-get-offsets --bootstrap-server localhost:9092 --topic {topic}")
    return {int(line.split(":")[1]): int(line.split(":")[2]) for line in lines.splitlines()}


def test_unit_runs_at_boot_under_its_user(lab: Lab) -> None:
    host = lab.host(node(lab))
    assert host.service("kafka-ui").is_enabled
    assert host.service("kafka-ui").is_running, lab.journal(node(lab), "kafka-ui", 40)
    pid = host.check_output("systemctl show kafka-ui -p MainPID --value")
    assert host.check_output(f"ps -o user:32= -p {pid}").strip() == "kafka-ui"


def test_pages_come_without_anything_from_elsewhere(lab: Lab) -> None:
    host, topic = lab.one("postgres"), lab.contract["contract_topic"]
    for path in ("/", f"/topics/{topic}"):
        page = host.check_output(f"curl -sf --max-time 60 http://{node(lab)}:{PORT}{path}")
        assert topic in page
        assert "http://" not in page
        assert "https://" not in page
        assert "<script" not in page
    assert len(host.check_output(f"curl -sf http://{node(lab)}:{PORT}/kafka_ui.css")) > 1_000


def test_topic_is_kafkas(lab: Lab) -> None:
    before = ends(lab)
    # An answer stands for two seconds.
    time.sleep(2.5)
    cluster = get(lab, "/cluster")["cluster"]
    topic = next(found for found in cluster["topics"] if found["name"] == lab.contract["contract_topic"])
    after = ends(lab)
    shown = {part["number"]: part["end"] for part in topic["partitions"]}
    assert shown.keys() == before.keys() == set(range(lab.contract["contract_partitions"]))
    # The producer goes on.
    assert all(before[number] <= shown[number] <= after[number] for number in shown), (before, shown, after)
    assert topic["state"] == "ok"
    assert len(cluster["brokers"]) == len(lab.group("kafka"))


def test_messages_are_the_producers(lab: Lab) -> None:
    messages = get(lab, f"/topics/{lab.contract['contract_topic']}?count=20")["messages"]
    assert len(messages) == 20
    times = [message["time_ms"] for message in messages]
    assert times == sorted(times, reverse=True)
    for message in messages:
        event = json.loads(message["value"]["text"])
        assert event["symbol"] == message["key"]["text"]
        assert event["symbol"] in lab.contract["contract_symbols"]


def test_group_of_flink_and_its_lag(lab: Lab) -> None:
    """Flink commits with its checkpoints, every 15 s; Spark commits nothing to Kafka."""

    def committed() -> dict[str, Any]:
        groups = get(lab, "/cluster")["cluster"]["groups"]
        flink = [
            group for group in groups if "flink" in group["name"] and lab.contract["contract_topic"] in group["topics"]
        ]
        assert flink, groups
        assert flink[0]["lag"] is not None
        return dict(flink[0])

    group = lab.wait_for(committed, "Flink's group, by Kafka's pages", 120)
    said = lab.one("kafka").check_output(
        f"kafka-consumer-groups --bootstrap-server localhost:9092 --describe --offsets --group {group['name']}"
    )
    for part in group["partitions"]:
        assert f"{part['topic']} {part['number']} " in " ".join(said.split()), said


def test_nothing_can_be_written(lab: Lab) -> None:
    topic, host = lab.contract["contract_topic"], lab.one("postgres")
    for method in ("POST", "PUT", "DELETE"):
        for path in ("/", f"/topics/{topic}", f"/api/topics/{topic}"):
            code = host.check_output(
                f"curl -s -o /dev/null -w '%{{http_code}}' -X {method} http://{node(lab)}:{PORT}{path}"
            )
            assert code == "405", f"{method} {path}"
    # By what is installed there: the broker would do it, the pages' own guard does not send it.
    script = (
        "import sys, crypto_kafka_ui.guard; from kafka import KafkaAdminClient; from kafka.admin import NewTopic; "
        "KafkaAdminClient(bootstrap_servers=sys.argv[1]).create_topics([NewTopic('made-by-a-test', 1, 1)])"
    )
    broker = f"{lab.group('kafka')[0]}:9092"
    refused = lab.host(node(lab)).run(
        f'sudo -u kafka-ui env PYTHONPATH=/opt/kafka-ui/current/python python3 -c "{script}" {broker}'
    )
    assert refused.rc != 0
    assert "CreateTopicsRequest was not sent" in refused.stderr
    topics = lab.one("kafka").check_output("kafka-topics --bootstrap-server localhost:9092 --list").splitlines()
    assert "made-by-a-test" not in topics


def test_memory_is_little(lab: Lab) -> None:
    host = lab.host(node(lab))
    pid = host.check_output("systemctl show kafka-ui -p MainPID --value")
    assert int(host.check_output(f"sudo awk '/VmHWM/ {{print $2}}' /proc/{pid}/status")) < 110 * 1024


@pytest.mark.disruptive
def test_kafka_that_goes_is_said(lab: Lab) -> None:
    if len(lab.group("kafka")) > 1:
        pytest.skip("the other brokers go on")
    lab.one("kafka").check_output("sudo systemctl stop kafka")
    url = f"http://{node(lab)}:{PORT}"
    try:

        def gone() -> bool:
            said = lab.one("postgres").check_output(f"curl -s --max-time 60 -w '%{{http_code}}' {url}/api/cluster")
            assert said.endswith("503"), said
            return "Kafka does not answer" in said

        lab.wait_for(gone, "the pages to say that Kafka is away", 60)
    finally:
        lab.one("kafka").check_output("sudo systemctl start kafka")
    lab.wait_for(lambda: get(lab, "/cluster")["cluster"]["brokers"], "the pages to find Kafka again", 90)
