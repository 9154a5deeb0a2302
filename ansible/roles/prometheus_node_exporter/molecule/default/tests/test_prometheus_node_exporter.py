"""What the node measures is the node's own, and no more than was asked for."""

from __future__ import annotations

import re
import time

from testinfra.host import Host


def metrics(host: Host) -> dict[str, float]:
    lines = host.check_output("curl -sf http://node-1:9100/metrics").splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_memory_is_the_nodes_and_not_the_machines(host: Host) -> None:
    assert abs(metrics(host)["node_memory_MemTotal_bytes"] / 2**20 - 512) < 52


def test_clock(host: Host) -> None:
    assert abs(metrics(host)["node_time_seconds"] - time.time()) < 30


def test_root_file_system(host: Host) -> None:
    found = metrics(host)
    assert any(re.match(r'node_filesystem_avail_bytes\{.*mountpoint="/"', name) for name in found)


def test_collectors_are_those_asked_for(host: Host) -> None:
    found = {
        match[1]
        for name in metrics(host)
        if (match := re.match(r'node_scrape_collector_success\{collector="(\w+)"', name))
    }
    assert found == {"cpu", "diskstats", "filesystem", "loadavg", "meminfo", "netdev", "time"}
    failed = [
        name for name, value in metrics(host).items() if name.startswith("node_scrape_collector_success") and not value
    ]
    assert failed == []


def test_it_is_light(host: Host) -> None:
    assert int(host.check_output("ps -o rss= -C prometheus-node")) < 40 * 1024
