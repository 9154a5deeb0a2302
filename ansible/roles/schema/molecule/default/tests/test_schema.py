"""The tables are there, and each engine writes its own only."""

from __future__ import annotations

import pytest
from testinfra.host import Host

TABLES = {
    "spark_writer": ("crypto_prices_realtime", "candles_1m_spark"),
    "flink_writer": ("crypto_prices_flink", "candles_1m_flink"),
}


def sql(host: Host, role: str, query: str) -> str:
    """Run a query as a role; returns what psql said, errors included."""
    with host.sudo():
        done = host.run(f'psql -U postgres -d crypto_db -Atc "SET ROLE {role}; {query}"')
    return str(done.stdout + done.stderr)


@pytest.mark.parametrize("role", TABLES)
def test_engine_reads_its_tables(host: Host, role: str) -> None:
    for table in TABLES[role]:
        assert sql(host, role, f"SELECT count(*) FROM {table}").splitlines()[-1] == "0"


@pytest.mark.parametrize("role", TABLES)
def test_engine_cannot_write_the_others_tables(host: Host, role: str) -> None:
    (other,) = TABLES.keys() - {role}
    for table in TABLES[other]:
        assert "permission denied" in sql(host, role, f"DELETE FROM {table}")


def test_reader_only_reads(host: Host) -> None:
    assert sql(host, "lab_reader", "SELECT count(*) FROM rejected_messages").splitlines()[-1] == "0"
    assert "permission denied" in sql(host, "lab_reader", "DELETE FROM rejected_messages")


def test_airflow_deletes_what_has_expired_and_nothing_else(host: Host) -> None:
    assert "permission denied" in sql(host, "airflow_dags", "DELETE FROM crypto_prices_flink")
    expire = "SELECT delete_expired('crypto_prices_flink', 'BTC-USD', '{}', 10)"
    assert sql(host, "airflow_dags", expire.format("2 days")).splitlines()[-1] == "0"
    assert "less than a day" in sql(host, "airflow_dags", expire.format("1 hour"))
    assert "permission denied" in sql(host, "lab_reader", expire.format("2 days"))
