"""Every changed setting is the one that the cluster runs with."""

from __future__ import annotations

import json

from testinfra.host import Host

SPARK = "/opt/engine/current/python/pyspark"


def test_a_job_runs_on_the_cluster(host: Host) -> None:
    with host.sudo("engine"):
        done = host.run(
            f"cd /srv/engine && PYTHONPATH=/opt/engine/current/python SPARK_CONF_DIR=/etc/engine "
            f"{SPARK}/bin/spark-submit "
            f"--master spark://spark-1:17077 --conf spark.cores.max=2 --executor-memory 512m --driver-memory 512m "
            f"{SPARK}/examples/src/main/python/pi.py 2"
        )
    assert "Pi is roughly 3." in done.stdout, done.stderr[-2000:]
    with host.sudo():
        assert host.check_output("ls /srv/engine/work").startswith("app-"), "the executor's working directory"
        assert host.check_output("find /srv/lab-state/engine/master -name 'worker_*'"), "the master's recovery files"


def test_worker_has_its_size(host: Host) -> None:
    (worker,) = json.loads(host.check_output("curl -s http://spark-1:18080/json/"))["workers"]
    assert (worker["cores"], worker["memory"], worker["port"]) == (2, 1200, 17078)
    assert host.socket("tcp://18082").is_listening


def test_user_heap_and_places(host: Host) -> None:
    processes = host.process.filter(user="engine", comm="java")
    assert len(processes) == 2
    assert all("-Xmx200m" in process.args for process in processes)
    assert host.user("engine").uid == 951
    for path in ("/etc/spark", "/opt/spark", "/var/lib/spark", "/srv/lab-state/spark"):
        assert not host.file(path).exists, path
