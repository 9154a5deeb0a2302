"""What is asked of the database is answered, by a role that may do nothing else."""

from __future__ import annotations

import re

from testinfra.host import Host

INSERT = (
    "INSERT INTO crypto_prices_flink SELECT symbol, 1, 'test', 1800000000000 + number, gen_random_uuid(), 1, 0, number "
    "FROM generate_series(1, 20) number, unnest(ARRAY['BTC-USD', 'ETH-USD']) symbol"
)


def metrics(host: Host) -> dict[str, float]:
    lines = host.check_output("curl -sf http://postgres-1:9187/metrics").splitlines()
    return {
        re.sub(r',?server="[^"]*"', "", name): float(value)
        for name, value in (line.rsplit(" ", 1) for line in lines if line.startswith(("crypto_", "pg_up")))
    }


def sql(host: Host, role: str, query: str) -> str:
    """Run a query as a role; returns what psql said, errors included."""
    with host.sudo():
        done = host.run(f'psql -U postgres -d crypto_db -Atc "SET ROLE {role}; {query}"')
    return str(done.stdout + done.stderr)


def test_rows_are_counted_and_dated(host: Host) -> None:
    name = 'crypto_table_rows_inserted{engine="flink",table="crypto_prices_flink"}'
    before = metrics(host)
    assert before["pg_up"] == 1
    assert "INSERT 0 40" in sql(host, "postgres", INSERT)
    # Counters reach the statistics when the session ends.
    host.run_expect([0], "sleep 2")
    after = metrics(host)
    assert after[name] == before[name] + 40
    assert after['crypto_engine_newest_event_timestamp_seconds{engine="flink"}'] == 1800000000.02


def test_role_reads_no_table_and_writes_nothing(host: Host) -> None:
    assert "permission denied" in sql(host, "lab_monitor", "SELECT * FROM crypto_prices_flink")
    assert "permission denied" in sql(host, "lab_monitor", "SELECT payload FROM rejected_messages")
    assert "permission denied" in sql(host, "lab_monitor", "CREATE TABLE mine (number int)")
    assert sql(host, "lab_monitor", "SELECT count(*) FROM table_activity").splitlines()[-1] == "5"


def test_password_is_closed(host: Host) -> None:
    path = "/etc/prometheus-postgres-exporter/postgres-password"
    assert host.check_output(f"sudo stat -c '%a %U %G' {path}") == "640 root prometheus"
    assert "kept-from-logs" not in host.check_output("ps -eo args")
