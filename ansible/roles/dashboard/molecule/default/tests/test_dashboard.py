"""The page shows what is in the tables, may not write to them, and outlives its database."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

URL = "http://postgres-1:8050"
PSQL = "psql -X -U postgres -d crypto_db -At"


def state(host: Host) -> dict[str, Any]:
    return dict(json.loads(host.check_output(f"curl -sf {URL}/api/state")))


def wait_for(host: Host, good: Callable[[dict[str, Any]], bool], timeout_s: float = 40) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while not good(found := state(host)):
        assert time.monotonic() < deadline, found
        time.sleep(1)
    return found


def insert(host: Host, table: str, price: float, offset: int, age_ms: int) -> None:
    """Write a row as an engine does, of an event that was made some milliseconds ago."""
    with host.sudo():
        host.check_output(
            f"{PSQL} <<'EOF'\nINSERT INTO {table} SELECT 'BTC-USD', {price}, 'molecule', now_ms, gen_random_uuid(),"
            f" now_ms * 1000, 0, {offset} FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
            f" - {age_ms} AS now_ms) AS clock\nEOF"
        )


def test_page_and_its_files(host: Host) -> None:
    page = host.check_output(f"curl -sf {URL}/")
    assert "<title>crypto-stream-lab</title>" in page
    # Pinned and served from here, without internet.
    assert "uPlot" in host.check_output(f"curl -sf {URL}/uplot.js")
    for path in ("/uplot.css", "/dashboard.css", "/dashboard.js"):
        assert host.check_output(f"curl -sf -o /dev/null -w '%{{http_code}}' {URL}{path}") == "200"


def test_rows_are_shown(host: Host) -> None:
    insert(host, "crypto_prices_realtime", 101.5, 4, 2_000)
    insert(host, "crypto_prices_flink", 102.5, 7, 100)
    found = wait_for(host, lambda now: bool(now["engines"]["spark"]["rows"] and now["engines"]["flink"]["rows"]))
    quotes = next(entry for entry in found["symbols"] if entry["symbol"] == "BTC-USD")["quotes"]
    assert (quotes["spark"]["price"], quotes["flink"]["price"]) == (101.5, 102.5)
    assert 1_900 < found["engines"]["spark"]["p50_ms"] < 60_000
    # Without Prometheus the end of the topic is the furthest offset that an engine has stored.
    assert (found["engines"]["spark"]["lag"], found["engines"]["spark"]["lag_of"]) == (3, "other engine")
    assert found["engines"]["flink"]["lag"] == 0
    assert found["alerts"]["text"] == "There is no Prometheus in this lab, and so no alerts."


def test_probe_says_what_it_finds(host: Host) -> None:
    with host.sudo():
        said = host.check_output("sudo -u dashboard crypto-dashboard probe --config /etc/dashboard/config.toml")
    assert "PostgreSQL: spark:" in said
    assert "Prometheus: none is configured" in said


def test_database_that_goes_and_comes_back(host: Host) -> None:
    with host.sudo():
        host.check_output("systemctl stop postgresql@15-main")
    try:
        gone = wait_for(host, lambda now: not now["sources"]["database"]["answers"])
        assert gone["headline"]["state"] == "down"
    finally:
        with host.sudo():
            host.check_output("systemctl start postgresql@15-main")
    wait_for(host, lambda now: bool(now["sources"]["database"]["answers"]))


def test_costs_little_and_asks_nobody_when_nobody_looks(host: Host) -> None:
    with host.sudo():
        sent = f"{PSQL} -c \"SELECT xact_commit FROM pg_stat_database WHERE datname = 'crypto_db'\""
        pid = host.check_output("systemctl show dashboard -p MainPID --value")
        time.sleep(5)
        before_s = float(host.check_output(f"awk '{{print $14 + $15}}' /proc/{pid}/stat"))
        first = int(host.check_output(sent))
        time.sleep(10)
        # The count's own transaction, and PostgreSQL's own workers', are what there is.
        assert int(host.check_output(sent)) - first <= 6
        assert float(host.check_output(f"awk '{{print $14 + $15}}' /proc/{pid}/stat")) - before_s <= 10, "1 % of a core"
        assert int(host.check_output(f"awk '/VmRSS/ {{print $2}}' /proc/{pid}/status")) < 110 * 1024
