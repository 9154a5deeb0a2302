"""Prometheus asks its targets, and its rules judge the answers."""

from __future__ import annotations

import json
import time
from typing import Any

from testinfra.host import Host


def ask(host: Host, path: str) -> Any:
    return json.loads(host.check_output(f"curl -sfg 'http://producer-1:9090/api/v1/{path}'"))["data"]


def test_targets_are_asked(host: Host) -> None:
    """One answers, the other is not there: two rounds of 15 seconds are enough for both to be known."""
    found: dict[str, str] = {}
    for _ in range(40):
        found = {
            target["labels"]["job"]: target["health"] for target in ask(host, "targets?state=active")["activeTargets"]
        }
        if "unknown" not in found.values():
            break
        time.sleep(1)
    assert found == {"prometheus": "up", "producer": "down"}


def test_a_missing_target_is_an_alert(host: Host) -> None:
    alerts: list[dict[str, Any]] = []
    for _ in range(60):
        alerts = [alert for alert in ask(host, "alerts")["alerts"] if alert["labels"]["alertname"] == "TargetDown"]
        if alerts:
            break
        time.sleep(1)
    assert [(alert["labels"]["job"], alert["labels"]["node"]) for alert in alerts] == [("producer", "producer-1")]
    assert "docs/troubleshooting.md#" in alerts[0]["annotations"]["runbook"]


def test_rules_are_sound(host: Host) -> None:
    assert host.run("promtool check rules /etc/prometheus/rules/lab.yml").rc == 0
    rules = [rule for group in ask(host, "rules")["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []


def test_memory_stays_small(host: Host) -> None:
    resident_kib = int(host.check_output("ps -o rss= -C prometheus"))
    assert resident_kib < 150 * 1024
