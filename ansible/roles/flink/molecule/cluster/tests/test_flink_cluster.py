"""A job that needs the slots of both task managers runs on both, and its checkpoints are in the shared directory."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host

testinfra_hosts = ["ansible://flink-jm-1"]
PARALLELISM = 4
JOB = f"""
from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment

settings = Configuration()
for key, value in {{
    "execution.target": "remote", "rest.address": "flink-jm-1", "rest.port": "8081", "pipeline.name": "both",
    "parallelism.default": "{PARALLELISM}", "execution.checkpointing.interval": "1 s",
    "execution.checkpointing.dir": "file:///srv/lab-state/flink/checkpoints",
}}.items():
    settings.set_string(key, value)
settings = EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(settings).build()
table = TableEnvironment.create(settings)
table.execute_sql(
    "CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'fields.n.kind' = 'sequence', "
    "'fields.n.start' = '1', 'fields.n.end' = '800', 'rows-per-second' = '100')"
)
table.execute_sql("CREATE TABLE nowhere (n BIGINT, times BIGINT) WITH ('connector' = 'blackhole')")
table.execute_sql("INSERT INTO nowhere SELECT MOD(n, 8), COUNT(*) FROM numbers GROUP BY MOD(n, 8)").wait()
"""
ENVIRONMENT = "FLINK_HOME=/opt/flink/current/python/pyflink PYTHONPATH=/opt/flink-job/current/python"


def ask(host: Host, path: str) -> Any:
    """Return what the job manager's REST API answers."""
    return json.loads(host.check_output(f"curl -sf http://flink-jm-1:8081{path}"))


def test_both_task_managers_have_their_slots(host: Host) -> None:
    found = ask(host, "/taskmanagers")["taskmanagers"]
    assert [manager["slotsNumber"] for manager in found] == [2, 2]
    assert all(f"@flink-tm-{number}:" in " ".join(manager["path"] for manager in found) for number in (1, 2))


def test_a_job_runs_on_both_task_managers(host: Host) -> None:
    with host.sudo("flink"):
        host.run_expect([0], f"cat > /tmp/both.py <<'EOF'\n{JOB}EOF")
        done = host.run(f"cd /var/lib/flink && {ENVIRONMENT} python3 /tmp/both.py")
    assert done.rc == 0, done.stdout[-1000:] + done.stderr[-2000:]
    job = next(job for job in ask(host, "/jobs/overview")["jobs"] if job["name"] == "both")
    assert job["state"] == "FINISHED"
    vertices = ask(host, f"/jobs/{job['jid']}")["vertices"]
    assert PARALLELISM in {vertex["parallelism"] for vertex in vertices}
    for vertex in vertices:
        managers = ask(host, f"/jobs/{job['jid']}/vertices/{vertex['id']}/taskmanagers")["taskmanagers"]
        assert {manager["endpoint"].partition(":")[0] for manager in managers} == {"flink-tm-1", "flink-tm-2"}, vertex
    checkpoints = ask(host, f"/jobs/{job['jid']}/checkpoints")
    assert checkpoints["counts"]["completed"] >= 1
    assert checkpoints["latest"]["completed"]["external_path"].startswith("file:/srv/lab-state/flink/checkpoints/")
