"""Airflow answers its user and nobody else, its DAGs run, and its key restarts what is listed and does nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

API = "http://127.0.0.1:8085"
SSH = (
    "sudo -u airflow ssh -F none -T -i /var/lib/airflow/ssh/id_ed25519 -o BatchMode=yes -o StrictHostKeyChecking=yes"
    " -o UserKnownHostsFile=/var/lib/airflow/ssh/known_hosts lab-restart@lab-1"
)
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask(host: Host) -> Ask:
    """Return a function that calls the API as the web user."""
    login = json.dumps({"username": "airflow", "password": "kept-from-logs-6"})
    found = host.check_output(f"curl -sf -H 'Content-Type: application/json' -d '{login}' {API}/auth/token")
    token = json.loads(found)["access_token"]

    def call(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = f"-H 'Content-Type: application/json' -d '{json.dumps(body)}'" if body is not None else ""
        return dict(json.loads(host.check_output(f"curl -s -H 'Authorization: Bearer {token}' {data} {API}{path}")))

    return call


def run(ask: Ask, name: str, **conf: Any) -> tuple[str, dict[str, str]]:
    """Trigger a DAG; returns its state, and the state of each task."""
    begun = ask(f"/api/v2/dags/{name}/dagRuns", {"logical_date": None, "conf": conf})
    path = f"/api/v2/dags/{name}/dagRuns/{begun['dag_run_id']}"
    state = ""
    for _ in range(90):
        state = ask(path)["state"]
        if state in {"success", "failed"}:
            break
        time.sleep(2)
    tasks = ask(f"{path}/taskInstances")["task_instances"]
    return state, {task["task_id"]: task["state"] for task in tasks}


def test_nobody_comes_in_without_the_password(host: Host) -> None:
    wrong = json.dumps({"username": "airflow", "password": "airflow"})
    status = "curl -s -o /dev/null -w '%{http_code}'"
    assert host.check_output(f"{status} -H 'Content-Type: application/json' -d '{wrong}' {API}/auth/token") == "401"
    for path in ("/api/v2/dags", "/api/v2/connections", "/reports/latest"):
        assert host.check_output(f"{status} {API}{path}") == "401", path


def test_dags_are_there_without_errors(ask: Ask) -> None:
    for _ in range(60):
        found = ask("/api/v2/dags")
        if found["total_entries"] == 4:
            break
        time.sleep(2)
    assert {dag["dag_id"]: dag["is_paused"] for dag in found["dags"]} == dict.fromkeys(
        ("comparison_report", "data_quality", "pipeline_restart", "retention"), False
    )
    assert ask("/api/v2/importErrors")["import_errors"] == []


def test_dags_run(ask: Ask) -> None:
    """Without engines and without a message there is nothing to check, nothing to compare, and nothing to delete."""
    assert run(ask, "data_quality") == ("success", {"measure": "skipped", "judge": "skipped"})
    assert run(ask, "comparison_report") == ("success", {"write": "skipped"})
    assert run(ask, "retention") == ("success", {"expire": "success"})


def test_unit_is_restarted_by_the_dag(host: Host, ask: Ask) -> None:
    started = "systemctl show coinbase-replay -p ExecMainStartTimestampMonotonic --value"
    before = int(host.check_output(started))
    begun = ask("/api/v2/dags/pipeline_restart/dagRuns", {"logical_date": None, "conf": {"service": "replay"}})
    path = f"/api/v2/dags/pipeline_restart/dagRuns/{begun['dag_run_id']}/taskInstances/restart_service"
    for _ in range(60):
        if ask(path)["state"] in {"success", "failed"}:
            break
        time.sleep(2)
    assert ask(path)["state"] == "success"
    assert int(host.check_output(started)) > before
    assert host.service("coinbase-replay").is_running
    # What is not offered is refused before anything runs.
    assert ask("/api/v2/dags/pipeline_restart/dagRuns", {"logical_date": None, "conf": {"service": "sshd"}})["detail"]


@pytest.mark.parametrize("command", ["", "id", "restart ssh", "restart coinbase-replay; id", "sh -c id"])
def test_key_does_nothing_else(host: Host, command: str) -> None:
    with host.sudo():
        done = host.run(f"{SSH} '{command}' </dev/null")
    assert done.rc == 64, done.stderr
    assert "lab-restart takes: restart coinbase-replay" in done.stderr
    assert "uid=" not in done.stdout


def test_key_forwards_nothing(host: Host) -> None:
    forward = SSH.replace(" -T ", " -T -N -o ExitOnForwardFailure=yes -R 19999:127.0.0.1:22 ")
    with host.sudo():
        # testinfra takes 255 for a failure of its own connection.
        done = host.run(f"timeout 30 {forward} </dev/null; echo $?")
    # 124 would be timeout's: the forwarding had been granted.
    assert done.stdout.split() == ["255"], done.stderr


def test_user_of_the_key_may_restart_the_unit_only(host: Host) -> None:
    with host.sudo():
        for command in ("systemctl restart ssh", "systemctl stop coinbase-replay", "id"):
            assert host.run(f"sudo -u lab-restart sudo -n {command}").rc != 0, command


def test_secrets_are_closed(host: Host) -> None:
    for name in ("database-url", "api-secret", "jwt-secret", "fernet-key", "connections.json"):
        path = f"/etc/airflow/secrets/{name}"
        assert host.check_output(f"sudo stat -c '%a %U %G' {path}") == "640 root airflow"
        assert host.run(f"cat {path}").rc != 0
    assert host.check_output("sudo stat -c '%a %U' /var/lib/airflow/passwords.json") == "600 airflow"
    assert host.check_output("sudo stat -c '%a %U' /var/lib/airflow/ssh/id_ed25519") == "600 airflow"


def test_page_is_answered(host: Host) -> None:
    assert "<html" in host.check_output(f"curl -sfL {API}/")


def test_memory_is_small(host: Host) -> None:
    """A lab's node has 1280 MiB for all of it; what processes share counts once."""
    with host.sudo():
        kib = host.check_output(
            "for pid in $(pgrep -u airflow); do cat /proc/$pid/smaps_rollup; done 2>/dev/null"
            " | awk '/^Pss:/ {sum += $2} END {print sum}'"
        )
    assert 100 < int(kib) / 1024 < 1100
