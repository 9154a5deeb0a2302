"""Every changed setting is the one that the exporter runs with."""

from __future__ import annotations

import re

from testinfra.host import Host


def test_collectors(host: Host) -> None:
    text = host.check_output("curl -sf http://127.0.0.1:19100/metrics")
    assert set(re.findall(r'node_scrape_collector_success\{collector="(\w+)"', text)) == {"loadavg", "time"}


def test_it_listens_where_it_should_only(host: Host) -> None:
    assert host.socket("tcp://127.0.0.1:19100").is_listening
    assert not host.socket("tcp://0.0.0.0:19100").is_listening
    assert not host.socket("tcp://0.0.0.0:9100").is_listening
