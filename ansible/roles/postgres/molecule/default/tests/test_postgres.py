"""PostgreSQL lets in whom it should, and nobody else."""

from __future__ import annotations

from testinfra.host import Host

LOGIN = "env PGPASSWORD={} PGCONNECT_TIMEOUT=5 psql -h postgres-1 -U clerk -d shop -Atc {}"


def test_role_logs_in_over_the_network(host: Host) -> None:
    done = host.run(LOGIN.format("kept-from-logs", "'SELECT current_user'"))
    assert done.stdout.strip() == "clerk", done.stderr


def test_wrong_password_is_refused(host: Host) -> None:
    assert "password authentication failed" in host.run(LOGIN.format("wrong", "'SELECT 1'")).stderr


def test_role_is_no_superuser(host: Host) -> None:
    assert "permission denied" in host.run(LOGIN.format("kept-from-logs", "'CREATE DATABASE mine'")).stderr


def test_commit_times_are_kept(host: Host) -> None:
    # No sudo: the role lets root in as postgres.
    query = "SELECT pg_xact_commit_timestamp(xmin) IS NOT NULL FROM pg_database WHERE datname = 'shop'"
    with host.sudo():
        assert host.run(f'psql -U postgres -d shop -Atc "{query}"').stdout.strip() == "t"


def test_server_comes_back_after_a_crash(host: Host) -> None:
    with host.sudo():
        main = host.file("/var/lib/postgresql/15/main/postmaster.pid").content_string.splitlines()[0]
        host.run_expect([0], f"kill -9 {main}")
        wait = "for i in $(seq 40); do pg_isready -q && exit 0; sleep 0.5; done; exit 1"
        host.run_expect([0], wait)
        again = host.file("/var/lib/postgresql/15/main/postmaster.pid").content_string.splitlines()[0]
    assert again != main
