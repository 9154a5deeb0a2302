"""What roles refuse, with the reason, before anything changes; only their preflight is run, and on this machine.

A service's data and configuration are files in a folder of the test's own. That preflight comes first in every role,
a house test says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER_ID = "dGVzdHMtb2Yta2Fma2EtMA"
NODES = {"kafka_nodes": ["kafka-1", "kafka-2", "kafka-3"], "kafka_cluster_id": CLUSTER_ID}
QUORUM = "1@kafka-1:9093,2@kafka-2:9093,3@kafka-3:9093"
FLINK_JOB = {"flink_job_rest_url": "http://flink:8081", "flink_job_postgres_password": "x"}
AIRFLOW = {
    "airflow_web_password": "x", "airflow_database_password": "x", "airflow_pipeline_password": "x",
    "airflow_api_secret": "x", "airflow_jwt_secret": "x" * 64, "airflow_fernet_secret": "x" * 32,
    "airflow_kafka_bootstrap_servers": ["kafka-1:9092"],
}  # fmt: skip
SPARK_JOB = {"spark_job_master": "spark://spark:7077", "spark_job_postgres_password": "x"}


class Node:
    """A node named kafka-1 that is this machine, with Kafka's files below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = {
            f"kafka_{name}_path": str(folder / name) for name in ("data", "config", "install")
        }  # fmt: skip

    def write(self, name: str, text: str) -> None:
        """Write a file below the node's folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def has_run(self, *, node_id: int = 1, cluster_id: str = CLUSTER_ID, quorum: str = QUORUM) -> None:
        """Leave what a broker leaves: its identity, its configuration, its release."""
        self.write("data/data/meta.properties", f"version=1\nnode.id={node_id}\ncluster.id={cluster_id}\n")
        self.write("config/server.properties", f"node.id={node_id}\ncontroller.quorum.voters={quorum}\n")
        (self.folder / "install").mkdir()
        (self.folder / "install" / "current").symlink_to("4.1.0-0123456789ab")

    def preflight(self, role: str, **variables: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401 - as YAML has them
        """Run a role's preflight with its defaults and these variables."""
        play = {
            "hosts": "all", "gather_facts": False, "vars": {**self.paths, **variables},
            "tasks": [
                # Releases are what the role artifacts has given out on the controller.
                {"ansible.builtin.add_host": {"name": "localhost", "ansible_connection": "local"}},
                {"ansible.builtin.set_fact": {"artifacts_releases": {"kafka": {"release": "4.0.1-ba9876543210"}}},
                 "delegate_to": "localhost", "delegate_facts": True, "when": "downgraded | default(false)"},
                {"ansible.builtin.include_role": {"name": role, "tasks_from": "preflight.yml"}},
            ],
        }  # fmt: skip
        self.write("play.yml", json.dumps([play]))
        self.write("inventory.yml", json.dumps({"all": {"hosts": {"kafka-1": {
            "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False,
        }}}}))  # fmt: skip
        program = Path(sys.executable).with_name("ansible-playbook")
        return subprocess.run(
            [str(program), "-i", str(self.folder / "inventory.yml"), str(self.folder / "play.yml")],
            cwd=REPOSITORY, capture_output=True, text=True, check=False,
            env={**os.environ, "ANSIBLE_STRATEGY": "linear", "ANSIBLE_NOCOLOR": "1"},
        )  # fmt: skip

    def assert_refused(self, text: str, role: str, **variables: Any) -> None:  # noqa: ANN401 - as YAML has them
        """Assert that a role's preflight fails with a text."""
        done = self.preflight(role, **variables)
        assert done.returncode == 2, done.stdout + done.stderr
        assert text in " ".join(done.stdout.split()), done.stdout


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_new_node_and_one_that_has_run_are_welcome(node: Node) -> None:
    done = node.preflight("kafka", **NODES)
    assert done.returncode == 0, done.stdout
    node.has_run()
    done = node.preflight("kafka", **NODES)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("present", "found", "wanted"),
    [
        ({"node_id": 7}, "node.id=7", "node.id=1"),
        ({"cluster_id": "b3RoZXItY2x1c3Rlci0wMA"}, "cluster.id=b3RoZXItY2x1c3Rlci0wMA", f"cluster.id={CLUSTER_ID}"),
    ],
)
def test_data_of_another_node_or_cluster(node: Node, present: dict[str, Any], found: str, wanted: str) -> None:
    node.has_run(**present)
    done = node.preflight("kafka", **NODES)
    assert done.returncode == 2, done.stdout
    said = " ".join(done.stdout.split())
    assert found in said
    assert wanted in said
    assert "Correct the settings, or move the data away." in said


