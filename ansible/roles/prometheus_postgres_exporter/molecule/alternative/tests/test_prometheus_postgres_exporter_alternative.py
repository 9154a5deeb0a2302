"""Every changed setting is the one that the exporter runs with."""

from __future__ import annotations

from testinfra.host import Host


def test_server_and_database(host: Host) -> None:
    text = host.check_output("curl -sf http://127.0.0.1:19187/metrics")
    assert "\npg_up 1\n" in text
    assert 'server="postgres-1:15432"' in text
    assert "crypto_table_rows_inserted{" in text


def test_it_listens_where_it_should_only(host: Host) -> None:
    assert host.socket("tcp://127.0.0.1:19187").is_listening
    assert not host.socket("tcp://0.0.0.0:19187").is_listening
    assert not host.file("/etc/prometheus-postgres-exporter").exists
