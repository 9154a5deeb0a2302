"""What the playbooks make of a lab's options, with nodes that nobody logs in to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PLAYBOOKS = REPOSITORY / "ansible" / "playbooks"
GROUPS = (
    "kafka", "postgres", "spark_master", "spark_worker", "flink_jobmanager", "flink_taskmanager", "producer",
    "submitter", "monitoring", "airflow",
)  # fmt: skip
MONITORING = {"prometheus", "prometheus_node_exporter", "prometheus_postgres_exporter", "dashboard", "kafka_ui"}


class Lab:
    """Two nodes: one for Kafka, and one for everything else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.groups = {group: ["kafka-1" if group == "kafka" else "lab-1"] for group in GROUPS}
        self.variables: dict[str, Any] = {}

    def play(self, playbook: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook with the inventory that Terraform would give."""
        hosts = {node: {"ansible_host": "192.0.2.1", **self.variables} for node in ("kafka-1", "lab-1")}
        children = {group: {"hosts": {node: {} for node in nodes}} for group, nodes in self.groups.items()}
        given = {"lab_name": "lab", "lab_dir": str(self.folder)}
        inventory = self.folder / "inventory.yml"
        inventory.write_text(json.dumps({"all": {"hosts": hosts, "children": children, "vars": given}}))
        program = Path(sys.executable).with_name("ansible-playbook")
        return subprocess.run(
            [str(program), "-i", str(inventory), str(playbook), *arguments],
            cwd=REPOSITORY, capture_output=True, text=True, check=False,
            env={**os.environ, "ANSIBLE_STRATEGY": "linear", "ANSIBLE_NOCOLOR": "1"},
        )  # fmt: skip

    def values(self, name: str) -> dict[str, Any]:
        """Return node => value of a variable of the lab."""
        shown = self.folder / "shown"
        shown.mkdir(exist_ok=True)
        play = {
            "hosts": "all", "gather_facts": False,
            "tasks": [{
                "ansible.builtin.copy": {
                    "content": f"{{{{ {name} | to_json }}}}", "dest": f"{shown}/{{{{ inventory_hostname }}}}.json",
                    "mode": "0600",
                },
                "delegate_to": "localhost", "vars": {"ansible_python_interpreter": sys.executable},
            }],
        }  # fmt: skip
        path = self.folder / "play.yml"
        path.write_text(json.dumps([play]))
        if not (group_vars := self.folder / "group_vars").exists():
            group_vars.symlink_to(PLAYBOOKS / "group_vars")
        done = self.play(path)
        assert done.returncode == 0, done.stdout + done.stderr
        return {path.stem: json.loads(path.read_text()) for path in shown.glob("*.json")}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def refusal(lab: Lab, service: str) -> str:
    """Ask for a restart that must be refused before any node is asked for anything; returns the reason."""
    done = lab.play(PLAYBOOKS / "restart.yml", "-e", f"service={service}")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "lab-1" not in done.stdout.partition("PLAY RECAP")[2], done.stdout
    return " ".join(done.stdout.split())


def test_restart_of_what_is_no_service(lab: Lab) -> None:
    assert "-e service=nonsense names no service: give one of kafka, " in refusal(lab, "nonsense")


def test_restart_of_airflow_in_a_lab_without_it(lab: Lab) -> None:
    lab.groups["airflow"] = []
    said = refusal(lab, "airflow")
    assert "-e service=airflow: the lab 'lab' is without it (AIRFLOW=off, or no node in the group airflow)" in said
    assert "It has kafka, postgres, spark, flink, " in said


@pytest.mark.parametrize("service", ["prometheus", "dashboard"])
def test_restart_of_monitoring_in_a_lab_without_it(lab: Lab, service: str) -> None:
    lab.variables = {"lab_monitoring": False}
    assert f"-e service={service}: the lab 'lab' is without it (MONITORING=off, or no node in" in refusal(lab, service)


def test_services_that_a_lab_has(lab: Lab) -> None:
    known = set(yaml.safe_load((PLAYBOOKS / "group_vars" / "all" / "lab.yml").read_text())["lab_services"])
    assert {frozenset(found) for found in lab.values("lab_services_here").values()} == {frozenset(known)}
    lab.variables, lab.groups["airflow"] = {"lab_monitoring": False}, []
    for found in lab.values("lab_services_here").values():
        assert set(found) == known - MONITORING - {"airflow"}


def test_airflow_is_stopped_where_the_topology_has_it_and_the_lab_does_not(lab: Lab) -> None:
    nodes = {"lab-1": {"groups": ["producer", "airflow"]}, "kafka-1": {"groups": ["kafka"]}}
    topology = lab.folder / "topology.yaml"
    topology.write_text(yaml.safe_dump({"nodes": nodes}))
    assert lab.values("lab_lacks_airflow") == {"kafka-1": False, "lab-1": False}
    lab.groups["airflow"] = []
    assert lab.values("lab_lacks_airflow") == {"kafka-1": False, "lab-1": True}
    # One that is of another making, or a lab without a file: nobody knows, and nobody is asked.
    topology.write_text(yaml.safe_dump({"nodes": {"other-1": {"groups": ["airflow"]}}}))
    assert lab.values("lab_lacks_airflow") == {"kafka-1": False, "lab-1": False}
    topology.unlink()
    assert lab.values("lab_lacks_airflow") == {"kafka-1": False, "lab-1": False}
