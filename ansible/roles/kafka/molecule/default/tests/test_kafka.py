"""Kafka does what a broker is for."""

from __future__ import annotations

import uuid

from testinfra.host import Host


def test_a_message_comes_back(host: Host) -> None:
    topic, value = f"molecule-{uuid.uuid4().hex}", uuid.uuid4().hex
    server = "--bootstrap-server localhost:9092"
    assert host.run(f"kafka-topics {server} --create --topic {topic} --partitions 3").rc == 0
    assert host.run(f"echo {value} | kafka-console-producer {server} --topic {topic}").rc == 0
    got = host.run(
        f"kafka-console-consumer {server} --topic {topic} --from-beginning --max-messages 1 --timeout-ms 30000"
    )
    assert got.stdout.strip() == value


def test_service(host: Host) -> None:
    kafka = host.service("kafka")
    assert kafka.is_enabled
    assert kafka.is_running
    assert host.process.get(user="kafka", comm="java")


def test_every_tool_is_on_the_path(host: Host) -> None:
    tools = host.run("ls /usr/local/bin").stdout.split()
    assert "kafka-topics" in tools
    for tool in (name for name in tools if name.startswith("kafka-") and name != "kafka-tool"):
        assert host.file(f"/usr/local/bin/{tool}").linked_to == "/usr/local/bin/kafka-tool"


def test_metrics(host: Host) -> None:
    server, topic = "--bootstrap-server localhost:9092", f"molecule-{uuid.uuid4().hex}"
    assert host.run(f"kafka-topics {server} --create --topic {topic} --partitions 1").rc == 0
    assert host.run(f"echo once | kafka-console-producer {server} --topic {topic}").rc == 0
    shown = host.check_output("curl -sf http://kafka-1:9404/metrics").splitlines()
    assert "kafka_under_replicated_partitions 0.0" in shown
    assert f'kafka_log_end_offset{{partition="0",topic="{topic}"}} 1.0' in shown
    assert not [line for line in shown if "__consumer_offsets" in line]
