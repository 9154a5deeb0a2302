"""Java of the version that all three engines take."""

from __future__ import annotations

from testinfra.host import Host


def test_java_runs(host: Host) -> None:
    assert 'version "17' in host.run("java -version").stderr
