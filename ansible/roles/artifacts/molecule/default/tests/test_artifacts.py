"""The bundle is complete on both nodes, whichever way it came, and `current` points to it."""

from __future__ import annotations

import re

from testinfra.host import Host


def test_bundle(host: Host) -> None:
    current = host.file("/opt/compare/current")
    assert current.is_symlink
    # A release is the version, and the sum of what it holds.
    assert re.fullmatch(r"/opt/compare/\d+\.\d+\.\d+-[0-9a-f]{12}", current.linked_to)
    assert host.run("PYTHONPATH=/opt/compare/current/python python3 -m compare.audit --help").rc == 0
    assert host.file("/opt/compare/current/python").user == "root"


def test_only_the_first_node_has_the_artifacts_mounted(host: Host) -> None:
    mount = host.file("/srv/lab-artifacts")
    assert mount.is_directory
    with host.sudo():
        assert host.run("touch /srv/lab-artifacts/x").rc != 0
