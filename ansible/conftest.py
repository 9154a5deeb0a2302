"""What the testinfra tests of every molecule scenario share: our units, secrets, and the journals of a failure."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from testinfra.host import Host

JOURNAL_LINES = 60
PROPERTIES = ("Id", "UnitFileState", "ActiveState", "MainPID", "User", "ProtectSystem", "Environment")
SECRET = re.compile(r"password|secret|token", re.IGNORECASE)


def units_of(host: Host) -> list[str]:
    """Return the names of the units that roles have put on a node: Debian's own are in another folder."""
    found = host.check_output("find /etc/systemd/system -maxdepth 1 -type f -name '*.service' -printf '%f\\n'")
    return sorted(name.removesuffix(".service") for name in found.splitlines())


def secrets_in(value: object, name: str = "") -> Iterator[str]:
    """Give the texts that stand, at any depth, under a name like `password`."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from secrets_in(entry, str(key))
    elif isinstance(value, list):
        for entry in value:
            yield from secrets_in(entry, name)
    elif isinstance(value, str) and SECRET.search(name):
        yield value


@pytest.fixture(scope="module")
def variables(host: Host) -> dict[str, Any]:
    """Return the node's inventory variables, as the scenario gives them."""
    return dict(host.ansible.get_variables())


@pytest.fixture(scope="module")
def units(host: Host) -> dict[str, dict[str, str]]:
    """Return, for each of our units on the node, the properties that tests ask for: all in one login."""
    names = units_of(host)
    shown = host.check_output(f"systemctl show --property={','.join(PROPERTIES)} {' '.join(names)}") if names else ""
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.split("\n\n") if block]
    return {block["Id"].removesuffix(".service"): block for block in blocks}


@pytest.fixture(scope="module")
def secrets(variables: dict[str, Any]) -> set[str]:
    """Return the passwords that the scenario gives to roles."""
    return set(secrets_in(variables))


class Stream:
    """What goes into the topic and what comes out of the database, on a node that has both and a job between them."""

    def __init__(self, host: Host, variables: dict[str, Any]) -> None:
        self.host = host
        server = f"{variables['inventory_hostname']}:{variables.get('kafka_port', 9092)}"
        self.topic = f"--bootstrap-server {server} --topic {variables['kafka_topics'][0]['name']}"
        self.psql = (
            f"psql -U postgres -p {variables.get('postgres_port', 5432)} -d {variables['postgres_databases'][0]}"
        )

    def send(self, value: str) -> None:
        """Send one message to the topic."""
        self.host.run_expect([0], f"kafka-console-producer {self.topic} <<'EOF'\n{value}\nEOF")

    def send_event(self, price: float, symbol: str = "BTC-USD") -> str:
        """Send one event; returns its id."""
        event_id, now_ms = str(uuid.uuid4()), time.time_ns() // 1_000_000
        event = {
            "event_id": event_id, "symbol": symbol, "price": price, "user": "molecule", "timestamp": now_ms,
            "produced_at": now_ms * 1000,
        }  # fmt: skip
        self.send(json.dumps(event))
        return event_id

    def sql(self, query: str) -> str:
        """Return the one value that a query gives."""
        with self.host.sudo():
            return str(self.host.check_output(f'{self.psql} -Atc "{query}"')).strip()

    def arrives(self, query: str, wanted: str, timeout_s: float = 120) -> bool:
        """Wait until a query gives the wanted value."""
        deadline = time.monotonic() + timeout_s
        while self.sql(query) != wanted:
            if time.monotonic() > deadline:
                return False
            time.sleep(1)
        return True


@pytest.fixture(scope="module")
def stream(host: Host, variables: dict[str, Any]) -> Stream:
    """Return the ends of the pipeline on the node."""
    return Stream(host, variables)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show, beside a failed test, what the node's services have said."""
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.failed and host is not None:
        wanted = " ".join(f"-u {name}" for name in [*units_of(host), "'postgresql@*'"])
        with host.sudo():
            journal = host.run(f"journalctl {wanted} -n {JOURNAL_LINES} --no-pager -o short-precise")
        report.sections.append(("Journals of the node's units", journal.stdout + journal.stderr))
    return report