def test_another_quorum_than_the_running_one(node: Node) -> None:
    node.has_run(quorum="1@kafka-1:9093")
    node.assert_refused(f"runs with the controllers 1@kafka-1:9093, the settings ask for {QUORUM}", "kafka", **NODES)


def test_downgrade(node: Node) -> None:
    node.has_run()
    node.assert_refused("kafka-1 has Kafka 4.1.0, this would make it 4.0.1", "kafka", **NODES, downgraded=True)


def test_data_directory_with_other_things(node: Node) -> None:
    node.write("data/photos/one.jpg", "")
    node.assert_refused("holds no Kafka cluster, but other things (photos)", "kafka", **NODES)
    assert (node.folder / "data" / "photos" / "one.jpg").exists()


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"kafka_data_path": "/"}, "kafka_data_path (/) must be a folder of its own"),
        ({"kafka_replication_factor": 4}, "kafka_replication_factor (4) must not exceed the number of nodes"),
        ({"kafka_node_ids": {"kafka-1": 1, "kafka-2": 1, "kafka-3": 3}}, "every node must have an id of its own"),
    ],
)
def test_settings_that_do_not_fit(node: Node, variables: dict[str, Any], text: str) -> None:
    node.assert_refused(text, "kafka", **{**NODES, **variables})


def test_fewer_slots_than_the_flink_job_needs(node: Node) -> None:
    node.assert_refused("slots (2, all task managers' together)", "flink_job", **FLINK_JOB, flink_job_cluster_slots=2)
    assert node.preflight("flink_job", **FLINK_JOB, flink_job_cluster_slots=3).returncode == 0


def test_fewer_cores_than_the_spark_job_needs(node: Node) -> None:
    real_time = {**SPARK_JOB, "spark_job_mode": "realtime"}
    node.assert_refused(
        "spark_job_executor_cores (3) must exceed", "spark_job", **real_time, spark_job_executor_cores=3
    )
    node.assert_refused("cores (3, all workers' together)", "spark_job", **real_time, spark_job_cluster_cores=3)
    assert node.preflight("spark_job", **real_time, spark_job_cluster_cores=4).returncode == 0


TARGETS = [{"job": "node", "nodes": ["kafka-1"], "port": 9100}]


@pytest.mark.parametrize(
    ("role", "variables", "text"),
    [
        ("prometheus", {"prometheus_targets": TARGETS * 2}, "jobs of prometheus_targets (node, node) must have names"),
        (
            "prometheus",
            {"prometheus_scrape_interval_s": 60},
            "prometheus_scrape_interval_s (60) must lie between 5 and 30",
        ),
        ("prometheus", {"prometheus_data_path": "/var/lib"}, "prometheus_data_path (/var/lib) must be a folder"),
        ("prometheus_node_exporter", {"prometheus_node_exporter_collectors": []}, "names of collectors, at least one"),
        ("prometheus_node_exporter", {"prometheus_node_exporter_collectors": ["cpu --x"]}, "(cpu --x) must be names"),
        (
            "prometheus_postgres_exporter",
            {"prometheus_postgres_exporter_port": 5432},
            "(5432) must not be PostgreSQL's",
        ),
        ("prometheus_postgres_exporter", {"prometheus_postgres_exporter_database": "a/b"}, "('a/b') and"),
    ],
)
def test_monitoring_that_cannot_work(node: Node, role: str, variables: dict[str, Any], text: str) -> None:
    sound = {"prometheus_targets": TARGETS, "prometheus_postgres_exporter_password": "x"}
    node.assert_refused(text, role, **{**sound, **variables})
    assert node.preflight(role, **sound).returncode == 0


def test_secrets_that_airflow_cannot_use(node: Node) -> None:
    wanted = "airflow_fernet_secret 32 letters and digits, airflow_jwt_secret 32 characters or more"
    node.assert_refused(wanted, "airflow", **{**AIRFLOW, "airflow_fernet_secret": "x" * 31})
    node.assert_refused(wanted, "airflow", **{**AIRFLOW, "airflow_jwt_secret": "x" * 31})
    assert node.preflight("airflow", **AIRFLOW).returncode == 0
