"""Java of the version that all three engines take."""

from __future__ import annotations

from testinfra.host import Host


def test_java_runs(host: Host) -> None:
    assert 'version "17' in host.run("java -version").stderr


def test_what_systemd_starts_has_the_options(host: Host) -> None:
    with host.sudo():
        shown = host.check_output("systemd-run --quiet --wait --pipe java -XshowSettings:properties -version 2>&1")
    assert "molecule.option = given" in shown
