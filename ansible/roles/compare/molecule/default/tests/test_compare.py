"""The audit tells equal from unequal."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host

TOPIC = "--bootstrap-server lab-1:9092 --topic crypto_prices"


def audit(host: Host) -> tuple[int, dict[str, Any]]:
    """Run the audit; returns its exit code and its report."""
    with host.sudo():
        done = host.run("lab-audit --json")
    assert done.rc in {0, 1}, done.stderr
    return done.rc, json.loads(done.stdout)


def test_a_message_that_no_engine_stored_is_found(host: Host) -> None:
    before, report = audit(host)
    assert (before == 0) == (report["topic"]["rejected"] == 0)
    assert host.run(f"echo no-json | kafka-console-producer {TOPIC}").rc == 0
    code, after = audit(host)
    assert code == 1
    assert after["topic"]["rejected"] == report["topic"]["rejected"] + 1
    assert {name: found["rejects_missing"] for name, found in after["engines"].items()} == {
        "spark": after["topic"]["rejected"], "flink": after["topic"]["rejected"],
    }  # fmt: skip
