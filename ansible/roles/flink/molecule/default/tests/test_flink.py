"""The cluster runs a job."""

from __future__ import annotations

import json

from testinfra.host import Host

FLINK = "/opt/flink/current/python/pyflink"
QUERY = """SET 'execution.runtime-mode' = 'batch';
SET 'sql-client.execution.result-mode' = 'tableau';
SELECT word, COUNT(*) AS times FROM (VALUES ('tick'), ('tock'), ('tick')) AS words(word) GROUP BY word;
"""


def test_a_job_runs_on_the_cluster(host: Host) -> None:
    client = f"java -cp '{FLINK}/lib/*:{FLINK}/opt/*' org.apache.flink.table.client.SqlClient embedded -f /tmp/query.sql"
    with host.sudo("flink"):
        host.run_expect([0], f"cat > /tmp/query.sql <<'EOF'\n{QUERY}EOF")
        done = host.run(f"cd /var/lib/flink && FLINK_CONF_DIR=/etc/flink {client}")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if "|" in line]
    assert ["tick", "2"] in rows, done.stdout[-2000:] + done.stderr[-2000:]
    jobs = json.loads(host.check_output("curl -s http://flink-1:8081/jobs/overview"))["jobs"]
    assert [job["state"] for job in jobs] == ["FINISHED"]


def test_units_run_under_their_user(host: Host) -> None:
    for unit in ("flink-jobmanager", "flink-taskmanager"):
        assert host.service(unit).is_enabled
        assert host.service(unit).is_running
    assert len(host.process.filter(user="flink", comm="java")) == 2
