"""Every changed setting is the one that the broker runs with."""

from __future__ import annotations

import uuid

from testinfra.host import Host

SERVER = "--bootstrap-server kafka-1:19092"


def test_a_message_comes_back(host: Host) -> None:
    topic, value = f"molecule-{uuid.uuid4().hex}", uuid.uuid4().hex
    assert host.run(f"kafka-topics {SERVER} --create --topic {topic} --partitions 1").rc == 0
    assert host.run(f"echo {value} | kafka-console-producer {SERVER} --topic {topic}").rc == 0
    got = host.run(
        f"kafka-console-consumer {SERVER} --topic {topic} --from-beginning --max-messages 1 --timeout-ms 30000"
    )
    assert got.stdout.strip() == value


def test_user_heap_and_data(host: Host) -> None:
    process = host.process.get(user="broker", comm="java")
    assert "-Xmx384m" in process.args
    with host.sudo():
        assert host.file("/srv/broker/data/meta.properties").exists
    assert not host.file("/var/lib/kafka").exists


def test_broker_setting(host: Host) -> None:
    shown = host.check_output(f"kafka-configs {SERVER} --describe --entity-type brokers --entity-name 1 --all")
    assert "log.retention.hours=1 " in shown


def test_unit_has_no_sandbox(host: Host) -> None:
    assert host.check_output("systemctl show kafka -p ProtectSystem --value") == "no"


def test_metrics_are_left_out(host: Host) -> None:
    assert not host.socket("tcp://0.0.0.0:9404").is_listening
    assert not host.process.filter(user="broker", comm="java")[0].args.count("javaagent")
    with host.sudo():
        assert not host.file("/etc/broker/jmx-exporter.yaml").exists
