"""The dashboard of the running lab: it says what the tables, Prometheus and the services say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from live_lab import Lab

PORT = 8050


def node(lab: Lab) -> str:
    """Return the node that has the dashboard; skips in a lab without monitoring."""
    return lab.monitoring_node("dashboard")


def state(lab: Lab) -> dict[str, Any]:
    """Return what the page is told, asked for from another node."""
    text = lab.one("postgres").check_output(f"curl -sf --max-time 20 http://{node(lab)}:{PORT}/api/state")
    return dict(json.loads(text))


def test_unit_runs_at_boot_under_its_user(lab: Lab) -> None:
    host = lab.host(node(lab))
    assert host.service("dashboard").is_enabled
    assert host.service("dashboard").is_running, lab.journal(node(lab), "dashboard", 40)
    pid = host.check_output("systemctl show dashboard -p MainPID --value")
    assert host.check_output(f"ps -o user:32= -p {pid}").strip() == "dashboard"
    assert host.check_output("sudo stat -c '%a %U %G' /etc/dashboard/postgres-password") == "640 root dashboard"


def test_page_comes_without_anything_from_elsewhere(lab: Lab) -> None:
    host = lab.one("postgres")
    page = host.check_output(f"curl -sf http://{node(lab)}:{PORT}/")
    assert "<title>crypto-stream-lab</title>" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    for path in ("uplot.js", "uplot.css", "dashboard.js", "dashboard.css"):
        assert len(host.check_output(f"curl -sf http://{node(lab)}:{PORT}/{path}")) > 1_000


def test_both_engines_write(lab: Lab) -> None:
    def both() -> dict[str, Any]:
        found = state(lab)
        assert found["sources"]["database"]["answers"], found["sources"]
        assert {found["engines"][engine]["state"] for engine in ("spark", "flink")} == {"ok"}, found["path"]
        return found

    found = lab.wait_for(both, "both engines to write, by the dashboard", 120)
    for engine in found["engines"].values():
        assert engine["rows"] > 0
        assert 0 < engine["p50_ms"] <= engine["p95_ms"] <= engine["p99_ms"]
        assert engine["lag"] is not None
    # Spark writes every 15 s by default, Flink at once.
    assert found["engines"]["flink"]["p50_ms"] < found["engines"]["spark"]["p50_ms"]
    assert {entry["symbol"] for entry in found["symbols"]} == set(lab.contract["contract_symbols"])


def test_prices_are_the_tables(lab: Lab) -> None:
    def equal() -> bool:
        """Between two rows the newest price is the same for both of us."""
        rows = dict(
            lab.sql(
                "SELECT DISTINCT ON (symbol) symbol, price FROM crypto_prices_flink"
                " ORDER BY symbol, timestamp DESC, produced_at DESC"
            )
        )
        shown = {entry["symbol"]: entry["quotes"]["flink"]["price"] for entry in state(lab)["symbols"]}
        assert shown == {symbol: float(rows[symbol]) for symbol in shown}
        return True

    lab.wait_for(equal, "the dashboard's prices to be the table's", 60)


def test_candles_of_both_engines_agree(lab: Lab) -> None:
    def compared() -> bool:
        symbols = state(lab)["symbols"]
        assert sum(entry["compared"] for entry in symbols) > 0
        assert all(entry["compared"] == entry["equal"] for entry in symbols), symbols
        return True

    # A lab that was just made has its first candles after three minutes, and a pass of Spark's.
    lab.wait_for(compared, "candles of both engines", 400)


def test_every_expression_finds_something(lab: Lab) -> None:
    """A metric that was renamed leaves a part of the page empty, in words only."""
    if not lab.inventory.get("monitoring", {}).get("hosts"):
        pytest.skip("this lab's topology has no node in the group monitoring")
    said = lab.host(node(lab)).check_output(
        "sudo -u dashboard crypto-dashboard probe --config /etc/dashboard/config.toml"
    )
    assert "Prometheus: nothing for" not in said, said
    assert " of " in said
    found = state(lab)
    assert found["sources"]["prometheus"]["answers"], found["sources"]
    for engine in found["engines"].values():
        if len(lab.nodes) > 1:
            assert (engine["cpu_cores"], engine["memory_bytes"], engine["note"]) > (0, 0, "")
        assert engine["lag_of"] == "topic"


def test_costs_less_than_two_percent_of_a_core(lab: Lab) -> None:
    """Asked every two seconds, as one open page does, for 20 seconds; PostgreSQL's part is not in it."""
    host = lab.host(node(lab))
    pid = host.check_output("systemctl show dashboard -p MainPID --value")
    taken = host.check_output(
        f"before=$(awk '{{print $14 + $15}}' /proc/{pid}/stat); for i in $(seq 10); do "
        f"curl -sf -o /dev/null http://127.0.0.1:{PORT}/api/state; sleep 2; done; "
        f"awk -v before=$before '{{print $14 + $15 - before}}' /proc/{pid}/stat"
    )
    # In hundredths of a second.
    assert float(taken) / 100 < 0.02 * 20 * lab.patience


@pytest.mark.disruptive
def test_engine_that_is_down_is_said(lab: Lab) -> None:
    submitter = lab.one("submitter")
    submitter.check_output("sudo systemctl stop spark-job")
    try:

        def down() -> bool:
            found = state(lab)
            assert found["engines"]["spark"]["state"] == "down", found["path"]
            return bool(found["headline"]["text"].startswith("Spark is down"))

        # By its metrics after a scrape or two; by its rows after a minute without.
        lab.wait_for(down, "the dashboard to say that Spark is down", 180)
        assert state(lab)["engines"]["flink"]["state"] == "ok"
    finally:
        submitter.check_output("sudo systemctl start spark-job")

    def writes() -> bool:
        return bool(state(lab)["engines"]["spark"]["state"] == "ok")

    lab.wait_for(writes, "Spark to write again", 240)


@pytest.mark.disruptive
def test_database_that_goes_is_said(lab: Lab) -> None:
    postgres = lab.one("postgres")
    before = state(lab)
    postgres.check_output("sudo systemctl stop postgresql@15-main")
    try:

        def gone() -> dict[str, Any]:
            found = state(lab)
            assert not found["sources"]["database"]["answers"]
            return found

        found = lab.wait_for(gone, "the dashboard to say that PostgreSQL is away", 30)
        assert found["headline"] == {
            "state": "down", "text": "PostgreSQL does not answer: the figures are the last ones known.",
        }  # fmt: skip
        assert found["symbols"][0]["quotes"]["flink"] is not None or before["symbols"][0]["quotes"]["flink"] is None
    finally:
        postgres.check_output("sudo systemctl start postgresql@15-main")
    lab.wait_for(lambda: state(lab)["sources"]["database"]["answers"], "the dashboard to find PostgreSQL again", 60)
