"""Prometheus sees every service, the rules' metrics exist, and alerts come when something is wrong, and go again."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from live_lab import REPOSITORY, Lab, LabError

sys.path.append(str(Path(__file__).resolve().parents[1] / "fixtures"))
from alert_rules import longest_for_s, rules, selectors

SELECTORS = sorted({selector for rule in rules() for selector in selectors(rule["expr"])})
LAB_VARIABLES = REPOSITORY / "ansible" / "playbooks" / "group_vars" / "all" / "lab.yml"
# Three rounds of Prometheus: the old answer, the new one, and the rules.
ROUNDS_S = 60
BROKERS_FOR_COPIES = 3


@pytest.fixture(autouse=True)
def _monitored(lab: Lab) -> None:
    nodes = lab.inventory.get("monitoring", {}).get("hosts", [])
    if not nodes or not lab.host(nodes[0]).service("prometheus").is_running:
        pytest.skip("this lab is not monitored: MONITORING=off, or no node in the group monitoring")


def ask(lab: Lab, path: str, **parameters: str) -> Any:  # noqa: ANN401 - JSON
    """Ask Prometheus's HTTP API on its own node; returns the answer's `data`."""
    options = "".join(f" --data-urlencode {shlex.quote(f'{key}={value}')}" for key, value in parameters.items())
    port = lab.contract["contract_ports"]["prometheus"]
    text = lab.one("monitoring").check_output(f"curl -sfG http://localhost:{port}/api/v1/{path}{options}")
    answer = json.loads(text)
    assert answer["status"] == "success", answer
    return answer["data"]


def query(lab: Lab, expression: str) -> list[tuple[dict[str, str], float]]:
    """Return labels and value of each series that an expression gives now."""
    return [(found["metric"], float(found["value"][1])) for found in ask(lab, "query", query=expression)["result"]]


def raised(lab: Lab, name: str, **labels: str) -> list[dict[str, Any]]:
    """Return the alerts of a name, pending or firing, that carry these labels."""
    return [
        alert for alert in ask(lab, "alerts")["alerts"]
        if alert["labels"]["alertname"] == name and labels.items() <= alert["labels"].items()
    ]  # fmt: skip


def wait_until_fires(lab: Lab, name: str, timeout_s: float, **labels: str) -> None:
    """Wait for an alert, at most so long for its cause to show, and then until it has lasted."""

    def fires() -> bool:
        return any(alert["state"] == "firing" for alert in raised(lab, name, **labels))

    lab.wait_for(lambda: raised(lab, name, **labels), f"the alert {name} {labels or ''}", timeout_s)
    lab.wait_for(fires, f"the alert {name} {labels or ''} to fire", longest_for_s() + ROUNDS_S)


def wait_until_withdrawn(lab: Lab, name: str, timeout_s: float, **labels: str) -> None:
    lab.wait_for(lambda: not raised(lab, name, **labels), f"the end of the alert {name} {labels or ''}", timeout_s)


# A lab that is well


def test_every_target_is_up(lab: Lab) -> None:
    wanted = {target["job"] for target in yaml.safe_load(LAB_VARIABLES.read_text())["prometheus_targets"]}

    def up() -> bool:
        targets = ask(lab, "targets", state="active")["activeTargets"]
        assert {target["labels"]["job"] for target in targets} == wanted
        down = {target["scrapeUrl"]: target["lastError"] for target in targets if target["health"] != "up"}
        assert down == {}
        return {target["labels"]["node"] for target in targets if target["labels"]["job"] == "node"} == set(lab.nodes)

    lab.wait_for(up, "every target to be up", 120)


def test_rules_are_evaluated(lab: Lab) -> None:
    found = [rule for group in ask(lab, "rules")["groups"] for rule in group["rules"]]
    assert len(found) == len(rules())
    assert [(rule["name"], rule["lastError"]) for rule in found if rule["health"] == "err"] == []


@pytest.mark.parametrize("selector", SELECTORS)
def test_what_a_rule_asks_for_is_there(lab: Lab, selector: str) -> None:
    """A rule about series that do not exist is silent for ever."""
    lab.wait_for(lambda: query(lab, f"count({selector})"), f"series of {selector}", 90)


def test_lag_is_known_of_both_engines(lab: Lab) -> None:
    def both() -> bool:
        lags = {labels["engine"]: value for labels, value in query(lab, "engine:lag_records:sum")}
        return lags.keys() == {"spark", "flink"} and max(lags.values()) < 1000

    lab.wait_for(both, "a small lag of both engines", 120)


def test_rows_are_counted_as_the_database_counts_them(lab: Lab) -> None:
    ages = {
        labels["engine"]: value for labels, value in query(lab, "time() - crypto_engine_newest_event_timestamp_seconds")
    }
    assert ages.keys() == {"spark", "flink"}
    for engine, tables in lab.contract["contract_tables"].items():
        if engine in ages:
            name = f'crypto_table_rows_inserted{{engine="{engine}",table="{tables["prices"]}"}}'
            ((_, counted),) = query(lab, name)
            assert counted > 0


def test_a_healthy_lab_has_no_critical_alert(lab: Lab) -> None:
    def quiet() -> bool:
        alerts = [alert["labels"] for alert in ask(lab, "alerts")["alerts"]]
        # Of the machine on which the tests run, not of the lab.
        critical = [one for one in alerts if one["severity"] == "critical" and one["alertname"] != "DiskNearlyFull"]
        assert critical == []
        return True

    lab.wait_for(quiet, "no critical alert", 240)


def test_services_run_at_boot_and_not_as_root(lab: Lab) -> None:
    places = [("prometheus-node-exporter", node) for node in lab.nodes]
    places += [("prometheus-postgres-exporter", node) for node in lab.group("postgres")]
    places += [("prometheus", node) for node in lab.group("monitoring")]
    for unit, node in places:
        host = lab.host(node)
        assert host.service(unit).is_enabled, f"{unit} on {node}"
        assert host.service(unit).is_running, lab.journal(node, unit, 40)
        pid = host.check_output(f"systemctl show {unit} -p MainPID --value")
        assert host.check_output(f"ps -o user:32= -p {pid}").strip() == "prometheus"


def test_role_of_the_exporter_reads_no_row(lab: Lab) -> None:
    for table in ("crypto_prices_flink", "crypto_prices_realtime", "rejected_messages"):
        with pytest.raises(LabError, match="permission denied"):
            lab.sql(f"SET ROLE lab_monitor; SELECT * FROM {table} LIMIT 1")
    host = lab.one("postgres")
    path = "/etc/prometheus-postgres-exporter/postgres-password"
    assert host.check_output(f"sudo stat -c '%a %U' {path}") == "640 root"
    password = (lab.context.lab_dir / "secrets" / "postgres-lab_monitor").read_text().strip()
    assert password not in host.check_output("ps -eo args")
    assert password not in host.check_output("sudo journalctl -u prometheus-postgres-exporter --no-pager -o cat")


def test_monitoring_is_light(lab: Lab) -> None:
    """What it takes on the nodes: memory of Prometheus and the exporters, and how much there is to keep."""
    assert int(lab.one("monitoring").check_output("ps -o rss= -C prometheus")) < 220 * 1024
    for node in lab.nodes:
        assert int(lab.host(node).check_output("ps -o rss= -C prometheus-node")) < 60 * 1024
    ((_, series),) = query(lab, "prometheus_tsdb_head_series")
    assert series < 30_000


def test_memory_is_the_nodes(lab: Lab) -> None:
    topology = yaml.safe_load((lab.context.lab_dir / "topology.yaml").read_text())["nodes"]
    for labels, total in query(lab, "node_memory_MemTotal_bytes / 2 ^ 20"):
        assert total == pytest.approx(topology[labels["node"]]["memory_mib"], rel=0.1), labels["node"]


# Alerts that are provoked


@contextmanager
def stopped(lab: Lab, *places: tuple[str, str]) -> Iterator[None]:
    """Stop services, given as (node, unit), and start them again whatever happens."""
    try:
        for node, unit in places:
            lab.host(node).check_output(f"sudo systemctl stop {unit}")
        yield
    finally:
        for node, unit in places:
            # Others may need the service: none of them is waited for here.
            lab.host(node).run(f"sudo systemctl start --no-block {unit}")


STAND_IN = """
import http.server, time
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(({metrics}).encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", {port}), Answer).serve_forever()
"""


@contextmanager
def replaced(lab: Lab, node: str, unit: str, port: str, metrics: str) -> Iterator[None]:
    """Let something else answer Prometheus in a service's place: `metrics`, a Python expression of what it answers."""
    program = STAND_IN.format(metrics=metrics, port=lab.contract["contract_ports"][port])
    host = lab.host(node)
    with stopped(lab, (node, unit)):
        try:
            host.check_output(
                "sudo systemd-run --unit=lab-test-stand-in --uid=nobody --collect --quiet "
                f"python3 -c {shlex.quote(program)}"
            )
            yield
        finally:
            host.run("sudo systemctl stop lab-test-stand-in")


def everywhere(lab: Lab, group: str, unit: str) -> list[tuple[str, str]]:
    return [(node, unit) for node in lab.group(group)]


def cure(lab: Lab, service: str) -> None:
    """Do what docs/troubleshooting.md says to do."""
    done = lab.playbook("restart", service=service)
    assert done.returncode == 0, done.stdout[-4000:]


def wait_until_well(lab: Lab, *names: str) -> None:
    """Wait until alerts have ended, and every event has its rows again."""
    for name in names:
        wait_until_withdrawn(lab, name, 300)
    lab.assert_all_accounted_for(300)


@pytest.mark.disruptive
def test_alerts_come_and_go(lab: Lab) -> None:
    """A node that is not read, a driver that is gone, Flink without task manager, a malformed message: all at once."""
    silent, submitter = lab.group("kafka")[0], lab.group("submitter")[0]
    lab.one("kafka").check_output(
        "echo 'not an event' | kafka-console-producer --bootstrap-server localhost:9092 --topic crypto_prices"
    )
    # Spark records it with its next batch, and is stopped below.
    wait_until_fires(lab, "MessagesRejected", 90)
    with stopped(
        lab,
        (silent, "prometheus-node-exporter"),
        (submitter, "spark-job"),
        *everywhere(lab, "flink_taskmanager", "flink-taskmanager"),
    ):
        wait_until_fires(lab, "TargetDown", ROUNDS_S, job="node", node=silent)
        wait_until_fires(lab, "SparkQueryDead", ROUNDS_S, node=submitter)
        # The job manager notices a lost task manager after ten seconds.
        wait_until_fires(lab, "FlinkJobNotRunning", ROUNDS_S + 30, node=submitter)
        (alert,) = raised(lab, "TargetDown", node=silent)
        assert alert["annotations"]["runbook"] == "docs/troubleshooting.md#targetdown"
    wait_until_withdrawn(lab, "TargetDown", 300)
    wait_until_well(lab, "SparkQueryDead", "FlinkJobNotRunning")


@pytest.mark.extended
@pytest.mark.disruptive
def test_engine_that_stands_still(lab: Lab) -> None:
    """Without its workers Spark's driver lives on, and so nothing but its rows and batches tells."""
    submitter = lab.group("submitter")[0]
    since_s = lab.now_s(submitter)
    # How far it has come, and so its lag, is told by its first batch.
    lab.wait_until_rows_flow()
    with stopped(lab, *everywhere(lab, "spark_worker", "spark-worker")):
        wait_until_fires(lab, "SparkQueryStalled", 240)
        wait_until_fires(lab, "EngineWritesNoRows", 240, engine="spark")
        wait_until_fires(lab, "EngineLagGrowing", 300, engine="spark")
        assert not raised(lab, "EngineWritesNoRows", engine="flink")
        assert "Lost executor" in lab.said(submitter, "spark-job", since_s)
        # Only a driver that has never had an executor says that it waits for one.
        lab.host(submitter).check_output("sudo systemctl restart --no-block spark-job")
        lab.wait_until_said(submitter, "spark-job", "Initial job has not accepted any resources", since_s)
        # Nor has its first batch ever ended, which is to be noticed too.
        wait_until_withdrawn(lab, "SparkQueryStalled", 120)
        wait_until_fires(lab, "SparkQueryStalled", 240)
        cure(lab, "spark")
    wait_until_well(lab, "SparkQueryStalled", "EngineWritesNoRows", "EngineLagGrowing")


@pytest.mark.extended
@pytest.mark.disruptive
def test_flink_without_checkpoints(lab: Lab) -> None:
    with stopped(lab, *everywhere(lab, "flink_taskmanager", "flink-taskmanager")):
        wait_until_fires(lab, "FlinkCheckpointOld", 240)
        wait_until_fires(lab, "EngineWritesNoRows", 240, engine="flink")
    wait_until_well(lab, "FlinkCheckpointOld", "EngineWritesNoRows", "FlinkJobNotRunning")


@pytest.mark.extended
@pytest.mark.disruptive
def test_flink_job_that_restarts(lab: Lab) -> None:
    node = lab.group("flink_taskmanager")[0]

    def job_is_up() -> bool:
        return query(lab, "crypto_flink_job_up == 1") != []

    for _ in range(2):
        lab.wait_for(job_is_up, "the Flink job to be up", 240)
        pid = lab.host(node).check_output("systemctl show flink-taskmanager -p MainPID --value")
        lab.host(node).check_output(f"sudo kill -9 {pid}")
        # Seen down by Prometheus, or its being up again would be that of before.
        lab.wait_for(lambda: not job_is_up(), "the Flink job to be down", 90)
    wait_until_fires(lab, "FlinkJobRestarting", 120)
    lab.wait_for(job_is_up, "the Flink job to be up", 240)
    lab.assert_all_accounted_for(300)


@pytest.mark.extended
@pytest.mark.disruptive
def test_producer_without_kafka(lab: Lab) -> None:
    node = lab.group("producer")[0]
    since_s = lab.now_s(node)
    with stopped(lab, *everywhere(lab, "kafka", "kafka")):
        wait_until_fires(lab, "TargetDown", ROUNDS_S, job="kafka")
        wait_until_fires(lab, "ProducerSpoolNotEmpty", 240)
        if lab.polls():
            said = lab.said(node, "producer", since_s)
            assert "Successfully sent 0/5 cryptocurrency pairs to Kafka" in said
            assert "events of this round wait in the spool for Kafka" in said
        # Of several brokers the first alone has no quorum: they are started together, below.
        if len(lab.group("kafka")) == 1:
            cure(lab, "kafka")
    wait_until_well(lab, "ProducerSpoolNotEmpty", "SparkQueryDead", "FlinkJobNotRunning")


@pytest.mark.extended
@pytest.mark.disruptive
def test_producer_without_a_source(lab: Lab) -> None:
    node = lab.group("producer")[0]
    if not lab.host(node).service("coinbase-replay").is_running:
        pytest.skip("this lab's source is not the replay, and cannot be stopped")
    since_s = lab.now_s(node)
    with stopped(lab, (node, "coinbase-replay")):
        wait_until_fires(lab, "ProducerSourceSilent", 240)
        if lab.polls():
            assert "no price of BTC-USD in this round" in lab.said(node, "producer", since_s)
        cure(lab, "coinbase_replay")
    wait_until_well(lab, "ProducerSourceSilent")


@pytest.mark.extended
@pytest.mark.disruptive
def test_database_that_takes_no_logins(lab: Lab) -> None:
    submitter = lab.group("submitter")[0]
    since_s = lab.now_s(submitter)
    with stopped(lab, *everywhere(lab, "postgres", "postgresql@15-main")):
        wait_until_fires(lab, "PostgresDown", ROUNDS_S)
        asked = lab.one("postgres").run('psql -U postgres -c "SELECT version();"')
        assert asked.rc != 0
        assert "connection to server on socket" in asked.stderr
        lab.wait_until_said(submitter, "spark-job", "Connection refused", since_s)
        cure(lab, "postgres")
    wait_until_well(lab, "PostgresDown", "SparkQueryDead", "FlinkJobNotRunning")


@pytest.mark.extended
@pytest.mark.disruptive
def test_service_that_restarts(lab: Lab) -> None:
    host = lab.one("postgres")
    for _ in range(3):
        host.check_output("sudo systemctl restart prometheus-postgres-exporter")
        # Longer than between two questions of Prometheus's: each start is seen.
        time.sleep(20)
    wait_until_fires(lab, "ServiceRestarting", ROUNDS_S, job="postgres")


@pytest.mark.extended
@pytest.mark.disruptive
def test_checkpoints_that_cannot_be_written(lab: Lab) -> None:
    host = lab.one("flink_jobmanager")
    # The group may go on reading what is there; new checkpoints are folders beside them.
    jobs = "/srv/lab-state/flink/checkpoints/*/"
    try:
        host.check_output(f"sudo sh -c 'chown root {jobs}'")
        wait_until_fires(lab, "FlinkCheckpointFailing", 120)
    finally:
        host.check_output(f"sudo sh -c 'chown flink {jobs}'")
    wait_until_withdrawn(lab, "FlinkCheckpointFailing", 420)
    wait_until_well(lab, "FlinkJobNotRunning", "FlinkCheckpointOld")


@pytest.mark.extended
@pytest.mark.disruptive
def test_disk_that_is_nearly_full(lab: Lab) -> None:
    """A file system of 16 MiB in memory, for the test; what of the disk is free is the machine's affair."""
    host, name = lab.one("kafka"), "lab-test-disk"
    node = lab.group("kafka")[0]
    # Not below /mnt or /media: Debian's exporter leaves those out.
    folder = f"/opt/{name}"
    try:
        host.check_output(f"sudo sh -c 'mkdir -p {folder} && mount -t tmpfs -o size=16m {name} {folder}'")
        host.check_output(f"sudo dd if=/dev/zero of={folder}/file bs=1M count=15 status=none")
        wait_until_fires(lab, "DiskNearlyFull", ROUNDS_S, node=node, device=name)
        host.check_output(f"sudo rm {folder}/file")
        wait_until_withdrawn(lab, "DiskNearlyFull", 120, node=node, device=name)
    finally:
        host.run(f"sudo sh -c 'umount {folder}; rmdir {folder}'")


@pytest.mark.extended
@pytest.mark.disruptive
def test_clock_that_is_off(lab: Lab) -> None:
    """Containers have the machine's clock, so a stand-in for the exporter has another."""
    node = lab.group("kafka")[0]
    ahead = 'f"node_time_seconds {time.time() + 5}\\n"'
    with replaced(lab, node, "prometheus-node-exporter", "node_metrics", ahead):
        wait_until_fires(lab, "ClockOffset", ROUNDS_S, node=node)
    wait_until_withdrawn(lab, "ClockOffset", 120, node=node)


@pytest.mark.extended
@pytest.mark.disruptive
def test_partition_that_nobody_reads(lab: Lab) -> None:
    """Which is seldom and cannot be had at will: a stand-in for the driver goes on in all partitions but one."""
    submitter = lab.group("submitter")[0]
    busy = [labels["partition"] for labels, _ in query(lab, "changes(topic_partition:end_offset:max[3m]) > 3")]
    assert len(busy) > 1, "the topic's events lie on one partition"
    starving, *others = busy
    lines = [f'crypto_spark_processed_offset{{query="prices",partition="{starving}"}} 1']
    lines += [f'crypto_spark_processed_offset{{query="prices",partition="{other}"}} NOW' for other in others]
    metrics = f'{chr(10).join([*lines, ""])!r}.replace("NOW", str(int(time.time())))'
    with replaced(lab, submitter, "spark-job", "spark_job_metrics", metrics):
        wait_until_fires(lab, "PartitionStarving", 360, engine="spark", partition=starving)
        assert not raised(lab, "PartitionStarving", engine="flink")
    wait_until_well(lab, "PartitionStarving", "SparkQueryDead")


@pytest.mark.extended
@pytest.mark.disruptive
def test_partitions_that_lack_a_copy(lab: Lab) -> None:
    brokers = lab.group("kafka")
    if len(brokers) < BROKERS_FOR_COPIES:
        pytest.skip(f"{len(brokers)} broker: partitions have one copy")
    with stopped(lab, (brokers[-1], "kafka")):
        wait_until_fires(lab, "KafkaUnderReplicatedPartitions", ROUNDS_S)
    wait_until_well(lab, "KafkaUnderReplicatedPartitions")


@pytest.mark.extended
@pytest.mark.disruptive
def test_monitoring_is_left_out_and_comes_back(lab: Lab) -> None:
    def listens(group: str, port: str) -> Callable[[], bool]:
        number = lab.contract["contract_ports"][port]
        node = lab.group(group)[0]
        return lambda: lab.host(node).run(f"timeout 3 bash -c '</dev/tcp/{node}/{number}'").rc == 0

    places = [
        listens("monitoring", "prometheus"), listens("kafka", "node_metrics"), listens("kafka", "kafka_metrics"),
        listens("postgres", "postgres_metrics"), listens("flink_jobmanager", "flink_jobmanager_metrics"),
        listens("flink_taskmanager", "flink_taskmanager_metrics"),
    ]  # fmt: skip
    try:
        done = lab.playbook("site", lab_monitoring="false")
        assert done.returncode == 0, done.stdout[-4000:]
        assert [place() for place in places] == [False] * len(places)
        lab.assert_all_accounted_for(300)
    finally:
        done = lab.playbook("site")
    assert done.returncode == 0, done.stdout[-4000:]
    assert [place() for place in places] == [True] * len(places)
    lab.assert_all_accounted_for(300)
