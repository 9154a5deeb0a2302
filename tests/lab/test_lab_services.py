"""Units, users, ports, and the versions that are running."""

from __future__ import annotations

import json
import subprocess

import pytest
from live_lab import REPOSITORY, Lab

# group, unit, user, port on the lab's network (None: none to check)
SERVICES = [
    ("kafka", "kafka", "kafka", 9092),
    ("postgres", "postgresql@15-main", "postgres", 5432),
    ("spark_master", "spark-master", "spark", 7077),
    ("spark_master", "spark-master", "spark", 8080),
    ("spark_worker", "spark-worker", "spark", 7078),
    ("flink_jobmanager", "flink-jobmanager", "flink", 8081),
    ("flink_taskmanager", "flink-taskmanager", "flink", None),
    ("producer", "producer", "producer", 9108),
    ("submitter", "spark-job", "spark", 4040),
    ("submitter", "flink-job", "flink", 9110),
    ("airflow", "airflow-api-server", "airflow", 8085),
    ("airflow", "airflow-scheduler", "airflow", None),
    ("airflow", "airflow-dag-processor", "airflow", None),
    ("airflow", "airflow-triggerer", "airflow", None),
]


@pytest.mark.parametrize(("group", "unit", "user", "port"), SERVICES)
def test_unit_runs_at_boot_under_its_user(lab: Lab, group: str, unit: str, user: str, port: int | None) -> None:
    for node in lab.group(group):
        host = lab.host(node)
        assert host.service(unit).is_enabled, f"{unit} on {node} does not start at boot"
        assert host.service(unit).is_running, lab.journal(node, unit, 40)
        properties = host.check_output(f"systemctl show {unit} -p MainPID -p Restart")
        settings = dict(line.split("=", 1) for line in properties.splitlines())
        assert settings["Restart"] in {"always", "on-failure"}
        assert host.check_output(f"ps -o user:32= -p {settings['MainPID']}").strip() == user
        if port:
            assert host.run(f"timeout 3 bash -c '</dev/tcp/{node}/{port}'").rc == 0, f"{node}:{port} does not answer"


def test_every_role_says_that_it_is_healthy(lab: Lab) -> None:
    done = subprocess.run(
        ["ansible-playbook", "ansible/playbooks/verify.yml"],
        cwd=REPOSITORY, env=lab.context.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]


def test_nothing_of_ours_listens_beyond_the_lab(lab: Lab) -> None:
    # Nodes have one address, in the lab's own network.
    for node in lab.nodes:
        addresses = json.loads(lab.host(node).check_output("ip -json -4 address show scope global"))
        assert [entry["local"] for link in addresses for entry in link["addr_info"]] == [
            lab.inventory["_meta"]["hostvars"][node]["ansible_host"]
        ]


def test_nodes_have_booted_cleanly(lab: Lab) -> None:
    for node in lab.nodes:
        failed = lab.host(node).check_output("systemctl list-units --failed --plain --no-legend")
        assert not failed, f"{node}: {failed}"


def test_nodes_find_each_other_by_name(lab: Lab) -> None:
    for node in lab.nodes:
        for other in lab.nodes:
            address = lab.inventory["_meta"]["hostvars"][other]["ansible_host"]
            assert lab.host(node).check_output(f"getent ahostsv4 {other}").split()[0] == address


def test_limits_are_the_topologys(lab: Lab) -> None:
    for node in lab.nodes:
        wanted = lab.inventory["_meta"]["hostvars"][node]
        total_kib = int(lab.host(node).check_output("awk '/MemTotal/ {print $2}' /proc/meminfo"))
        assert abs(total_kib / 1024 - wanted["lab_node_memory_mib"]) < 0.1 * wanted["lab_node_memory_mib"]
        assert int(lab.host(node).check_output("nproc")) == wanted["lab_node_vcpus"]


def test_shared_state_is_one_directory(lab: Lab) -> None:
    writer, *readers = lab.nodes
    lab.host(writer).check_output("echo shared | sudo tee /srv/lab-state/.shared-check > /dev/null")
    try:
        for node in readers:
            assert lab.host(node).check_output("cat /srv/lab-state/.shared-check") == "shared"
    finally:
        lab.host(writer).check_output("sudo rm /srv/lab-state/.shared-check")


def open_jars(lab: Lab, node: str, unit: str) -> str:
    pid = lab.host(node).check_output(f"systemctl show {unit} -p MainPID --value")
    return str(lab.host(node).check_output(f"sudo ls -l /proc/{pid}/fd"))


def test_running_kafka_is_the_pinned_version(lab: Lab) -> None:
    for node in lab.group("kafka"):
        assert "/kafka_2.13-4.3.1.jar" in open_jars(lab, node, "kafka")


def test_running_spark_is_the_pinned_version(lab: Lab) -> None:
    assert "/spark-core_2.13-4.2.0.jar" in open_jars(lab, lab.group("spark_master")[0], "spark-master")
    for node in lab.group("spark_worker"):
        assert "/spark-core_2.13-4.2.0.jar" in open_jars(lab, node, "spark-worker")


def test_running_flink_is_the_pinned_version(lab: Lab) -> None:
    overview = json.loads(lab.one("flink_jobmanager").check_output("curl -s http://localhost:8081/overview"))
    assert overview["flink-version"] == "2.3.0"
    assert overview["taskmanagers"] == len(lab.group("flink_taskmanager"))


def test_running_postgres_keeps_commit_times(lab: Lab) -> None:
    assert lab.sql(
        "SELECT current_setting('server_version_num')::int / 10000, current_setting('track_commit_timestamp')"
    ) == [["15", "on"]]


def test_secrets_are_closed(lab: Lab) -> None:
    host = lab.one("submitter")
    for path in ("/etc/spark-job/postgres-password", "/etc/flink-job/postgres-password"):
        assert host.check_output(f"sudo stat -c '%a %U' {path}") == "640 root"
        assert host.run(f"cat {path}").rc != 0, f"{path} can be read by everybody"
    for secret in (lab.context.lab_dir / "secrets").iterdir():
        assert secret.stat().st_mode & 0o077 == 0, secret
        # Neither on a command line nor in the environment of any process.
        password = secret.read_text().strip()
        assert password not in host.check_output("ps -eo args")
