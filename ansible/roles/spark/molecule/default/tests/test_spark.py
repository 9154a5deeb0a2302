"""The cluster runs a job."""

from __future__ import annotations

import json

from testinfra.host import Host

SPARK = "/opt/spark/current/python/pyspark"


def test_a_job_runs_on_the_cluster(host: Host) -> None:
    with host.sudo("spark"):
        done = host.run(
            f"cd /var/lib/spark && PYTHONPATH=/opt/spark/current/python {SPARK}/bin/spark-submit "
            f"--master spark://spark-1:7077 --conf spark.cores.max=2 --executor-memory 512m --driver-memory 512m "
            f"{SPARK}/examples/src/main/python/pi.py 2"
        )
    assert "Pi is roughly 3." in done.stdout, done.stderr[-2000:]
    state = json.loads(host.check_output("curl -s http://spark-1:8080/json/"))
    assert [app["state"] for app in state["completedapps"]] == ["FINISHED"]


def test_units_run_under_their_user(host: Host) -> None:
    for unit in ("spark-master", "spark-worker"):
        assert host.service(unit).is_enabled
        assert host.service(unit).is_running
    assert len(host.process.filter(user="spark", comm="java")) == 2


def test_nobody_submits_drivers_over_rest(host: Host) -> None:
    assert "6066" not in {name.rpartition(":")[2] for name in host.socket.get_listening_sockets()}


def test_master_and_worker_have_metrics(host: Host) -> None:
    assert 'metrics_master_aliveWorkers_Value{type="gauges"} 1' in host.check_output(
        "curl -sf http://spark-1:8080/metrics/master/prometheus/"
    )
    assert "metrics_worker_coresFree_Value" in host.check_output("curl -sf http://spark-1:8082/metrics/prometheus/")
