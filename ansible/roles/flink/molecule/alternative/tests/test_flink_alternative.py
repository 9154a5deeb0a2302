"""Every changed setting is the one that the cluster runs with."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host

JOB = """
from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment

settings = Configuration()
for key, value in {"execution.target": "remote", "rest.address": "flink-1", "rest.port": "18081"}.items():
    settings.set_string(key, value)
table = TableEnvironment.create(EnvironmentSettings.new_instance().in_batch_mode().with_configuration(settings).build())
table.execute_sql("SELECT COUNT(*) AS times FROM (VALUES ('tick'), ('tock')) AS words(word)").print()
"""
ENVIRONMENT = "FLINK_HOME=/opt/stream/current/python/pyflink PYTHONPATH=/opt/flink-job/current/python"


def ask(host: Host, path: str) -> Any:
    """Return what the job manager's REST API answers."""
    return json.loads(host.check_output(f"curl -sf http://flink-1:18081{path}"))


def test_a_job_runs_on_the_cluster(host: Host) -> None:
    with host.sudo("stream"):
        host.run_expect([0], f"cat > /tmp/count.py <<'EOF'\n{JOB}EOF")
        done = host.run(f"cd /srv/stream && {ENVIRONMENT} python3 /tmp/count.py")
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("|")][-1:] == ["2"], done.stderr[
        -2000:
    ]
    assert [job["state"] for job in ask(host, "/jobs/overview")["jobs"]] == ["FINISHED"]


def test_settings_are_the_running_ones(host: Host) -> None:
    found = {entry["key"]: entry["value"] for entry in ask(host, "/jobmanager/config")}
    wanted = {
        "restart-strategy.type": "exponential-delay", "jobmanager.rpc.port": "16123", "blob.server.port": "16124",
        "execution.checkpointing.interval": "5000 ms", "execution.checkpointing.dir": "file:///srv/lab-state/stream/checkpoints",
    }  # fmt: skip
    assert {name: found.get(name) for name in wanted} == wanted
    assert [manager["slotsNumber"] for manager in ask(host, "/taskmanagers")["taskmanagers"]] == [3]
    for port in (16123, 16124):
        assert host.socket(f"tcp://{port}").is_listening


def test_user_and_places(host: Host) -> None:
    assert len(host.process.filter(user="stream", comm="java")) == 2
    assert host.user("stream").uid == 952
    with host.sudo():
        assert host.check_output("ls /var/log/stream").split() == ["jobmanager.log", "taskmanager.log"]
    for path in ("/etc/flink", "/opt/flink", "/var/lib/flink", "/var/log/flink", "/srv/lab-state/flink"):
        assert not host.file(path).exists, path
