"""A job runs on both workers, and on one when the other is gone."""

from __future__ import annotations

import json
import time
from typing import Any

from testinfra.host import Host

# Driver and disturbance are on one node, the other two are as they are.
testinfra_hosts = ["ansible://spark-worker-2"]
SPARK = "/opt/spark/current/python/pyspark"
JOB = """
import socket
import sys
import time
from pyspark.sql import SparkSession

def where(_):
    time.sleep(1)
    yield socket.gethostname()

slots = int(sys.argv[1])
context = SparkSession.builder.getOrCreate().sparkContext
print("HOSTS", *sorted(set(context.parallelize(range(slots), slots).mapPartitions(where).collect())))
"""


def hosts_of_a_job(host: Host, slots: int) -> list[str]:
    """Run a job that keeps as many slots busy at the same time; returns the nodes that it ran on."""
    options = {
        "spark.cores.max": slots, "spark.executor.cores": 2, "spark.executor.memory": "512m",
        "spark.driver.memory": "512m", "spark.driver.host": "spark-worker-2",
        # It does not begin before all its slots are there.
        "spark.scheduler.minRegisteredResourcesRatio": 1, "spark.scheduler.maxRegisteredResourcesWaitingTime": "60s",
    }  # fmt: skip
    settings = " ".join(f"--conf {name}={value}" for name, value in options.items())
    with host.sudo("spark"):
        host.run_expect([0], f"cat > /tmp/where.py <<'EOF'\n{JOB}EOF")
        done = host.run(
            f"cd /var/lib/spark && PYTHONPATH=/opt/spark/current/python {SPARK}/bin/spark-submit "
            f"--master spark://spark-master-1:7077 {settings} /tmp/where.py {slots}"
        )
    found = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("HOSTS")]
    assert found, done.stdout[-1000:] + done.stderr[-2000:]
    return list(found[0])


def workers(host: Host) -> list[dict[str, Any]]:
    """Return the workers that the master counts as alive."""
    state = json.loads(host.check_output("curl -s http://spark-master-1:8080/json/"))
    return [worker for worker in state["workers"] if worker["state"] == "ALIVE"]


def test_a_job_runs_on_both_workers(host: Host) -> None:
    assert sorted(worker["host"] for worker in workers(host)) == ["spark-worker-1", "spark-worker-2"]
    found = hosts_of_a_job(host, slots=4)
    assert len(found) == 2, found


def test_a_job_runs_when_a_worker_is_gone(host: Host) -> None:
    with host.sudo():
        host.run_expect([0], "systemctl stop spark-worker")
    try:
        found = hosts_of_a_job(host, slots=2)
    finally:
        with host.sudo():
            host.run_expect([0], "systemctl start spark-worker")
    assert found
    assert host.check_output("hostname") not in found
    deadline = time.monotonic() + 180
    while len(workers(host)) != 2:
        assert time.monotonic() < deadline, workers(host)
        time.sleep(1)
