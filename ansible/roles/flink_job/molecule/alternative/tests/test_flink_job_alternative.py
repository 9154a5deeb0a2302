"""Every changed setting is the one that the job runs with."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host


def test_event_becomes_a_row(stream: Any) -> None:
    event_id = stream.send_event(64090.5)
    assert stream.arrives(f"SELECT price FROM crypto_prices_flink WHERE event_id = '{event_id}'", "64090.5")


def test_symbol_that_is_not_followed_becomes_a_reject(stream: Any) -> None:
    query = "SELECT count(*) FROM rejected_messages WHERE engine = 'flink' AND reason = 'unknown_symbol'"
    before = int(stream.sql(query))
    stream.send_event(1.5, symbol="ETH-USD")
    assert stream.arrives(query, str(before + 1))


def test_name_parallelism_and_checkpoints(host: Host) -> None:
    jobs = json.loads(host.check_output("curl -sf http://lab-1:18081/jobs/overview"))["jobs"]
    assert [(job["name"], job["state"]) for job in jobs] == [("another-name", "RUNNING")]
    job = f"http://lab-1:18081/jobs/{jobs[0]['jid']}"
    vertices = json.loads(host.check_output(f"curl -sf {job}"))["vertices"]
    assert max(vertex["parallelism"] for vertex in vertices) == 2
    checkpoints = json.loads(host.check_output(f"curl -sf {job}/checkpoints/config"))
    assert checkpoints["interval"] == 2000
    assert "crypto_flink_" in host.check_output("curl -sf http://lab-1:19110/metrics")


def test_user_and_places(host: Host) -> None:
    with host.sudo():
        assert host.check_output("find /srv/lab-state/stream/checkpoints -type f -user stream")
        assert host.file("/srv/stream-job").user == "stream"
    for path in ("/etc/flink-job", "/opt/flink-job", "/var/lib/flink-job", "/srv/lab-state/flink"):
        assert not host.file(path).exists, path
