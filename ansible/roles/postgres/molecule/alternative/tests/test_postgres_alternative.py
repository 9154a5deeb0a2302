"""Every changed setting is the one that the server runs with."""

from __future__ import annotations

import pytest
from testinfra.host import Host

LOGIN = "env PGPASSWORD={} PGCONNECT_TIMEOUT=5 psql -h {} -p 15432 -U {} -d {} -Atc {}"


@pytest.mark.parametrize(("role", "password"), [("clerk", "kept-from-logs"), ("auditor", "kept-from-logs-too")])
@pytest.mark.parametrize("database", ["stock", "orders"])
def test_roles_log_in_over_loopback(host: Host, role: str, password: str, database: str) -> None:
    query = "'SELECT current_user, current_database()'"
    done = host.run(LOGIN.format(password, "127.0.0.1", role, database, query))
    assert done.stdout.strip() == f"{role}|{database}", done.stderr


def test_nobody_reaches_it_over_the_network(host: Host) -> None:
    """The node's own name would be an address of the network."""
    done = host.run(LOGIN.format("kept-from-logs", "postgres-1", "clerk", "stock", "'SELECT 1'"))
    assert "Connection refused" in done.stderr


def test_root_is_no_superuser_of_the_database(host: Host) -> None:
    with host.sudo():
        done = host.run("psql -p 15432 -U postgres -d stock -Atc 'SELECT 1'")
    assert "Peer authentication failed" in done.stderr


@pytest.mark.parametrize(
    ("name", "value"), [("shared_buffers", "64MB"), ("max_connections", "40"), ("work_mem", "8MB"), ("port", "15432")]
)
def test_setting_is_the_running_one(host: Host, name: str, value: str) -> None:
    with host.sudo("postgres"):
        assert host.check_output(f"psql -p 15432 -d postgres -Atc 'SHOW {name}'") == value


def test_cluster_is_the_only_one(host: Host) -> None:
    assert host.check_output("pg_lsclusters --no-header").split()[:4] == ["15", "shop", "15432", "online"]
    assert host.service("postgresql@15-shop").is_running
    assert not host.file("/etc/postgresql/15/main").exists


def test_server_comes_back_after_a_crash(host: Host) -> None:
    with host.sudo():
        host.run_expect([0], "systemctl kill --signal=KILL postgresql@15-shop")
        host.run_expect([0], "for i in $(seq 40); do pg_isready -q -p 15432 && exit 0; sleep 0.5; done; exit 1")
