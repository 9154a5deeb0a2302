"""The cluster runs a job."""

from __future__ import annotations

import json

from testinfra.host import Host

JOB = """
from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment

settings = Configuration()
for key, value in {"execution.target": "remote", "rest.address": "flink-1", "rest.port": "8081"}.items():
    settings.set_string(key, value)
table = TableEnvironment.create(EnvironmentSettings.new_instance().in_batch_mode().with_configuration(settings).build())
words = "(VALUES ('tick'), ('tock'), ('tick')) AS words(word)"
table.execute_sql(f"SELECT word, COUNT(*) AS times FROM {words} GROUP BY word").print()
"""
ENVIRONMENT = "FLINK_HOME=/opt/flink/current/python/pyflink PYTHONPATH=/opt/flink-job/current/python"


def test_a_job_runs_on_the_cluster(host: Host) -> None:
    with host.sudo("flink"):
        host.run_expect([0], f"cat > /tmp/words.py <<'EOF'\n{JOB}EOF")
        done = host.run(f"cd /var/lib/flink && {ENVIRONMENT} python3 /tmp/words.py")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if "|" in line]
    assert ["tick", "2"] in rows, done.stdout[-2000:] + done.stderr[-2000:]
    jobs = json.loads(host.check_output("curl -s http://flink-1:8081/jobs/overview"))["jobs"]
    assert [job["state"] for job in jobs] == ["FINISHED"]


def test_units_run_under_their_user(host: Host) -> None:
    for unit in ("flink-jobmanager", "flink-taskmanager"):
        assert host.service(unit).is_enabled
        assert host.service(unit).is_running
    assert len(host.process.filter(user="flink", comm="java")) == 2


def test_each_component_has_its_metrics(host: Host) -> None:
    for port, metric in ((9249, "flink_jobmanager_numRegisteredTaskManagers"), (9250, "flink_taskmanager_Status_JVM_")):
        assert metric in host.check_output(f"curl -sf http://flink-1:{port}/metrics")
