"""Every changed setting is the one that Prometheus runs with."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host


def ask(host: Host, path: str) -> Any:
    return json.loads(host.check_output(f"curl -sfg 'http://127.0.0.1:19090/api/v1/{path}'"))["data"]


def test_flags(host: Host) -> None:
    flags = ask(host, "status/flags")
    assert flags["config.file"] == "/etc/watcher/lab.yml"
    assert flags["storage.tsdb.path"] == "/srv/watcher"
    assert flags["storage.tsdb.retention.time"] == "1d"
    assert flags["storage.tsdb.retention.size"] == "128MiB"


def test_it_listens_where_it_should_only(host: Host) -> None:
    assert host.socket("tcp://127.0.0.1:19090").is_listening
    assert not host.socket("tcp://0.0.0.0:19090").is_listening
    assert not host.socket("tcp://0.0.0.0:9090").is_listening


def test_targets_and_interval(host: Host) -> None:
    (target,) = ask(host, "targets?state=active")["activeTargets"]
    assert target["scrapeUrl"] == "http://localhost:19090/metrics"
    assert (target["scrapeInterval"], target["scrapeTimeout"]) == ("5s", "3s")


def test_places(host: Host) -> None:
    with host.sudo():
        assert host.check_output("find /srv/watcher -maxdepth 1 -name wal -user prometheus")
    assert not host.file("/etc/prometheus/lab.yml").exists
    assert host.check_output("systemctl show prometheus -p MemoryMax --value") == str(192 * 2**20)
