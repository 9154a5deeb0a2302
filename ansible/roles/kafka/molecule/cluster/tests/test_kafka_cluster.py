"""Three brokers are one cluster, and it loses nothing with one of them."""

from __future__ import annotations

import time
import uuid

from testinfra.host import Host

NODES = ("kafka-1", "kafka-2", "kafka-3")
SERVERS = ",".join(f"{node}:9092" for node in NODES)


def test_one_cluster_of_three(host: Host) -> None:
    quorum = host.check_output(f"kafka-metadata-quorum --bootstrap-server {SERVERS} describe --replication")
    roles = sorted(line.split()[-1] for line in quorum.splitlines()[1:] if line.strip())
    assert roles == ["Follower", "Follower", "Leader"]
    with host.sudo():
        assert "cluster.id=bW9sZWN1bGUta2Fma2EtMw" in host.file("/var/lib/kafka/data/meta.properties").content_string


def test_a_message_outlives_a_broker(host: Host) -> None:
    topic, value = f"molecule-{uuid.uuid4().hex}", uuid.uuid4().hex
    others = ",".join(
        f"{node}:9092" for node in NODES if node != host.check_output("hostname").removeprefix("kafka-clus-")
    )
    assert host.run(f"kafka-topics --bootstrap-server {SERVERS} --create --topic {topic} --partitions 3").rc == 0
    described = host.check_output(f"kafka-topics --bootstrap-server {SERVERS} --describe --topic {topic}")
    assert "ReplicationFactor: 3" in described
    sent = host.run(
        f"echo {value} | kafka-console-producer --bootstrap-server {SERVERS} --topic {topic} "
        "--producer-property acks=all"
    )
    assert sent.rc == 0, sent.stderr
    with host.sudo():
        host.run_expect([0], "systemctl stop kafka")
    try:
        got = host.run(
            f"kafka-console-consumer --bootstrap-server {others} --topic {topic} --from-beginning --max-messages 1 "
            "--timeout-ms 60000"
        )
    finally:
        with host.sudo():
            host.run_expect([0], "systemctl start kafka")
    assert got.stdout.strip() == value, got.stderr
    wait_for_copies(host)


def wait_for_copies(host: Host, timeout_s: float = 90) -> None:
    """Wait until every partition has all its copies again, so that the next test may stop a broker."""
    deadline = time.monotonic() + timeout_s
    command = f"kafka-topics --bootstrap-server {SERVERS} --describe --under-replicated-partitions"
    while (done := host.run(command)).rc != 0 or done.stdout.strip():
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(2)
