"""The nodes of a running lab and what tests ask of them."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml
from testinfra.host import Host

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tools" / "lab"))

import screen  # noqa: E402 - found on the path set above
from context import Context, LabError  # noqa: E402 - found on the path set above


class Lab:
    """The nodes of a lab and what can be asked of them."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.inventory = screen.inventory(context)
        self.contract: dict[str, Any] = yaml.safe_load(
            (REPOSITORY / "ansible" / "playbooks" / "group_vars" / "all" / "contract.yml").read_text()
        )
        self._hosts: dict[str, Host] = {}

    @property
    def patience(self) -> int:
        """How many times longer things may take here than on bare metal."""
        return screen.patience(self.inventory)

    @property
    def nodes(self) -> list[str]:
        return sorted(self.inventory["_meta"]["hostvars"])

    def group(self, name: str) -> list[str]:
        return list(self.inventory[name]["hosts"])

    def host(self, node: str) -> Host:
        """Return the node as a testinfra host."""
        if node not in self._hosts:
            self._hosts[node] = testinfra.get_host(f"ssh://{node}", ssh_config=str(self.context.ssh_config))
        return self._hosts[node]

    def one(self, group: str) -> Host:
        """Return the first node of a group."""
        return self.host(self.group(group)[0])

    def monitoring_node(self, unit: str) -> str:
        """Return the node that has one of the monitoring's units; skips in a lab without monitoring."""
        group = self.inventory.get("monitoring", {}).get("hosts") or self.group("submitter")
        found = str(group[0])
        if self.host(found).run(f"systemctl is-enabled {unit}").rc != 0:
            options = json.loads((self.context.lab_dir / "options.json").read_text())
            assert options.get("monitoring") == "off", f"{found} has no {unit}"
            pytest.skip("this lab was made with MONITORING=off")
        return found

    def sql(self, text: str) -> list[list[str]]:
        """Run SQL as the superuser; rows of text."""
        return screen.query(self.context, text)

    def psql(self, text: str) -> str:
        """Run psql on the postgres node exactly as the README shows, and return what it prints."""
        quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
        return str(self.one("postgres").check_output(f'psql -U postgres -d crypto_db -c "{quoted}"'))

    def journal(self, node: str, unit: str, lines: int = 400) -> str:
        return str(self.host(node).check_output(f"sudo journalctl -u {unit} -o cat --no-pager -n {lines}"))

    def now_s(self, node: str) -> int:
        """Return the node's time in epoch seconds: where `said` is to begin."""
        return int(self.host(node).check_output("date +%s"))

    def said(self, node: str, unit: str, since_s: int) -> str:
        """Return what a unit has said since a time of its node's clock."""
        return str(self.host(node).check_output(f"sudo journalctl -u {unit} -o cat --no-pager --since @{since_s}"))

    def wait_until_said(self, node: str, unit: str, text: str, since_s: int, timeout_s: float = 120) -> None:
        """Wait until a unit has said a text since then."""
        self.wait_for(lambda: text in self.said(node, unit, since_s), f"'{text}' in the journal of {unit}", timeout_s)

    def polls(self) -> bool:
        """Return whether the producer polls spot prices, and so says how many of a round it has sent."""
        config = self.one("producer").check_output("sudo cat /etc/producer/config.toml")
        return 'kind = "coinbase_rest"' in config

    def wait_for(self, condition: Callable[[], Any], what: str, timeout_s: float = 120) -> Any:  # noqa: ANN401
        """Poll until `condition` is truthy, and return what it gave; fail naming `what`."""
        timeout_s *= self.patience
        deadline = time.monotonic() + timeout_s
        last: Any = None
        while time.monotonic() < deadline:
            try:
                last = condition()
            except (AssertionError, LabError, OSError, RuntimeError) as error:
                last = error
            else:
                if last:
                    return last
            time.sleep(2)
        pytest.fail(f"waited {timeout_s:.0f} s for {what}; last seen: {last}")

    def started(self) -> dict[tuple[str, str], int]:
        """Return when each service was started, as (node, unit) => epoch microseconds."""
        found = {}
        for node in self.nodes:
            units = sorted({
                unit for group, units in screen.UNITS.items() if node in self.inventory.get(group, {}).get("hosts", [])
                for unit in units
            })  # fmt: skip
            for unit in units:
                shown = self.host(node).check_output(
                    f"systemctl show {unit} -p ExecMainStartTimestamp --value --timestamp=us"
                )
                if not shown:
                    continue  # not a part of this lab
                date = shown.partition(" ")[2].removesuffix(" UTC")
                stamp = dt.datetime.strptime(date, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=dt.UTC)
                found[node, unit] = round(stamp.timestamp() * 1e6)
        return found

    def playbook(self, name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run one of the lab's playbooks, as a user would; returns its exit code and output."""
        extra = [argument for key, value in variables.items() for argument in ("-e", f"{key}={value}")]
        return subprocess.run(
            ["ansible-playbook", f"ansible/playbooks/{name}.yml", *extra],
            cwd=REPOSITORY, env=self.context.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def make(self, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run one of the Makefile's targets for this lab, as a user would; returns its exit code and output."""
        settings = [f"{key}={value}" for key, value in ({"LAB": self.context.lab} | variables).items()]
        # Of the `make` that may have started the tests, nothing is to be handed on.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
        return subprocess.run(
            ["make", "--no-print-directory", target, *settings],
            cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def flink_jobs(self) -> list[tuple[str, str]]:
        """Return id and state of the jobs of the pipeline's name that Flink knows."""
        overview = json.loads(self.one("flink_jobmanager").check_output("curl -s http://localhost:8081/jobs/overview"))
        return [(job["jid"], job["state"]) for job in overview["jobs"] if job["name"] == "crypto-prices-flink"]

    def flink_jobs_left(self) -> list[str]:
        """Return the states of those jobs that have not ended."""
        return [state for _, state in self.flink_jobs() if state not in {"CANCELED", "FAILED", "FINISHED"}]

    def wait_until_rows_flow(self, timeout_s: float = 240) -> None:
        """Wait until both engines write events that were made after now."""
        now_us = int(self.sql("SELECT (extract(epoch FROM now()) * 1e6)::bigint")[0][0])

        def flowing() -> bool:
            newest = self.sql(
                "SELECT coalesce((SELECT max(produced_at) FROM crypto_prices_realtime), 0),"
                " coalesce((SELECT max(produced_at) FROM crypto_prices_flink), 0)"
            )[0]
            return all(int(value) > now_us for value in newest)

        self.wait_for(flowing, "rows from both engines", timeout_s)

    def audit(self) -> dict[str, Any]:
        """Run the audit on the submitter's node."""
        return screen.lab_audit(self.context, self.inventory)

    def ledger(self) -> dict[str, Any]:
        """Return the producer's durable counts."""
        text = self.one("producer").check_output(
            "sudo crypto-producer ledger --config /etc/producer/config.toml --json"
        )
        return dict(json.loads(text))

    def assert_all_accounted_for(self, timeout_s: float = 180) -> dict[str, Any]:
        """Wait until the engines have caught up; then producer's count, topic's count and rows must be equal."""

        def balanced() -> dict[str, Any] | None:
            before = self.ledger()
            report = self.audit()
            after = self.ledger()
            report["ledger"] = (before["acknowledged"], after["accepted"])
            assert after["dropped"] == 0
            assert report["ok"], report
            assert before["acknowledged"] <= report["topic"]["events"] <= after["accepted"], report
            return report

        return dict(self.wait_for(balanced, "producer = topic = rows in both tables", timeout_s))


def restarted(before: dict[tuple[str, str], int], after: dict[tuple[str, str], int]) -> set[tuple[str, str]]:
    """Return node and unit of each service that was started anew in between."""
    return {service for service, started_us in after.items() if before.get(service) != started_us}
