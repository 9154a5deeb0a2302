"""Every changed setting is the one that the job runs with."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host


def test_event_becomes_a_row(stream: Any) -> None:
    event_id = stream.send_event(64090.5)
    assert stream.arrives(f"SELECT price FROM crypto_prices_realtime WHERE event_id = '{event_id}'", "64090.5")


def test_symbol_that_is_not_followed_becomes_a_reject(stream: Any) -> None:
    query = "SELECT count(*) FROM rejected_messages WHERE engine = 'spark' AND reason = 'unknown_symbol'"
    before = int(stream.sql(query))
    stream.send_event(1.5, symbol="ETH-USD")
    assert stream.arrives(query, str(before + 1))


def test_name_and_ports(host: Host) -> None:
    (application,) = json.loads(host.check_output("curl -sf http://lab-1:14040/api/v1/applications"))
    assert application["name"] == "another-name"
    assert "crypto_spark_query_active" in host.check_output("curl -sf http://lab-1:19109/metrics")
    assert not {"4040", "9109"} & {name.rpartition(":")[2] for name in host.socket.get_listening_sockets()}


def test_user_and_places(host: Host) -> None:
    with host.sudo():
        assert host.file("/srv/lab-state/engine/checkpoints").is_directory
        assert host.check_output("find /srv/lab-state/engine/checkpoints -type f -user engine")
        assert host.file("/srv/engine-job").user == "engine"
    for path in ("/etc/spark-job", "/opt/spark-job", "/var/lib/spark-job", "/srv/lab-state/spark"):
        assert not host.file(path).exists, path
