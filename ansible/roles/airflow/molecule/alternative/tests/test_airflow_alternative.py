"""Every changed setting is the one that Airflow runs with."""

from __future__ import annotations

import json
import time
from typing import Any

from testinfra.host import Host

API = "http://127.0.0.1:18085"


def ask(host: Host, path: str) -> dict[str, Any]:
    """Call the API as the web user."""
    login = json.dumps({"username": "ann", "password": "kept-from-logs-6"})
    found = host.check_output(f"curl -sf -H 'Content-Type: application/json' -d '{login}' {API}/auth/token")
    token = json.loads(found)["access_token"]
    return dict(json.loads(host.check_output(f"curl -s -H 'Authorization: Bearer {token}' {API}{path}")))


def test_dags_that_need_no_node_are_there(host: Host) -> None:
    """No service is named that could be restarted, so there is no DAG for it."""
    found: dict[str, Any] = {}
    for _ in range(60):
        found = ask(host, "/api/v2/dags")
        if found["total_entries"] == 3:
            break
        time.sleep(2)
    assert [dag["dag_id"] for dag in found["dags"]] == ["comparison_report", "data_quality", "retention"]
    assert ask(host, "/api/v2/importErrors")["import_errors"] == []


def test_settings_are_the_running_ones(host: Host) -> None:
    with host.sudo("pilot"):
        for section, option, value in (
            ("core", "max_active_tasks_per_dag", "3"),
            ("core", "parallelism", "1"),
            ("email", "from_email", "pilot@lab.internal"),
        ):
            assert host.check_output(f"airflow config get-value {section} {option}").splitlines()[-1] == value


def test_user_and_places(host: Host) -> None:
    assert host.process.filter(user="pilot")
    assert host.user("pilot").uid == 957
    with host.sudo():
        assert host.check_output("find /var/log/pilot/dag_processor -type f -user pilot")
    for path in ("/etc/airflow", "/opt/airflow", "/opt/airflow-dags", "/var/lib/airflow", "/var/log/airflow"):
        assert not host.file(path).exists, path
    assert not host.socket("tcp://0.0.0.0:8085").is_listening
